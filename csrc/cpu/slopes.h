// The warp's gradient out of slopes that were kept: no look at the image any more.
#pragma once

#include "cpu/grad_warp.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// The gradient of where a tile's points look. (A row's last vector may write past it, onto what the
// next row writes again.)
template <class T, int D>
STN_HD void multiply_slopes(const SampleParams& p, int64_t n, const Tile<D>& tile,
                            T (&grad)[D][kRoom]) {
  using V = Native<T>;
  constexpr int L = kLanes<T>;
  const T* slopes = static_cast<const T*>(p.slopes.data) + n * p.slopes.stride_n;
  const T* output = plane_of<const T>(p.output, n, 0);
  tile.for_each_row([&](int slot, const int32_t (&at)[D]) {
    const T* slope = slopes + offset_of<D>(at, p.slopes.stride);
    const T* values = output + offset_of<D>(at, p.output.stride);
    for (int j = 0; j < tile.width; j += L) {
      const int count = std::min(L, tile.width - j);
      const V value = load_some<V>(values + j, count);
      for (int d = 0; d < D; ++d) {
        const V one = load_some<V>(slope + d * p.slopes.stride_k + j, count);
        store<L>(&grad[d][slot + j], V(value * one));
      }
    }
  });
}

template <class T, int D>
void sum_slopes_as(const SampleParams& p, const Plan& plan, int64_t begin, int64_t end) {
  const auto frame = pixel_frame<T, D>(p);
  const int64_t groups = (plan.tiles + plan.tiles_per_task - 1) / plan.tiles_per_task;
  Basis basis(plan, true);
  const auto work = [&](int64_t n, int64_t first, int64_t last) {
    const int64_t sums = n * groups + first / plan.tiles_per_task;
    const AnyMap<T, D> map(p.map, p.warp, n, frame, p.output_size, p.align_corners);
    LaneSums total{plan.partial + sums * p.warp.count};
    for (int64_t t = first; t < last; ++t) {
      const Tile<D> tile(plan, t);
      alignas(64) T grad[D][kRoom];
      multiply_slopes(p, n, tile, grad);
      hand_to_map(map, p, false, n, tile, basis, grad, total);
    }
    add_lanes(total, p.warp.count);
  };
  if (plan.basis_shared) return for_each_stretch(plan, p.warp.batch, begin, end, work);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task % groups * plan.tiles_per_task;
    work(task / groups, first, std::min(plan.tiles, first + plan.tiles_per_task));
  }
}

// Tasks: as grad_warp's.
inline void sum_slopes(const SampleParams& p, const Plan& plan, int64_t begin, int64_t end) {
  const bool wide = p.slopes.type == ElementType::f64;
  if (p.dims == 2) {
    wide ? sum_slopes_as<double, 2>(p, plan, begin, end)
         : sum_slopes_as<float, 2>(p, plan, begin, end);
  } else {
    wide ? sum_slopes_as<double, 3>(p, plan, begin, end)
         : sum_slopes_as<float, 3>(p, plan, begin, end);
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
