// A warp's normalised coordinates, written out as a grid, and the adjoint.
#pragma once

#include "cpu/grad_warp.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

template <class T, int D>
void write_grid(const GridParams& p, int64_t n, int64_t begin, int count) {
  alignas(64) T x[D][kRoom];
  with_map<T, D>(p.map, p.warp, n, normalised_frame<T, D>(), p.output_size, p.align_corners,
                 [&](const auto& map) { coordinates(map, p.output_size, begin, count, x); });
  with_element(p.grid.type, [&](auto element) {
    using Element = decltype(element);
    Element* data = static_cast<Element*>(p.grid.data) + n * p.grid.stride_n + begin * D;
    for (int i = 0; i < count; ++i) {
      for (int d = 0; d < D; ++d) data[i * D + d] = Rounded<Element>::from(x[d][i]);
    }
  });
}

// Tasks: (warp, tile). The grid is contiguous.
inline void warp_grid(const GridParams& p, const Plan& plan, int64_t begin, int64_t end) {
  const int64_t total = points(p.output_size, p.dims);
  const bool wide = p.warp.type == ElementType::f64;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t n = task / plan.tiles, first = task % plan.tiles * kTile;
    const int count = tile_count(total, first);
    if (p.dims == 2) {
      wide ? write_grid<double, 2>(p, n, first, count) : write_grid<float, 2>(p, n, first, count);
    } else {
      wide ? write_grid<double, 3>(p, n, first, count) : write_grid<float, 3>(p, n, first, count);
    }
  }
}

template <class T, int D>
void sum_grid(const GridParams& p, int64_t n, int64_t begin, int count, double* partial) {
  alignas(64) T grad[D][kRoom];
  with_element(p.grid.type, [&](auto element) {
    using Element = decltype(element);
    const Element* data = static_cast<const Element*>(p.grid.data) + n * p.grid.stride_n;
    for_each_run<D>(p.output_size, begin, count, [&](int i, int run, const int32_t (&at)[D]) {
      int64_t row = 0;
      for (int d = 0; d < D; ++d) row += at[d] * p.grid.stride[d];
      for (int j = 0; j < run; ++j) {
        for (int d = 0; d < D; ++d) {
          grad[d][i + j] =
              static_cast<T>(to_float(data[row + j * p.grid.stride[0] + d * p.grid.stride_k]));
        }
      }
    });
  });
  with_map<T, D>(p.map, p.warp, n, normalised_frame<T, D>(), p.output_size, p.align_corners,
                 [&](const auto& map) {
                   using Map = typename std::decay<decltype(map)>::type;
                   if constexpr (Map::parametric) {
                     sum_gradient(map, p.output_size, begin, count, grad, partial);
                   }
                 });
}

// Tasks: (warp, group of consecutive tiles).
inline void warp_grid_backward(const GridParams& p, const Plan& plan, int64_t begin, int64_t end) {
  const int64_t total = points(p.output_size, p.dims);
  const int64_t groups = (plan.tiles + plan.tiles_per_task - 1) / plan.tiles_per_task;
  const bool wide = p.warp.type == ElementType::f64;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t n = task / groups, first = task % groups * plan.tiles_per_task;
    const int64_t last = std::min(plan.tiles, first + plan.tiles_per_task);
    double* partial = plan.partial + task * parameter_count(p.map, p.dims);
    for (int64_t tile = first; tile < last; ++tile) {
      const int64_t at = tile * kTile;
      const int count = tile_count(total, at);
      if (p.dims == 2) {
        wide ? sum_grid<double, 2>(p, n, at, count, partial)
             : sum_grid<float, 2>(p, n, at, count, partial);
      } else {
        wide ? sum_grid<double, 3>(p, n, at, count, partial)
             : sum_grid<float, 3>(p, n, at, count, partial);
      }
    }
  }
}

template <int D>
void finish_warp_grid_backward_as(const GridParams& p, const Plan& plan) {
  finish(p.map, p.warp, p.grad_warp, normalised_frame<double, D>(), p.output_size, p.align_corners,
         plan);
}

inline void finish_warp_grid_backward(const GridParams& p, const Plan& plan) {
  p.dims == 2 ? finish_warp_grid_backward_as<2>(p, plan) : finish_warp_grid_backward_as<3>(p, plan);
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
