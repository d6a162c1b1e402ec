// sample_derivative: a thread has a point, and makes of what sample reads there its derivatives,
// along a direction or along each axis, and its value, if that is asked for.
#pragma once

#include "cuda/block_map.h"
#include "cuda/channels.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// The sum of numbers of the taps, times the weights' derivatives along an axis (-1: the weights). A
// tap whose coefficient is 0 does not count, whatever its number.
template <class Index, class A, int K, int D>
STN_HD A weighted_sum(const PointTaps<Index, A, K, D>& taps, const A (&number)[kTaps<K, D>],
                      int axis) {
  int order[D];
  order_along(axis, order);
  A sum = 0;
  STN_UNROLL
  for (int k = 0; k < kTaps<K, D>; ++k) {
    const A coefficient = tap_weight<K>(order, k, factors_of(taps));
    if (coefficient != 0) sum += coefficient * number[k];
  }
  return sum;
}

// The same of the derivatives along a direction and an axis.
template <class Index, class A, int K, int D>
STN_HD A weighted_sum_along(const PointTaps<Index, A, K, D>& taps, const A (&direction)[D],
                            const A (&number)[kTaps<K, D>], int axis) {
  int order[D];
  order_along(axis, order);
  A sum = 0;
  STN_UNROLL
  for (int k = 0; k < kTaps<K, D>; ++k) {
    const A coefficient = tap_weight_along<K>(direction, order, k, factors_of(taps));
    if (coefficient != 0) sum += coefficient * number[k];
  }
  return sum;
}

STN_HD int64_t plane_of(const Image& image, int64_t n, int64_t c) {
  return n * image.stride_n + c * image.stride_c;
}

// Points of the values and of the derivatives lie alike.
template <class Chosen, class Map, class Moves, class T, int D>
STN_HD void derive_thread(const SampleLaunch<T, D>& launch, const Map& map, const Moves& moves,
                          const Place& place, int thread) {
  constexpr int K = Chosen::K;
  using Element = typename Chosen::Element;
  using A = Accumulate<Element>;
  const SampleParams& p = launch.p;
  const Spot<D> spot = spot_of<D>(launch.work, p.output_size, place.tile, thread);
  if (!spot.inside) return;
  T x[D];
  look(map, spot.p, x);
  A direction[D];
  direction_of(moves, launch, place.warp, spot.p, direction);
  PointTaps<typename Chosen::Index, A, K, D> taps;
  make_taps(launch.frame, x, p.input.stride, taps);
  const int64_t point = offset_of(spot.p, p.derivative.stride);
  for (int64_t n = place.image_begin; n < place.image_end; ++n) {
    for (int64_t c = place.channel_begin + spot.share; c < place.channel_end;
         c += int64_t(1) << launch.work.log_share) {
      A pixel[kTaps<K, D>];
      with_elements<Element>(p.input, [&](const auto* elements) {
        const auto* plane = elements + plane_of(p.input, n, c);
        STN_UNROLL
        for (int k = 0; k < kTaps<K, D>; ++k) pixel[k] = widen(plane[tap_offset(taps, k)]);
      });
      const auto put = [&](const Image& image, int64_t at, A value) {
        with_elements<Element>(image, [&](auto* elements) {
          write(elements + plane_of(image, n, c) + point + at, Held<Element, 1>{{value}});
        });
      };
      if (p.output.data) put(p.output, 0, weighted_sum(taps, pixel, -1));
      if (p.direction != Direction::none) {
        put(p.derivative, 0, weighted_sum_along(taps, direction, pixel, -1));
        continue;
      }
      STN_UNROLL
      for (int d = 0; d < D; ++d) {
        put(p.derivative, d * p.axis_stride, weighted_sum(taps, pixel, d));
      }
    }
  }
}

template <class Chosen>
struct DerivativeKernel {
  using Map = typename Chosen::Map;
  using Launch = SampleLaunch<typename Chosen::T, Chosen::D>;
  struct Shared {
    BlockMap<Map> map;
    BlockDirection<Map> moves;
  };
  static constexpr int kBlocks = 1;

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared& shared) {
    const Place place = place_of(launch.work, block.index());
    shared.moves.make(block, launch, place.warp);
    const auto& map = shared.map.make(block, launch, place.warp);
    block.each(
        [&](int thread) { derive_thread<Chosen>(launch, map, shared.moves, place, thread); });
  }
};

// Not of nearest: its derivatives are 0, and ops.cpp returns zeros.
template <class Launcher>
void sample_derivative(const SampleParams& p, Launcher& launcher) {
  with_kernel(p, [&](auto chosen) {
    using Chosen = typename decltype(chosen)::Moved;
    if constexpr (Chosen::K > 1 && !kIsChain<typename Chosen::Map>) {
      SampleParams q = p;  // its threads share channels as the derivatives lie
      q.output.stride_c = p.derivative.stride_c;
      const int log_share = share_of_reads(q, 1);
      auto launch = make_launch<typename Chosen::T, Chosen::D>(p, log_share);
      split(launch.work, int64_t(1) << log_share);
      launcher.template run<DerivativeKernel<Chosen>>(launch.work.blocks, launch);
    }
  });
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
