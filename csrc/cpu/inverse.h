// Affine maps the other way: from pixels to the points that see them (cpu/turned.h,
// cpu/turned_channels.h).
#pragma once

#include <cmath>
#include <limits>

#include "cpu/looks.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Rounded up to a whole number, unless rounding made more of one. (Points that are hidden thereby
// weigh no more than where they look is rounded by.)
template <class A>
double whole_above(double x) {
  return std::ceil(x * (1 - 4 * static_cast<double>(std::numeric_limits<A>::epsilon())));
}

// d point / d pixel.
struct Inverse {
  double determinant, matrix[2][2];

  template <class A>
  explicit Inverse(const A (&m)[2][2]) {
    const double a = m[0][0], b = m[0][1], c = m[1][0], d = m[1][1];
    determinant = a * d - b * c;
    const double by[2][2] = {{d, -b}, {-c, a}};
    for (int r = 0; r < 2; ++r) {
      for (int k = 0; k < 2; ++k) matrix[r][k] = by[r][k] / determinant;
    }
  }

  // How far from the inverse map of a pixel the points are that see it, along axis d.
  double reach(int d) const { return std::abs(matrix[d][0]) + std::abs(matrix[d][1]); }

  // Whether the map is one that can be turned round: no pixel is seen by too many points, or from
  // too far to be told. Not for NaN.
  template <class A>
  bool suits(const AffineMap<A, 2>& map, const int64_t (&input_size)[3],
             const int64_t (&output_size)[3]) const {
    // Pixels per point that sees one, at least.
    const double seen = std::max(
        std::abs(determinant), static_cast<double>(points(input_size, 2)) / points(output_size, 2));
    const double far = std::abs(map.offset[0]) + std::abs(map.offset[1]);
    return seen <= 2 && far < 1e6 && std::abs(determinant) > 1e-3;
  }
};

// Whether the types and the map allow it.
template <class Element>
STN_HD bool can_turn(const SampleParams& p) {
  using A = Accumulate<Element>;
  constexpr bool direct = std::is_same<A, Element>::value;
  const bool wide = p.warp.type == ElementType::f64;
  if (p.map != MapKind::affine || wide != std::is_same<A, double>::value) return false;
  return direct || p.input.batch > 1 || p.batch == 1;
}

// The maps through which image `image` is seen, turned round: as Turned<A>, or the like.
template <class A, class Round>
class TurnedMaps {
 public:
  TurnedMaps(const SampleParams& p, int64_t image, int64_t images)
      : p_(p), frame_(pixel_frame<A, 2>(p)), first_(of(image)), usable_(first_.usable) {
    for (int64_t n = image + 1; n < image + images && p.warp.batch > 1; ++n) {
      usable_ = usable_ && of(n).usable;
    }
  }

  bool usable() const { return usable_; }

  const Round& first() const { return first_; }

  Round of(int64_t n) const {
    const int64_t warp = p_.warp.batch == 1 ? 0 : n;
    return Round(AffineMap<A, 2>(p_.warp, warp, frame_, p_.output_size, p_.align_corners),
                 p_.channels, p_.input_size, p_.output_size);
  }

 private:
  const SampleParams& p_;
  Frame<A, 2> frame_;
  Round first_;
  bool usable_;
};

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
