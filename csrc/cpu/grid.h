// A warp's normalised coordinates, written out as a grid, and the adjoint.
#pragma once

#include "cpu/grad_warp.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

template <class T, int D>
void write_grid(const GridParams& p, int64_t n, const Tile<D>& tile) {
  Looks<T, D> looks;
  const auto& x = looks.x;
  looks.frame = normalised_frame<T, D>();
  if (p.direction == Direction::tangent) {
    find_tangents(tangent_of(p), n, tile, looks.frame, looks.x);
  } else {
    const AnyMap<T, D> map(p.map, p.warp, n, looks.frame, p.output_size, p.align_corners);
    Basis none;
    look_through(map, tile, looks, none, n);
  }
  with_element(p.grid.type, [&](auto element) {
    using Element = decltype(element);
    Element* data = static_cast<Element*>(p.grid.data) + n * p.grid.stride_n;
    tile.for_each_row([&](int slot, const int32_t (&at)[D]) {
      Element* row = data + offset_of<D>(at, p.grid.stride);
      for (int j = 0; j < tile.width; ++j) {
        for (int d = 0; d < D; ++d) row[j * D + d] = Rounded<Element>::from(x[d][slot + j]);
      }
    });
  });
}

// Calls f(type, dims) with the compile-time forms of the map's type and the dimensions.
template <class F>
STN_HD void with_grid_types(const GridParams& p, F&& f) {
  const bool wide = p.warp.type == ElementType::f64;
  if (p.dims == 2) {
    wide ? f(double{}, DimsTag<2>{}) : f(float{}, DimsTag<2>{});
  } else {
    wide ? f(double{}, DimsTag<3>{}) : f(float{}, DimsTag<3>{});
  }
}

// Tasks: (warp, tile). The grid is contiguous.
inline void warp_grid(const GridParams& p, const Plan& plan, int64_t begin, int64_t end) {
  with_grid_types(p, [&](auto type, auto dims) {
    constexpr int D = decltype(dims)::value;
    for (int64_t task = begin; task < end; ++task) {
      const Tile<D> tile(plan, task % plan.tiles);
      write_grid<decltype(type), D>(p, task / plan.tiles, tile);
    }
  });
}

// The gradient of a tile's part of a grid. (A row's last vector may write past it, onto what the
// next row writes again.)
template <class Map, class T, int D>
STN_HD void load_gradient(const Map& values, const Tile<D>& tile, T (&grad)[D][kRoom]) {
  using V = Native<T>;
  constexpr int L = kLanes<T>;
  if constexpr (!Map::parametric && !kIsChain<Map>) {
    const bool planar = values.stride[0] == 1;
    tile.for_each_row([&](int slot, const int32_t (&at)[D]) {
      const auto* row = values.at(at);
      for (int j = 0; j < tile.width; j += L) {
        const int count = std::min(L, tile.width - j);
        V of[D];
        load_values(values, planar, row + j * values.stride[0], count, of);
        for (int d = 0; d < D; ++d) store<L>(&grad[d][slot + j], of[d]);
      }
    });
  }
}

template <class T, int D>
void sum_grid(const GridParams& p, int64_t n, const Tile<D>& tile, LaneSums& total) {
  alignas(64) T grad[D][kRoom];
  const auto frame = normalised_frame<T, D>();
  AnyMap<T, D>(MapKind::grid, p.grid, n, frame, p.output_size, p.align_corners)
      .visit([&](const auto& values) { load_gradient(values, tile, grad); });
  const AnyMap<T, D> any(p.map, p.warp, n, frame, p.output_size, p.align_corners);
  if (p.direction == Direction::tangent) {
    return bend_map(any, tangent_of(p), frame, n, tile, grad, total);
  }
  any.visit([&](const auto& map) {
    if constexpr (std::decay<decltype(map)>::type::parametric) {
      sum_map(map, tile, grad, total);
    }
  });
}

// Tasks: (warp, group of consecutive tiles).
inline void warp_grid_backward(const GridParams& p, const Plan& plan, int64_t begin, int64_t end) {
  const int64_t groups = (plan.tiles + plan.tiles_per_task - 1) / plan.tiles_per_task;
  with_grid_types(p, [&](auto type, auto dims) {
    constexpr int D = decltype(dims)::value;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % groups * plan.tiles_per_task;
      const int64_t last = std::min(plan.tiles, first + plan.tiles_per_task);
      LaneSums total{plan.partial + task * p.warp.count};
      for (int64_t t = first; t < last; ++t) {
        const Tile<D> tile(plan, t);
        sum_grid<decltype(type), D>(p, task / groups, tile, total);
      }
      add_lanes(total, p.warp.count);
    }
  });
}

template <int D>
void finish_warp_grid_backward_as(const GridParams& p, const Plan& plan, int64_t begin,
                                  int64_t end) {
  finish(p.map, p.warp, p.grad_warp, normalised_frame<double, D>(), p.output_size, p.align_corners,
         plan, begin, end);
}

inline void finish_warp_grid_backward(const GridParams& p, const Plan& plan, int64_t begin,
                                      int64_t end) {
  p.dims == 2 ? finish_warp_grid_backward_as<2>(p, plan, begin, end)
              : finish_warp_grid_backward_as<3>(p, plan, begin, end);
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
