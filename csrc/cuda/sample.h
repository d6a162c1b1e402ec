// sample: the forward kernel, a point's value in some images and channels for each thread.
#pragma once

#include "cuda/block_map.h"
#include "cuda/chain.h"
#include "cuda/channels.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// Steps of a thread whose loads are in flight together.
template <int K, int D, int N>
constexpr int unrolled_steps() {
  return N > 1 || kTaps<K, D> > 8 ? 1 : (kTaps<K, D> == 8 ? 2 : 4);
}

// Whether what is around an image is added before the sums are rounded, which a byte must not be
// twice; of other elements cover adds it to what is stored.
template <class Element>
constexpr bool kFillsFirst = std::is_same<Element, Byte>::value;

// Adds so much of it to the channels from c on.
template <int N>
STN_HD void add_fill(const Image& fill, int64_t n, int64_t c, float part, float (&sum)[N]) {
  const float* from = static_cast<const float*>(fill.data) + n * fill.stride_n;
  STN_UNROLL
  for (int j = 0; j < N; ++j) sum[j] += part * from[(c + j) * fill.stride_c];
}

// N: channels per step, 1 or as many as 16 bytes hold (consecutive and aligned).
template <class Chosen, int N, class Map, class T, int D>
STN_HD void sample_thread(const SampleLaunch<T, D>& launch, const Map& map, const Place& place,
                          int thread) {
  constexpr int K = Chosen::K;
  using Element = typename Chosen::Element;
  using Index = typename Chosen::Index;
  using A = Accumulate<Element>;
  using Values = Held<Element, N>;
  constexpr int kSteps = unrolled_steps<K, D, N>();
  const SampleParams& p = launch.p;
  const Spot<D> spot = spot_of<D>(launch.work, p.output_size, place.tile, thread);
  if (!spot.inside) return;
  T x[D];
  look(map, spot.p, x);
  PointTaps<Index, A, K, D> taps;
  make_taps(launch.frame, x, p.input.stride, taps);
  const int64_t point = offset_of(spot.p, p.output.stride);
  const int64_t step = int64_t(N) << launch.work.log_share;
  [[maybe_unused]] A cover = 1;
  if constexpr (kFillsFirst<Element>) {
    if (p.around) cover = static_cast<A>(cover_of<K>(launch.frame, x));
  }
  for (int64_t n = place.image_begin; n < place.image_end; ++n) {
    const int64_t input = n * p.input.stride_n;
    const int64_t output = n * p.output.stride_n + point;
    for (int64_t first = place.channel_begin + spot.share * N; first < place.channel_end;
         first += step * kSteps) {
      // First all loads, without branches between them, so that they overlap.
      Values pixel[kSteps][kTaps<K, D>] = {};
      with_elements<Element>(p.input, [&](const auto* elements) {
        STN_UNROLL
        for (int s = 0; s < kSteps; ++s) {
          const int64_t c = first + s * step;
          const bool active = c < place.channel_end;
          const auto* plane = elements + input + c * p.input.stride_c;
          for_each_tap(taps, [&](int k, Index offset, A weight) {
            if (active && weight != 0) read(plane + offset, pixel[s][k]);
          });
        }
      });
      STN_UNROLL
      for (int s = 0; s < kSteps; ++s) {
        const int64_t c = first + s * step;
        A sum[N] = {};
        for_each_tap(taps, [&](int k, Index, A weight) {
          STN_UNROLL
          for (int j = 0; j < N; ++j) sum[j] += weight * widen(pixel[s][k].of[j]);
        });
        if constexpr (kFillsFirst<Element>) {
          if (cover != 1 && c < place.channel_end) add_fill(p.fill, n, c, 1 - cover, sum);
        }
        Values value;
        STN_UNROLL
        for (int j = 0; j < N; ++j) value.of[j] = Narrow<HeldAs<Element>>::from(sum[j]);
        if (c < place.channel_end) {
          with_elements<Element>(p.output, [&](auto* elements) {
            write(elements + output + c * p.output.stride_c, value);
          });
        }
      }
    }
  }
}

// The launch of sample, in steps of `pack` channels, `steps` of them at a time.
template <class T, int D>
SampleLaunch<T, D> make_sample_launch(const SampleParams& p, int pack, int steps) {
  const int log_share = share_of_reads(p, pack);
  auto launch = make_launch<T, D>(p, log_share);
  split(launch.work, (int64_t(pack) << log_share) * steps);
  return launch;
}

template <class Chosen, int N>
struct SampleKernel {
  using Map = typename Chosen::Map;
  using Launch = SampleLaunch<typename Chosen::T, Chosen::D>;
  using Shared = BlockMap<Map>;
  static constexpr int kBlocks = !Chosen::fast || !Map::linear || (Chosen::K == 4 && N > 1) ? 1 : 0;

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared& shared) {
    const Place place = place_of(launch.work, block.index());
    const auto& map = shared.make(block, launch, place.warp);
    block.each([&](int thread) { sample_thread<Chosen, N>(launch, map, place, thread); });
  }
};

template <class Launcher>
void sample(const SampleParams& p, Launcher& launcher) {
  const auto with = [&](auto chosen) {
    using Chosen = decltype(chosen);
    using T = typename Chosen::T;
    const auto run = [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      constexpr int steps = unrolled_steps<Chosen::K, Chosen::D, N>();
      const auto launch = make_sample_launch<T, Chosen::D>(p, N, steps);
      launcher.template run<SampleKernel<Chosen, N>>(launch.work.blocks, launch);
    };
    using Element = typename Chosen::Element;
    if constexpr (Chosen::fast) {
      // Sixteen taps of sixteen sums would not fit into the registers.
      constexpr int N = Chosen::K == 4 && kPack<Element> > 8 ? 8 : kPack<Element>;
      if (packed<Element, N>(p)) return run(Number<N>{});
    }
    run(Number<1>{});
  };
  p.input.type == ElementType::u8 ? with_kernel_of<Byte>(p, with) : with_kernel(p, with);
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
