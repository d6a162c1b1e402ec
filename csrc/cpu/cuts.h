// Where an image is cut into slabs such that each sees about as many points: a hint, like those of
// cpu/looks.h.
#pragma once

#include "cpu/looks.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

constexpr int kPlaces = 64;

// Which rows (planes, of a volume) some points see: spread evenly over the output along its
// outermost axis, and along the others by a sequence that keeps them apart (Roberts, 2018). Their
// number: those that see none are left out.
template <int D>
int rows_seen(const SampleParams& p, int64_t n, int places, double* seen) {
  constexpr double kApart[] = {0.7548776662466927, 0.5698402909980532};
  int count = 0;
  const auto look = [&](auto type) {
    using T = decltype(type);
    const Frame<T, D> frame = pixel_frame<T, D>(p);
    const AnyMap<T, D> map(p.map, p.warp, n, frame, p.output_size, p.align_corners);
    for (int k = 0; k < places; ++k) {
      int32_t at[D];
      T x[D];
      for (int d = 0; d < D; ++d) {
        const double far = d < D - 1 ? (k + 1) * kApart[d] : (k + 0.5) / places;
        at[d] = static_cast<int32_t>((far - std::floor(far)) * p.output_size[d]);
      }
      look_of(map, at, x);
      const auto& axis = frame.axis[D - 1];
      const T row = x[D - 1] == x[D - 1] ? bound_number(axis, x[D - 1]) : T(-1);
      if (row > -1 && row < axis.size) seen[count++] = row;
    }
  };
  p.warp.type == ElementType::f64 ? look(double{}) : look(float{});
  return count;
}

// Where the slabs of image n begin: `slabs` + 1 rows, of which the last is the number of all.
template <int D>
void cut_slabs(const SampleParams& p, int64_t n, int64_t slabs, int32_t* first) {
  const int64_t warps = p.warp.batch > 1 && p.input.batch == 1 ? std::min<int64_t>(8, p.batch) : 1;
  double seen[kPlaces];
  int count = 0;
  for (int64_t w = 0; w < warps; ++w) {
    const int64_t warp = p.warp.batch == 1 ? 0 : p.input.batch > 1 ? n : w * p.batch / warps;
    count += rows_seen<D>(p, warp, kPlaces / static_cast<int>(warps), seen + count);
  }
  std::sort(seen, seen + count);
  const int32_t rows = static_cast<int32_t>(p.input_size[D - 1]);
  first[0] = 0;
  for (int64_t s = 1; s < slabs; ++s) {
    // Between the two points, or where equal slabs would begin.
    const int64_t k = s * count / slabs;
    const double row = k > 0 ? (seen[k - 1] + seen[k]) / 2 + 1 : double(rows) * s / slabs;
    first[s] = std::clamp(static_cast<int32_t>(row), first[s - 1], rows);
  }
  first[slabs] = rows;
}

inline void cut_slabs_of(const SampleParams& p, int64_t n, int64_t slabs, int32_t* first) {
  p.dims == 2 ? cut_slabs<2>(p, n, slabs, first) : cut_slabs<3>(p, n, slabs, first);
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
