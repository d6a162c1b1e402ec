// The adjoint of sample. Each point adds its values to the pixels that sample would have read, with
// atomic operations: in the image itself, in a float32 scratch image where the image has 16 bits,
// or in fixed point where the result must be repeatable. Through an affine map the pixels gather
// what they can (turned.h), and only the rest is added so.
#pragma once

#include "cuda/chain.h"
#include "cuda/derivative.h"
#include "cuda/turned.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// turned: the maps that are turned round, of which only what their pixels do not gather counts
// here; null: all counts.
template <class T, int D, class Sums>
struct ScatterLaunch {
  SampleLaunch<T, D> sample;
  Sums sums;
  const TurnedMap<T, D>* turned;

  STN_HD bool gathered(int64_t warp) const { return turned && turned[warp].usable; }
  // Whether nothing of a warp's values is left to be added.
  STN_HD bool done(int64_t warp) const { return gathered(warp) && only_zeros(sample.p); }
};

// N: channels per step: 1, or 4 (consecutive and aligned). If there is a direction, the weights'
// derivatives along it are in their place.
template <class Chosen, int N, class Map, class Moves, class T, int D, class Sums>
STN_HD void scatter_thread(const ScatterLaunch<T, D, Sums>& launch, const Map& map,
                           const Moves& moves, const Place& place, int thread) {
  constexpr int K = Chosen::K;
  using Element = typename Chosen::Element;
  using A = Accumulate<Element>;
  const SampleParams& p = launch.sample.p;
  const Work& work = launch.sample.work;
  const Spot<D> spot = spot_of<D>(work, p.output_size, place.tile, thread);
  if (!spot.inside) return;
  T x[D];
  look(map, spot.p, x);
  if (launch.gathered(place.warp) && is_gathered(launch.sample.frame, x)) return;
  [[maybe_unused]] A direction[D];
  if constexpr (Chosen::along) {
    direction_of(moves, launch.sample, place.warp, spot.p, direction);
  }
  PointTaps<typename Chosen::Index, A, K, D> taps;
  make_taps(launch.sample.frame, x, p.input.stride, taps);
  const auto adder = launch.sums.adder();
  const int64_t point = offset_of(spot.p, p.output.stride);
  const int64_t step = int64_t(N) << work.log_share;
  for (int64_t n = place.image_begin; n < place.image_end; ++n) {
    const int64_t values = n * p.output.stride_n + point;
    const int64_t image = n * p.input.stride_n;
    for (int64_t c = place.channel_begin + spot.share * N; c < place.channel_end; c += step) {
      Held<Element, N> held;
      with_elements<Element>(p.output, [&](const auto* elements) {
        read(elements + values + c * p.output.stride_c, held);
      });
      A value[N];
      STN_UNROLL
      for (int j = 0; j < N; ++j) value[j] = widen(held.of[j]);
      const int64_t plane = image + c * p.input.stride_c;
      for_each_tap(taps, [&](int k, auto offset, A weight) {
        if constexpr (Chosen::along) {
          const int order[D] = {};
          weight = tap_weight_along<K>(direction, order, k, factors_of(taps));
        }
        if (weight != 0) adder.add(plane + offset, weight, value);
      });
    }
  }
}

// f(place) for the block's part of the work: all of it in one go, unless most may be done already.
template <class Launch, class Block, class F>
STN_HD void for_each_place(const Launch& launch, const Block& block, F&& f) {
  const Work& work = launch.sample.work;
  for (uint32_t b = block.index(); b < work.blocks; b += block.count()) {
    const Place place = place_of(work, b);
    if (!launch.done(place.warp)) f(place);
  }
}

template <class Chosen, int N, class Sums>
struct ScatterKernel {
  using Launch = ScatterLaunch<typename Chosen::T, Chosen::D, Sums>;
  struct Shared {
    BlockMap<typename Chosen::Map> map;
    MovesOf<Chosen> moves;
  };
  static constexpr bool kMany = Chosen::along || !Chosen::Map::linear;  // registers
  static constexpr int kBlocks = kMany            ? 1
                                 : Chosen::K == 1 ? 4
                                 : Chosen::K == 4 ? (Chosen::Map::parametric ? 2 : 1)
                                 : Chosen::D == 3 ? 2
                                                  : 4;

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared& shared) {
    for_each_place(launch, block, [&](const Place& place) {
      const SampleLaunch<typename Chosen::T, Chosen::D>& sample = launch.sample;
      shared.moves.make(block, sample, place.warp);
      const auto& map = shared.map.make(block, sample, place.warp);
      block.each(
          [&](int thread) { scatter_thread<Chosen, N>(launch, map, shared.moves, place, thread); });
      block.barrier();  // before the next map
    });
  }
};

// The largest finite magnitude among the values that are added.
template <class Element, class T, int D, class Sums>
struct LargestKernel {
  using Launch = ScatterLaunch<T, D, Sums>;
  struct Shared {};
  static constexpr int kBlocks = 4;

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared&) {
    typename Block::template PerThread<Fixed> most;
    block.each([&](int thread) { most[thread] = 0; });
    for_each_place(launch, block, [&](const Place& place) {
      block.each([&](int thread) {
        const Fixed of_thread = largest(launch.sample, place, thread);
        most[thread] = most[thread] > of_thread ? most[thread] : of_thread;
      });
    });
    block.largest_of_neighbours(5, [&](int thread) -> Fixed& { return most[thread]; });
    block.each([&](int thread) {
      if (thread % 32 == 0) atomic_max(launch.sums.fixed.largest, most[thread]);
    });
  }

  STN_HD static Fixed largest(const SampleLaunch<T, D>& sample, const Place& place, int thread) {
    const SampleParams& p = sample.p;
    const Spot<D> spot = spot_of<D>(sample.work, p.output_size, place.tile, thread);
    if (!spot.inside) return 0;
    const int64_t point = offset_of(spot.p, p.output.stride);
    Fixed most = 0;
    for (int64_t n = place.image_begin; n < place.image_end; ++n) {
      with_elements<Element>(p.output, [&](const auto* elements) {
        const auto* values = elements + n * p.output.stride_n + point;
        for (int64_t c = place.channel_begin + spot.share; c < place.channel_end;
             c += int64_t(1) << sample.work.log_share) {
          const Fixed bits = magnitude_bits(widen(values[c * p.output.stride_c]));
          most = most > bits ? most : bits;
        }
      });
    }
    return most;
  }
};

// The largest magnitude among the directions of the points.
template <class Map, class Sums>
struct FarthestKernel {
  using T = Coordinate<Map>;
  static constexpr int D = CoordinateOf<Map>::dims;
  using Launch = ScatterLaunch<T, D, Sums>;
  using Shared = BlockDirection<Map>;
  static constexpr int kBlocks = Map::linear ? 0 : 1;

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared& shared) {
    const SampleLaunch<T, D>& sample = launch.sample;
    const Place place = place_of(sample.work, block.index());
    shared.make(block, sample, place.warp);
    typename Block::template PerThread<Fixed> most;
    block.each([&](int thread) {
      most[thread] = 0;
      const Spot<D> spot = spot_of<D>(sample.work, sample.p.output_size, place.tile, thread);
      if (!spot.inside) return;
      double direction[D], magnitude = 0;
      direction_of(shared, sample, place.warp, spot.p, direction);
      for (int d = 0; d < D; ++d) magnitude += absolute(direction[d]);
      most[thread] = magnitude_bits(magnitude);
    });
    block.largest_of_neighbours(5, [&](int thread) -> Fixed& { return most[thread]; });
    block.each([&](int thread) {
      if (thread % 32 == 0) atomic_max(launch.sums.fixed.farthest, most[thread]);
    });
  }
};

// Zeroes the sums of the pixels that do not gather everything.
template <class T, int D, class Sums>
struct ZeroKernel {
  using Launch = GatherLaunch<T, D, Sums>;
  struct Shared {};
  static constexpr int kBlocks = 0;

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared&) {
    const SampleParams& p = launch.sample.p;
    const Place place = place_of(launch.sample.work, block.index());
    const bool zeros = only_zeros(p) && launch.shared_by == 1;
    if (zeros && launch.turned[p.warp.batch == 1 ? 0 : place.warp].usable) return;
    block.each([&](int thread) {
      const auto spot = spot_of<D>(launch.sample.work, p.input_size, place.tile, thread);
      if (!spot.inside) return;
      const int64_t pixel = offset_of(spot.p, p.input.stride);
      for (int64_t n = place.image_begin; n < place.image_end; ++n) {
        for (int64_t c = place.channel_begin + spot.share; c < place.channel_end;
             c += int64_t(1) << launch.sample.work.log_share) {
          launch.sums.zero(n * p.input.stride_n + c * p.input.stride_c + pixel);
        }
      }
    });
  }
};

// The sums of all elements, rounded to the image's type.
template <class Element, class Sums>
struct RoundKernel {
  struct Launch {
    Sums sums;
    Image image;
    int64_t count;
  };
  struct Shared {};
  static constexpr int kBlocks = 0;

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared&) {
    const auto reader = launch.sums.reader();
    block.each([&](int thread) {
      const int64_t step = int64_t(block.count()) * kThreads;
      with_elements<Element>(launch.image, [&](auto* elements) {
        for (int64_t i = int64_t(block.index()) * kThreads + thread; i < launch.count; i += step) {
          write(elements + i, Held<Element, 1>{{reader.value(i)}});
        }
      });
    });
  }
};

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
