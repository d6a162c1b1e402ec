// The adjoint of a bilinear sample through an affine map that keeps the axes apart: a point looks
// where its column says along x, and where its row says along y (boxes of attention, crops, resized
// and mirrored images). So rows of points are summed first, a vector of points at a time, by how
// heavily they weigh in a row of pixels; what the sums add to the pixels of their row is told then
// by the column alone. Of an image that is enlarged, the second part is that of few rows.
#pragma once

#include "cpu/scaled_columns.h"
#include "cpu/scaled_windows.h"
#include "cpu/turned.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Up to how many pixels there may be to a point for that to be quicker than other ways; the same of
// many channels where a map may be turned round, whose weights these share. Measured:
// benchmarks/README.md.
constexpr double kMostScaled = 8, kMostScaledOfMany = 0.5;
constexpr int64_t kManyScaled = 8;

// Whether the map keeps the axes apart, none of its points looks too far away to be counted, and
// that is the quickest way.
template <class Element, class A>
STN_HD bool is_scaled(const AffineMap<A, 2>& map, const SampleParams& p, const Plan& plan) {
  constexpr A kFar = A(1 << 20);
  if (map.matrix[0][1] != 0 || map.matrix[1][0] != 0) return false;
  for (int d = 0; d < 2; ++d) {
    if (!(std::abs(map.offset[d]) < kFar && std::abs(map.matrix[d][d]) < kFar)) return false;
  }
  const Inverse inverse(map.matrix);
  const double seen = std::abs(inverse.determinant);
  const bool shares = kTurned<Element> && plan.turned && p.channels >= kManyScaled;
  const bool turns = shares && inverse.suits(map, p.input_size, p.output_size);
  if (may_have_windows(map, p) && !turns) return true;
  if (points(p.input_size, 2) > 4 * points(p.output_size, 2)) return false;  // seen by few
  return seen <= (shares ? kMostScaledOfMany : kMostScaled);
}

// The rows [low, high) of image `image`, if all of its warps allow it; as if there were zeros
// beyond the image: then(n, c, count) may add what another rule adds to that (cpu/beyond.h), of
// output n to the channels [c, c + count).
template <class Element, class Then>
STN_HD bool splat_scaled(const SampleParams& p, const Plan& plan, int64_t image, int32_t low,
                         int32_t high, Then&& then) {
  using A = Accumulate<Element>;
  const int64_t images = p.input.batch == 1 ? p.batch : 1;
  const bool wide = p.warp.type == ElementType::f64;
  constexpr bool direct = std::is_same<A, Element>::value;
  if (p.output.stride[0] != 1) return false;
  if (wide != std::is_same<A, double>::value || (images > 1 && !direct)) return false;
  if (!only_zeros(p) && !direct) return false;
  const auto frame = pixel_frame<A, 2>(p);
  const auto map_of = [&](int64_t n) {
    return AffineMap<A, 2>(p.warp, p.warp.batch == 1 ? 0 : n, frame, p.output_size,
                           p.align_corners);
  };
  for (int64_t n = image; n < image + images; ++n) {
    if (!is_scaled<Element>(map_of(n), p, plan)) return false;
  }
  for (int64_t n = image; n < image + images; ++n) {
    took(n > image ? Path::scaled_onto : Path::scaled);
    const auto map = map_of(n);
    const ScaledRows<A> rows(map, p, low, high);
    const int32_t pixels = static_cast<int32_t>(p.input_size[0]);
    const auto give = [&](auto&& spread) {
      const int64_t stride_y = p.input.stride[1];
      for (int64_t c = 0; c < p.channels; ++c) {
        const Element* plane = plane_of<const Element>(p.output, n, c);
        Element* to = plane_of<Element>(p.input, image, c);
        for (const auto& row : rows.rows) {
          if (row.count > 0) {
            spread.give(plane, row, to + row.y * stride_y);
          } else if (n == image) {
            std::fill_n(to + row.y * stride_y, p.input_size[0], Element{});
          }
        }
        spread.finish();
      }
    };
    const ScaledAxis<A> axis(map, p, 0);
    const bool windows = may_have_windows(map, p) && fits_windows(axis, kPermuted<A>);
    if constexpr (kPermuted<A> > 0) {
      if (windows) {
        took(Path::scaled_windows);
        give(ScaledWindows<A, Element>(axis, pixels, rows, n > image));
      }
    }
    if (!windows) give(ScaledColumns<A, Element>(axis, pixels, rows, n > image));
    then(n, 0, p.channels);
  }
  return true;
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
