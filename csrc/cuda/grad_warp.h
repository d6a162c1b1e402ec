// The gradient that reaches the warp: of a free map, written point by point; of a map's parameters,
// summed in a fixed order. Repeatable in any mode. A thread has one point: first the gradient of
// each tap's pixel value, summed over images and channels,
//   dot[tap] = sum of grad[n, c, point] * input[n, c, tap],
// then of the coordinates, by the slopes of the weights.
#pragma once

#include "cuda/block_map.h"
#include "cuda/channels.h"
#include "cuda/derivative.h"
#include "cuda/parameter_sums.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// Whether the sums of a map move as it does.
template <class Chosen>
constexpr bool kBends = Chosen::along && !Chosen::Map::linear;

// A gradient of coordinates, and beside one along a direction that without, where the map's sums
// move, too.
template <class A, int D, bool Bends>
struct Gradient {
  A of[D];
};
template <class A, int D>
struct Gradient<A, D, true> {
  A of[D], still[D];
};
template <class Chosen>
using GradientOf = Gradient<Accumulate<typename Chosen::Element>, Chosen::D, kBends<Chosen>>;

// This thread's part of the gradient of its point's pixel coordinates: over the images and channels
// of the block that fall to it; what that does along a direction, if there is one. 0 outside the
// output. N: channels per step, as in sample_thread.
template <class Chosen, int N, class Map, class Moves, class T, int D>
STN_HD void coordinate_gradient(const SampleLaunch<T, D>& launch, const Map& map,
                                const Moves& moves, const Place& place, const Spot<D>& spot,
                                GradientOf<Chosen>& grad) {
  constexpr int K = Chosen::K;
  using Element = typename Chosen::Element;
  using Index = typename Chosen::Index;
  using A = Accumulate<Element>;
  using Values = Held<Element, N>;
  const SampleParams& p = launch.p;
  grad = {};
  if (!spot.inside) return;
  T x[D];
  look(map, spot.p, x);
  PointTaps<Index, A, K, D> taps;
  make_taps(launch.frame, x, p.input.stride, taps);
  A dot[kTaps<K, D>] = {};
  const int64_t point = offset_of(spot.p, p.output.stride);
  const int64_t step = int64_t(N) << launch.work.log_share;
  for (int64_t n = place.image_begin; n < place.image_end; ++n) {
    for (int64_t c = place.channel_begin + spot.share * N; c < place.channel_end; c += step) {
      Values value;
      with_elements<Element>(p.output, [&](const auto* elements) {
        read(elements + n * p.output.stride_n + point + c * p.output.stride_c, value);
      });
      with_elements<Element>(p.input, [&](const auto* elements) {
        const auto* plane = elements + n * p.input.stride_n + c * p.input.stride_c;
        STN_UNROLL
        for (int k = 0; k < kTaps<K, D>; ++k) {
          Values pixel;
          read(plane + tap_offset(taps, k), pixel);
          STN_UNROLL
          for (int j = 0; j < N; ++j) dot[k] += widen(value.of[j]) * widen(pixel.of[j]);
        }
      });
    }
  }
  if constexpr (Chosen::along) {
    A direction[D];
    direction_of(moves, launch, place.warp, spot.p, direction);
    STN_UNROLL
    for (int d = 0; d < D; ++d) {
      grad.of[d] = weighted_sum_along(taps, direction, dot, d);
      if constexpr (kBends<Chosen>) grad.still[d] = weighted_sum(taps, dot, d);
    }
  } else {
    STN_UNROLL
    for (int d = 0; d < D; ++d) grad.of[d] = weighted_sum(taps, dot, d);
  }
}

// A free map's gradient at a point, written.
template <class T, int D>
STN_HD void write_gradient(const AnyGrid<T, D>& map, const Warp& out, const Spot<D>& spot,
                           T (&g)[D]) {
  map.reading->gradient(g);
  const int64_t at = map.n * out.stride_n + offset_of(spot.p, out.stride);
  for (int d = 0; d < D; ++d) store_as(out.data, out.type, at + d * out.stride_k, g[d]);
}

// Threads that share a point: along consecutive channels; else, where there are few points, along
// as many channels as keep the device busy.
inline int share_of_gradient(const SampleParams& p, int pack) {
  const int channels = share_of_reads(p, pack);
  if (channels > 0) return channels;
  if (is_parametric(p.map)) return 0;  // its blocks share the channels: split
  const int64_t threads = points(p.output_size, p.dims) * p.warp.batch;
  int log = 0;
  while (log < 5 && (int64_t(2 * pack) << log) <= p.channels &&
         (threads << log) < kBusyBlocks * kThreads) {
    ++log;
  }
  return log;
}

template <class T, int D>
SampleLaunch<T, D> make_gradient_launch(const SampleParams& p, int pack) {
  const int log_share = share_of_gradient(p, pack);
  auto launch = make_launch<T, D>(p, log_share);
  // Only sums can come from several blocks.
  if (is_parametric(p.map)) split(launch.work, int64_t(pack) << log_share);
  return launch;
}

// partial: a row of sums for each block, of a parametric map.
template <class T, int D>
struct GradWarpLaunch {
  SampleLaunch<T, D> sample;
  double* partial;
};

template <class Chosen, int N>
struct GradWarpKernel {
  using Map = typename Chosen::Map;
  using T = typename Chosen::T;
  using A = Accumulate<typename Chosen::Element>;
  static constexpr int D = Chosen::D;
  using Launch = GradWarpLaunch<T, D>;
  struct Shared {
    BlockMap<Map> map;
    MovesOf<Chosen> moves;
    BlockSums<Map> sums;
  };
  static constexpr bool kWide = sizeof(A) == 8 || !Chosen::fast;  // elements, or offsets
  static constexpr int kBlocks =
      Chosen::along || !Map::linear || Chosen::K == 4 || (D == 3 && sizeof(A) == 8) ? 1
      : kWide || D == 3 ? 2
                        : (N > 1 ? 2 : (Map::parametric ? 3 : 0));

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared& shared) {
    const SampleLaunch<T, D>& sample = launch.sample;
    const SampleParams& p = sample.p;
    const Place place = place_of(sample.work, block.index());
    shared.moves.make(block, sample, place.warp);
    const auto& map = shared.map.make(block, sample, place.warp);
    typename Block::template PerThread<GradientOf<Chosen>> grad;
    typename Block::template PerThread<Spot<D>> spot;
    block.each([&](int thread) {
      spot[thread] = spot_of<D>(sample.work, p.output_size, place.tile, thread);
      coordinate_gradient<Chosen, N>(sample, map, shared.moves, place, spot[thread], grad[thread]);
    });
    const auto gather = [&](auto&& of) {
      STN_UNROLL
      for (int d = 0; d < D; ++d) {
        block.add_neighbours(sample.work.log_share,
                             [&](int thread) -> A& { return of(grad[thread])[d]; });
      }
    };
    // f(g) of a thread that has its point's.
    const auto finish = [&](int thread, const A(&of)[D], auto&& f) {
      if (!spot[thread].inside || spot[thread].share != 0) return;
      T g[D];
      STN_UNROLL
      for (int d = 0; d < D; ++d) g[d] = static_cast<T>(of[d]);
      f(g);
    };
    gather([](auto& part) -> auto& { return part.of; });
    if constexpr (kBends<Chosen>) gather([](auto& part) -> auto& { return part.still; });
    if constexpr (Map::parametric) {
      const auto add = [&](int thread, auto& sums, auto... group) {
        finish(thread, grad[thread].of, [&](T(&g)[D]) {
          T at[D];
          position(spot[thread].p, at);
          map.accumulate(at, g, sums, group...);
        });
        if constexpr (kBends<Chosen>) {
          if (p.direction != Direction::tangent) return;
          finish(thread, grad[thread].still,
                 [&](T(&g)[D]) { shared.moves.bend(spot[thread].p, g, sums, group...); });
        }
      };
      store_block_sums(block, map, shared.sums, add, p.warp.count, launch.partial);
    } else {
      block.each([&](int thread) {
        finish(thread, grad[thread].of,
               [&](T(&g)[D]) { write_gradient(map, p.grad_warp, spot[thread], g); });
      });
    }
  }
};

// f(Choice, pack): in steps of one channel, or of as many as 16 bytes hold. (Bicubic's 16 taps
// keep a thread busy without, and would need more registers than there are.) Not of nearest: its
// gradient is 0, and ops.cpp returns zeros.
template <class F>
void with_gradient_kernel(const SampleParams& p, F&& f) {
  with_kernel_along(p, [&](auto chosen) {
    using Chosen = decltype(chosen);
    using Element = typename Chosen::Element;
    if constexpr (Chosen::fast && Chosen::K == 2) {
      constexpr int N = kPack<Element>;
      if (packed<Element, N>(p)) return f(chosen, Number<N>{});
    }
    if constexpr (Chosen::K > 1) f(chosen, Number<1>{});
  });
}

inline int64_t grad_warp_bytes(const SampleParams& p) {
  int64_t bytes = 0;
  with_gradient_kernel(p, [&](auto chosen, auto pack) {
    using Chosen = decltype(chosen);
    using Map = typename Chosen::Map;
    const auto bytes_of = [&](auto type) {
      const auto launch = make_gradient_launch<typename Chosen::T, Chosen::D>(p, pack.value);
      return sums_bytes<TypeOf<decltype(type)>>(launch.work, p.warp);
    };
    if constexpr (Map::parametric) bytes = bytes_of(Type<Map>{});
    if constexpr (kIsChain<Map>) bytes = 2 * bytes_of(Type<typename Map::Matrix>{});
  });
  return bytes;
}

// grad_chain.h
template <class Chosen, class Launcher>
void grad_chain(const SampleParams& p, void* scratch, Launcher& launcher);

template <class Chosen, int N, class Launcher>
void grad_one(const SampleParams& p, void* scratch, Launcher& launcher) {
  using Map = typename Chosen::Map;
  using T = typename Chosen::T;
  constexpr int D = Chosen::D;
  const GradWarpLaunch<T, D> launch{make_gradient_launch<T, D>(p, N),
                                    static_cast<double*>(scratch)};
  const Work& work = launch.sample.work;
  launcher.template run<GradWarpKernel<Chosen, N>>(work.blocks, launch);
  if constexpr (Map::parametric) {
    const auto frame = pixel_frame<double, D>(p);
    finish_sums<InDouble<Map>>(p, frame, work, launch.partial, launcher);
  }
}

template <class Launcher>
void grad_warp(const SampleParams& p, void* scratch, Launcher& launcher) {
  with_gradient_kernel(p, [&](auto chosen, auto pack) {
    using Chosen = decltype(chosen);
    if constexpr (kIsChain<typename Chosen::Map>) {
      grad_chain<Chosen>(p, scratch, launcher);
    } else {
      grad_one<Chosen, decltype(pack)::value>(p, scratch, launcher);
    }
  });
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
