// The sums from which a parametric map's gradient is made: over a block, then over the blocks of a
// warp, always in the same order.
#pragma once

#include "cuda/dispatch.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

template <class T, int N>
struct Numbers {
  T of[N];
};

constexpr int kNeighbours = 32;  // threads that add by exchange
constexpr int kLogNeighbours = 5;

// A block's memory for its sums; a free map has none.
template <class Map, bool = Map::parametric>
struct BlockSums {};
template <class Map>
struct BlockSums<Map, true> {
  double of[kThreads / kNeighbours][Map::sums];
};

// f(k, total of the values [k] of all threads), by thread k.
template <int S, class Map, class Block, class Values, class F>
STN_HD void sum_over_block(const Block& block, BlockSums<Map>& shared, Values& values, F&& f) {
  STN_UNROLL
  for (int k = 0; k < S; ++k) {
    block.add_neighbours(kLogNeighbours, [&](int thread) -> auto& { return values[thread].of[k]; });
  }
  block.each([&](int thread) {
    if (thread % kNeighbours != 0) return;
    STN_UNROLL
    for (int k = 0; k < S; ++k) {
      shared.of[thread / kNeighbours][k] = static_cast<double>(values[thread].of[k]);
    }
  });
  block.barrier();
  block.each([&](int thread) {
    if (thread >= S) return;
    double total = 0;
    for (const auto& group : shared.of) total += group[thread];
    f(thread, total);
  });
}

// The length of a block's row of sums, for `count` parameters.
template <class Map>
STN_HD int64_t row_length(int count) {
  if constexpr (Map::grouped) {
    return count > Map::sums ? count : Map::sums;
  } else {
    return Map::sums;
  }
}

// The sums to which add(thread, sums) adds what the threads' points contribute, or for each group
// add(thread, sums, group): the block's row.
template <class Map, class Block, class Add>
STN_HD void store_block_sums(const Block& block, const Map& map, BlockSums<Map>& shared,
                             const Add& add, int count, double* partial) {
  double* row = partial + int64_t(block.index()) * row_length<Map>(count);
  const auto sum = [&](auto number, auto&& store, auto... group) {
    using T = Coordinate<Map>;
    constexpr int S = decltype(number)::value;
    typename Block::template PerThread<Numbers<T, S>> sums;
    block.each([&](int thread) {
      STN_UNROLL
      for (int k = 0; k < S; ++k) sums[thread].of[k] = T(0);
      add(thread, sums[thread].of, group...);
    });
    sum_over_block<S>(block, shared, sums, store);
  };
  if constexpr (Map::grouped) {
    const int groups = map.groups();
    for (int group = 0; group < groups; ++group) {
      if (group > 0) block.barrier();  // before the last group's sums are written over
      const auto store = [&](int j, double total) {
        const int k = map.place(group, j);
        if (k >= 0) row[k] = total;
      };
      sum(Number<Map::group_sums>{}, store, group);
    }
    if (groups > 0) return;
  }
  sum(Number<Map::sums>{}, [&](int k, double total) { row[k] = total; });
}

// What the last step is told: `per_warp` consecutive rows of partial sums for each warp.
template <int D>
struct FinishLaunch {
  MapKind map;
  Warp warp, grad_warp;
  Frame<double, D> frame;
  int64_t output_size[3];
  bool align_corners;
  const double* partial;
  int64_t per_warp;
};

// A block for each warp. Map: with float64 coordinates.
template <class Map>
struct FinishKernel {
  static constexpr int D = CoordinateOf<Map>::dims;
  using Launch = FinishLaunch<D>;
  using Shared = BlockSums<Map>;
  static constexpr int kBlocks = 0;

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared& shared) {
    if constexpr (Map::grouped) {  // as many at once as there are sums
      for (int first = 0; first < launch.warp.count; first += Map::sums) {
        if (first > 0) block.barrier();
        sum_parameters(launch, block, shared, first, launch.warp.count - first);
      }
    } else {
      sum_parameters(launch, block, shared, 0, Map::sums);
    }
  }

  // Of `count` parameters from the first on, those that there are sums for.
  template <class Block>
  STN_HD static void sum_parameters(const Launch& launch, const Block& block, Shared& shared,
                                    int first, int count) {
    constexpr int S = Map::sums;
    const int64_t n = block.index(), length = row_length<Map>(launch.warp.count);
    const double* partial = launch.partial + n * launch.per_warp * length + first;
    typename Block::template PerThread<Numbers<double, S>> sums;
    block.each([&](int thread) {
      STN_UNROLL
      for (int k = 0; k < S; ++k) sums[thread].of[k] = 0;
      for (int64_t row = thread; row < launch.per_warp; row += kThreads) {
        STN_UNROLL
        for (int k = 0; k < S; ++k) {
          if (!Map::grouped || k < count) sums[thread].of[k] += partial[row * length + k];
        }
      }
    });
    sum_over_block<S>(block, shared, sums, [&](int k, double sum) {
      if (k >= count) return;
      alignas(Map) unsigned char bytes[sizeof(Map)];
      make_map<Map>(bytes, launch.map, launch.warp, n, launch.frame, launch.output_size,
                    launch.align_corners);
      const Map& map = *reinterpret_cast<const Map*>(bytes);
      store_as(launch.grad_warp.data, launch.grad_warp.type,
               n * launch.grad_warp.stride_n + first + k, map.finish(first + k, sum));
    });
  }
};

template <class Map, class Params, int D, class Launcher>
void finish_sums(const Params& p, const Frame<double, D>& frame, const Work& work,
                 const double* partial, Launcher& launcher) {
  const FinishLaunch<D> launch{p.map,
                               p.warp,
                               p.grad_warp,
                               frame,
                               {p.output_size[0], p.output_size[1], p.output_size[2]},
                               p.align_corners,
                               partial,
                               work.blocks / work.warps};
  launcher.template run<FinishKernel<Map>>(work.warps, launch);
}

template <class Map>
int64_t sums_bytes(const Work& work, const Warp& warp) {
  return work.blocks * row_length<Map>(warp.count) * static_cast<int64_t>(sizeof(double));
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
