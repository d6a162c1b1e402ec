// A parametric map's normalised coordinates, written out as a grid, and the adjoint.
#pragma once

#include "cuda/block_map.h"
#include "cuda/parameter_sums.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// partial: of the adjoint, a row of sums for each block.
template <class T, int D>
struct GridLaunch {
  GridParams p;
  Frame<T, D> frame;
  Work work;
  double* partial;
};

inline Work work_of(const GridParams& p) {
  return make_work(p.output_size, p.dims, p.batch, 1, 1, 0);
}

template <class T, int D>
GridLaunch<T, D> make_grid_launch(const GridParams& p, void* scratch) {
  return {p, normalised_frame<T, D>(), work_of(p), static_cast<double*>(scratch)};
}

// f(spot, offset of the grid's value) of a thread inside the output.
template <class T, int D, class F>
STN_HD void with_spot(const GridLaunch<T, D>& launch, const Place& place, int thread, F&& f) {
  const Spot<D> spot = spot_of<D>(launch.work, launch.p.output_size, place.tile, thread);
  if (!spot.inside) return;
  const Warp& grid = launch.p.grid;
  f(spot, place.warp * grid.stride_n + offset_of(spot.p, grid.stride));
}

template <class Map>
struct WarpGridKernel {
  using T = Coordinate<Map>;
  static constexpr int D = CoordinateOf<Map>::dims;
  using Launch = GridLaunch<T, D>;
  struct Shared {
    BlockMap<Map> map;
    BlockDirection<Map> moves;
  };
  static constexpr int kBlocks = Map::linear ? 0 : 1;

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared& shared) {
    const Place place = place_of(launch.work, block.index());
    shared.moves.make(block, launch, place.warp);
    const auto& map = shared.map.make(block, launch, place.warp);
    block.each([&](int thread) {
      with_spot(launch, place, thread, [&](const Spot<D>& spot, int64_t at) {
        const Warp& grid = launch.p.grid;
        T x[D];
        if (launch.p.direction == Direction::tangent) {
          shared.moves.along_tangent(launch, place.warp, spot.p, x);
        } else {
          look(map, spot.p, x);
        }
        for (int d = 0; d < D; ++d) store_as(grid.data, grid.type, at + d * grid.stride_k, x[d]);
      });
    });
  }
};

template <class Map>
struct WarpGridBackwardKernel {
  using T = Coordinate<Map>;
  static constexpr int D = CoordinateOf<Map>::dims;
  using Launch = GridLaunch<T, D>;
  struct Shared {
    BlockMap<Map> map;
    BlockDirection<Map> moves;
    BlockSums<Map> sums;
  };
  static constexpr int kBlocks = Map::linear ? 0 : 1;

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared& shared) {
    const Place place = place_of(launch.work, block.index());
    shared.moves.make(block, launch, place.warp);
    const auto& map = shared.map.make(block, launch, place.warp);
    const auto add = [&](int thread, auto& sums, auto... group) {
      with_spot(launch, place, thread, [&](const Spot<D>& spot, int64_t at) {
        const Warp& grid = launch.p.grid;
        T g[D];
        for (int d = 0; d < D; ++d) g[d] = load_as<T>(grid.data, grid.type, at + d * grid.stride_k);
        if (launch.p.direction == Direction::tangent)
          return shared.moves.bend(spot.p, g, sums, group...);
        T from[D];
        position(spot.p, from);
        map.accumulate(from, g, sums, group...);
      });
    };
    store_block_sums(block, map, shared.sums, add, launch.p.warp.count, launch.partial);
  }
};

// f(Type<map>) for the parametric maps; ops.cpp refuses free ones here.
template <class F>
void with_parametric(const GridParams& p, F&& f) {
  const auto with_dims = [&](auto dims) {
    with_map<decltype(dims)::value>(p.map, p.warp.type, [&](auto map) {
      if constexpr (decltype(map)::type::parametric) f(map);
    });
  };
  p.dims == 2 ? with_dims(Number<2>{}) : with_dims(Number<3>{});
}

template <class Launcher>
void warp_grid(const GridParams& p, Launcher& launcher) {
  with_parametric(p, [&](auto map) {
    using Map = typename decltype(map)::type;
    const auto launch = make_grid_launch<Coordinate<Map>, CoordinateOf<Map>::dims>(p, nullptr);
    launcher.template run<WarpGridKernel<Map>>(launch.work.blocks, launch);
  });
}

inline int64_t warp_grid_backward_bytes(const GridParams& p) {
  int64_t bytes = 0;
  with_parametric(
      p, [&](auto map) { bytes = sums_bytes<typename decltype(map)::type>(work_of(p), p.warp); });
  return bytes;
}

template <class Launcher>
void warp_grid_backward(const GridParams& p, void* scratch, Launcher& launcher) {
  with_parametric(p, [&](auto map) {
    using Map = typename decltype(map)::type;
    constexpr int D = CoordinateOf<Map>::dims;
    const auto launch = make_grid_launch<Coordinate<Map>, D>(p, scratch);
    launcher.template run<WarpGridBackwardKernel<Map>>(launch.work.blocks, launch);
    finish_sums<InDouble<Map>>(p, normalised_frame<double, D>(), launch.work, launch.partial,
                               launcher);
  });
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
