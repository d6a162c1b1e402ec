// splat's launches: which kernels, in which order, with what scratch memory.
#pragma once

#include "cuda/splat.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// The image's elements. It is dense (ops.cpp allocates it), so that they are those of the scratch
// images too, at the same offsets.
inline int64_t image_elements(const SampleParams& p) {
  return p.input.batch * p.channels * points(p.input_size, p.dims);
}

// The points that may add to one pixel, as a power of two.
inline int log_points(const SampleParams& p) {
  return ceil_log2(points(p.output_size, p.dims) * (p.input.batch == 1 ? p.batch : 1));
}

// Blocks of a kernel that strides over its work.
inline int64_t striding_blocks(int64_t blocks) {
  return blocks < 4 * kBusyBlocks ? blocks : 4 * kBusyBlocks;
}

// Whether the image's own elements are of the type in which its sums accumulate.
inline bool is_direct(const SampleParams& p) { return element_size(p.input.type) >= 4; }

// The scratch memory, piece after piece, each as aligned as an allocation.
template <class Chosen>
struct SplatMemory {
  using Element = typename Chosen::Element;
  using A = Accumulate<Element>;
  using Turned = TurnedMap<typename Chosen::T, Chosen::D>;

  Turned* turned = nullptr;
  Fixed* largest = nullptr;
  Fixed* farthest = nullptr;
  Fixed* limb[kLimbs<A>] = {};
  A* sums = nullptr;  // of the image; those of what is not finite where the others are fixed
  int64_t bytes = 0;

  SplatMemory(const SampleParams& p, void* scratch) {
    const int64_t count = image_elements(p);
    const auto take = [&](auto*& piece, int64_t elements) {
      piece = reinterpret_cast<std::decay_t<decltype(piece)>>(static_cast<char*>(scratch) + bytes);
      bytes += ceil_div(elements * static_cast<int64_t>(sizeof *piece), 256) * 256;
    };
    if (is_turned(p)) take(turned, p.warp.batch);
    if (p.deterministic) {
      take(largest, 1);
      if (Chosen::along) take(farthest, 1);
      for (Fixed*& one : limb) take(one, count);
    }
    if (is_direct(p)) {
      sums = static_cast<A*>(p.input.data);
    } else {
      take(sums, count);
    }
  }

  FixedSums<A> fixed(const SampleParams& p) const {
    FixedSums<A> fixed{};
    for (int k = 0; k < kLimbs<A>; ++k) fixed.limb[k] = limb[k];
    fixed.not_finite = sums;
    fixed.largest = largest;
    fixed.farthest = farthest;
    fixed.log_points = log_points(p);
    return fixed;
  }
};

// Adds the values that are not gathered to the sums.
template <class Chosen, class Sums, class Launcher>
void scatter(const SampleParams& p, const Sums& sums,
             const TurnedMap<typename Chosen::T, Chosen::D>* turned, Launcher& launcher) {
  using T = typename Chosen::T;
  using Element = typename Chosen::Element;
  constexpr int D = Chosen::D;
  // In fixed point the additions take so long that what a kernel has of its own does not count.
  constexpr bool floats = std::is_same<Sums, FloatSums<Accumulate<Element>>>::value;
  using Of = std::conditional_t<floats, Chosen, typename Chosen::Shared>;
  const auto run = [&](auto pack) {
    constexpr int N = decltype(pack)::value;
    const int log_share = share_of_channels(p, N);
    ScatterLaunch<T, D, Sums> launch{make_launch<T, D>(p, log_share), sums, turned};
    split(launch.sample.work, int64_t(N) << log_share);
    const int64_t blocks = launch.sample.work.blocks;
    launcher.template run<ScatterKernel<Of, N, Sums>>(turned ? striding_blocks(blocks) : blocks,
                                                      launch);
  };
  if constexpr (Chosen::fast && Chosen::K == 2 && floats &&
                sizeof(Accumulate<Element>) == sizeof(float)) {
    if (packed<Element, 4>(p) && launcher.adds_vectors()) return run(Number<4>{});
  }
  run(Number<1>{});
}

// The pixels gather from the points that see them, on top of the sums. fast: Choice's.
template <class Element, bool fast, class Sums, class T, int D, class Launcher>
void gather(const SampleParams& p, const Sums& sums, const TurnedMap<T, D>* turned,
            Launcher& launcher) {
  const auto run = [&](auto pack) {
    constexpr int N = decltype(pack)::value;
    const auto launch = make_gather_launch(p, sums, turned, N);
    launcher.template run<GatherKernel<Element, N, T, D, Sums>>(launch.sample.work.blocks, launch);
  };
  if constexpr (fast) {
    constexpr int N = kPack<Element>;
    if (packed<Element, N>(p)) return run(Number<N>{});
  }
  run(Number<1>{});
}

template <class T, int D, class Launcher>
void turn(const SampleParams& p, TurnedMap<T, D>* turned, Launcher& launcher) {
  const TurnLaunch<T, D> launch{make_launch<T, D>(p, 0), turned};
  launcher.template run<TurnKernel<T, D>>(ceil_div(p.warp.batch, kThreads), launch);
}

// By way of sums of their own: in fixed point, or of a wider type than the image's.
template <class Chosen, class Sums, class Launcher>
void splat_by_sums(const SampleParams& p, const Sums& sums, const SplatMemory<Chosen>& memory,
                   Launcher& launcher) {
  using T = typename Chosen::T;
  using Element = typename Chosen::Element;
  constexpr int D = Chosen::D;
  const int64_t count = image_elements(p);
  if (memory.turned) {
    const auto launch = make_gather_launch(p, sums, memory.turned, 1);
    launcher.template run<ZeroKernel<T, D, Sums>>(launch.sample.work.blocks, launch);
  } else {
    for (Fixed* limb : memory.limb) {
      if (limb) launcher.zero(limb, count * static_cast<int64_t>(sizeof *limb));
    }
    launcher.zero(memory.sums, count * static_cast<int64_t>(sizeof *memory.sums));
  }
  if constexpr (!std::is_same<Sums, FloatSums<Accumulate<Element>>>::value) {
    launcher.zero(memory.largest, sizeof *memory.largest);
    ScatterLaunch<T, D, Sums> launch{make_launch<T, D>(p, share_of_channels(p, 1)), sums,
                                     memory.turned};
    split(launch.sample.work, int64_t(1) << launch.sample.work.log_share);
    launcher.template run<LargestKernel<AnyOf<Element>, T, D, Sums>>(
        striding_blocks(launch.sample.work.blocks), launch);
    if constexpr (Chosen::along) {
      launcher.zero(memory.farthest, sizeof *memory.farthest);
      const ScatterLaunch<T, D, Sums> points{make_launch<T, D>(p, 0), sums, nullptr};
      using Map = typename Chosen::Shared::Map;
      launcher.template run<FarthestKernel<Map, Sums>>(points.sample.work.blocks, points);
    }
  }
  scatter<Chosen>(p, sums, memory.turned, launcher);
  if (memory.turned) {
    gather<Element, Chosen::fast>(p, sums, memory.turned, launcher);
  } else {
    using Round = RoundKernel<AnyOf<Element>, Sums>;
    const typename Round::Launch launch{sums, p.input, count};
    launcher.template run<Round>(striding_blocks(ceil_div(count, kThreads)), launch);
  }
}

// In the image itself.
template <class Chosen, class Launcher>
void splat_in_place(const SampleParams& p, const SplatMemory<Chosen>& memory, Launcher& launcher) {
  using Element = typename Chosen::Element;
  using A = Accumulate<Element>;
  if (memory.turned) {
    gather<Element, Chosen::fast>(p, NoSums<A>{}, memory.turned, launcher);
  } else {
    launcher.zero(memory.sums, image_elements(p) * static_cast<int64_t>(sizeof(A)));
  }
  scatter<Chosen>(p, FloatSums<A>{memory.sums}, memory.turned, launcher);
}

inline int64_t splat_bytes(const SampleParams& p) {
  int64_t bytes = 0;
  with_kernel_along(p,
                    [&](auto chosen) { bytes = SplatMemory<decltype(chosen)>(p, nullptr).bytes; });
  return bytes;
}

template <class Launcher>
void splat(const SampleParams& p, void* scratch, Launcher& launcher) {
  with_kernel_along(p, [&](auto chosen) {
    using Chosen = decltype(chosen);
    using Element = typename Chosen::Element;
    using A = Accumulate<Element>;
    SplatMemory<Chosen> memory(p, scratch);
    if (memory.turned) turn(p, memory.turned, launcher);
    if (p.deterministic) {
      return splat_by_sums<Chosen>(p, RepeatableSums<A>{memory.fixed(p)}, memory, launcher);
    }
    if constexpr (sizeof(Element) != sizeof(Half)) {
      if (is_direct(p)) return splat_in_place<Chosen>(p, memory, launcher);
    }
    if constexpr (sizeof(Element) < sizeof(A)) {
      splat_by_sums<Chosen>(p, FloatSums<A>{memory.sums}, memory, launcher);
    }
  });
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
