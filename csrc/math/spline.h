// The thin-plate spline (Bookstein 1989; Jaderberg et al. 2015, section 3.2).
#pragma once

#include "math/logarithm.h"
#include "math/warp.h"

namespace stn_cuda {
inline namespace STN_ISA {

// What a control point adds at the squared distance r2: U(r2) = r2 log(r2), and its derivatives by
// r2. (The textbooks' r^2 log r is half of it; so are the weights.) At the control point itself the
// slope is a number, and the distance by which it is multiplied is 0.
template <class V>
struct Radial {
  V r2, log;

  STN_HD explicit Radial(V squared) : r2(squared), log(logarithm(squared)) {}

  STN_HD V value() const { return r2 * log; }
  STN_HD V slope() const { return log + 1; }
  STN_HD V curve() const { return unless_there(V(1 / r2)); }

  // What second derivatives have of x; at the control point, where there are none, 0.
  STN_HD V unless_there(V x) const { return r2 < LogarithmOf<Scalar<V>>::smallest ? V{} : x; }
};

// normalised input = theta * (normalised output q, 1) + sum over k of weight_k U(|q - control_k|^2)
// Parameters, in float32 or float64 as the coordinates: the weights of K control points, D numbers
// each; theta, as the affine map's; the control points, normalised positions in the output. If
// these are fixed, D numbers more, which say that and nothing else: neither has a gradient.
template <class T, int D>
struct ThinPlateSplineMap {
  static constexpr bool parametric = true;
  static constexpr bool monotonic = false;
  static constexpr bool linear = false;
  static constexpr bool grouped = true;
  static constexpr int most_dims = 2;
  static constexpr int rows = D + 1, columns = D;  // of theta, as numbers of D each
  static constexpr int rows_per_point = 2, least_points = 3, most_points = 256;
  static constexpr int sums = 2 * D;
  using coordinate_type = T;

  AffineMap<T, D> affine;
  T unit[D];  // d normalised output / d output pixel
  const T *weights, *controls;
  int points;
  bool fixed;

  STN_HD ThinPlateSplineMap(const Warp& warp, int64_t n, const Frame<T, D>& frame,
                            const int64_t (&output_size)[3], bool align_corners)
      : affine(warp, n, frame, output_size, align_corners, points_in(warp) * D),
        weights(nullptr),
        controls(nullptr),
        points(points_in(warp)),
        fixed(warp.count / D > rows + rows_per_point * points) {
    for (int d = 0; d < D; ++d) {
      const int64_t extent = align_corners ? output_size[d] - 1 : output_size[d];
      unit[d] = extent > 0 ? T(2) / static_cast<T>(extent) : T(0);
    }
    // For finish() alone, float32 parameters have a map in float64, too.
    if ((warp.type == ElementType::f64) != (sizeof(T) == sizeof(double))) return;
    weights = static_cast<const T*>(warp.data) + n * warp.stride_n;
    controls = weights + (points + D + 1) * D;
  }

  template <class V>
  STN_HD void coordinate(const V (&p)[D], V (&x)[D]) const {
    V moved[D] = {};
    for (int k = 0; k < points; ++k) add_move(k, basis(&controls[k * D], p).value(), moved);
    arrive(p, moved, x);
  }

  // What splines with the same control points have in common: U of the one at `place`.
  template <class V>
  STN_HD Radial<V> basis(const T* place, const V (&p)[D]) const {
    V apart[D];
    return radial(place, p, apart);
  }

  // What control point k moves by that, and where all of them together take p.
  template <class V>
  STN_HD void add_move(int k, V value, V (&moved)[D]) const {
    for (int r = 0; r < D; ++r) moved[r] = multiply_add(weights[k * D + r], value, moved[r]);
  }
  template <class V>
  STN_HD void arrive(const V (&p)[D], const V (&moved)[D], V (&x)[D]) const {
    affine.coordinate(p, x);
    for (int r = 0; r < D; ++r) x[r] = multiply_add(affine.half[r], moved[r], x[r]);
  }

  // A group for each control point: its weights, and its position; then one for each row of theta.
  STN_HD int groups() const { return points + D; }

  // The parameter of a group's sum j; -1: none.
  STN_HD int place(int group, int j) const {
    if (group < points && j < D) return group * D + j;
    if (group < points) return fixed ? -1 : (points + D + 1 + group) * D + j - D;
    return j <= D ? points * D + (group - points) * (D + 1) + j : -1;
  }

  template <class V>
  STN_HD void accumulate(const V (&p)[D], const V (&g)[D], V (&s)[sums], int group) const {
    if (group >= points) return affine.accumulate_row(p, g[group - points], s);
    const ControlPoint point = control_point(group);
    const Radial<V> u = basis(point.place, p);
    if (fixed) return accumulate(u.value(), g, s);
    accumulate(point, u.value(), u.slope(), p, g, s);
  }

  // A control point of numbers, and what of a coordinate's gradient is its U's, times the -2 of how
  // the squared distance changes with the point.
  struct ControlPoint {
    T place[D], pull[D];
  };
  STN_HD ControlPoint control_point(int k) const {
    ControlPoint point;
    for (int d = 0; d < D; ++d) {
      point.place[d] = numbers_of(controls[k * D + d]);
      point.pull[d] = -2 * affine.half[d] * numbers_of(weights[k * D + d]);
    }
    return point;
  }

  // What accumulate does for a control point, from its U and the slope of that.
  template <class V>
  STN_HD void accumulate(const ControlPoint& point, V value, V slope, const V (&p)[D],
                         const V (&g)[D], V (&s)[sums]) const {
    const V pull = pulled(point, g) * slope;
    accumulate(value, g, s);
    for (int d = 0; d < D; ++d) s[D + d] += pull * distance(d, point.place[d], p);
  }

  // The same for one that is fixed.
  template <class V>
  STN_HD void accumulate(V value, const V (&g)[D], V (&s)[sums]) const {
    for (int d = 0; d < D; ++d) s[d] += g[d] * value;
  }

  // Whether a group is of a control point whose position is no NaN.
  STN_HD bool has_place(int group) const {
    bool has = group < points;
    for (int d = 0; has && d < D; ++d) has = controls[group * D + d] == controls[group * D + d];
    return has;
  }

  template <class V>
  STN_HD void move(const V (&p)[D], const ThinPlateSplineMap& tangent, V (&x)[D]) const {
    V moved[D] = {};
    for (int k = 0; k < points; ++k) {
      V apart[D];
      const Radial<V> u = radial(&controls[k * D], p, apart);
      tangent.add_move(k, u.value(), moved);
      add_move(k, V(u.slope() * approach(apart, tangent, k)), moved);
    }
    tangent.affine.coordinate(p, x);
    for (int r = 0; r < D; ++r) x[r] = multiply_add(affine.half[r], moved[r], x[r]);
  }

  template <class V>
  STN_HD void bend(const V (&p)[D], const ThinPlateSplineMap& tangent, const V (&g)[D],
                   V (&s)[sums], int group) const {
    if (group >= points) return;
    V apart[D];
    const Radial<V> u = radial(&controls[group * D], p, apart);
    const V slope = u.unless_there(u.slope()), nearer = approach(apart, tangent, group);
    const V pull = pulled(control_point(group), g);
    const V change = pulled(tangent.control_point(group), g) * slope + pull * u.curve() * nearer;
    for (int d = 0; d < D; ++d) {
      s[d] += g[d] * slope * nearer;
      s[D + d] += change * apart[d] - pull * slope * tangent.controls[group * D + d];
    }
  }

  // The gradient of parameter k from its sum.
  template <class S>
  STN_HD S finish(int k, S sum) const {
    const int of_theta = k - points * D;
    if (of_theta < 0) return sum * static_cast<S>(affine.half[k % D]);
    if (of_theta < AffineMap<T, D>::sums) return affine.finish(of_theta, sum);
    return fixed ? S(0) : sum;
  }

 private:
  STN_HD static int points_in(const Warp& warp) { return (warp.count / D - rows) / rows_per_point; }

  // Of the distance from a control point to p, which is `apart`.
  template <class V>
  STN_HD Radial<V> radial(const T* place, const V (&p)[D], V (&apart)[D]) const {
    V squared{};
    for (int d = 0; d < D; ++d) {
      apart[d] = distance(d, place[d], p);
      squared += apart[d] * apart[d];
    }
    return Radial<V>(squared);
  }

  template <class V>
  STN_HD V distance(int d, T place, const V (&p)[D]) const {
    return multiply_add(unit[d], V(p[d] - affine.centre[d]), all<V>(-place));
  }

  template <class V>
  STN_HD static V pulled(const ControlPoint& point, const V (&g)[D]) {
    V sum{};
    for (int r = 0; r < D; ++r) sum = multiply_add(point.pull[r], g[r], sum);
    return sum;
  }

  // How the squared distance changes while control point k moves.
  template <class V>
  STN_HD static V approach(const V (&apart)[D], const ThinPlateSplineMap& tangent, int k) {
    V sum{};
    for (int d = 0; d < D; ++d) sum = multiply_add(tangent.controls[k * D + d], apart[d], sum);
    return sum * -2;
  }

  // 0 for NaN, the look of parameters that are, whose gradient is 0.
  STN_HD static T numbers_of(T x) { return x == x ? x : T(0); }
};

}  // namespace STN_ISA
}  // namespace stn_cuda
