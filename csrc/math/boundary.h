// Where a coordinate lands: normalised -> pixel, and the boundary rules, each with its derivative.
#pragma once

#include "math/lanes.h"
#include "params.h"

namespace stn_cuda {
inline namespace STN_ISA {

// One axis of the image, in the form that coordinate arithmetic needs.
template <class T>
struct Axis {
  int32_t size;
  Padding padding;
  T last;   // the last pixel's coordinate, size - 1
  T half;   // d pixel / d normalised
  T shift;  // pixel = (normalised + shift) * half - offset; shift is 1
  T offset;
  T mirror;  // reflection: the lower mirror, -0.5 or 0
  T span;    // reflection: the distance between the mirrors
};

// The same where the boundary rule is a compile-time constant: what follows takes either.
template <Padding P, class T>
struct AxisUnder : Axis<T> {
  static constexpr Padding padding = P;
};

template <class T>
STN_HD Axis<T> make_axis(int64_t size, bool align_corners, Padding padding) {
  Axis<T> axis;
  axis.padding = padding;
  axis.size = static_cast<int32_t>(size);
  axis.last = static_cast<T>(size - 1);
  axis.half = static_cast<T>(align_corners ? size - 1 : size) / 2;
  axis.shift = T(1);
  axis.offset = align_corners ? T(0) : T(0.5);
  axis.mirror = -axis.offset;
  axis.span = static_cast<T>(align_corners ? size - 1 : size);
  return axis;
}

// Normalised [-1, 1] -> pixel: the corner pixels' centres with align_corners, else their edges.
template <class V>
STN_HD V to_pixel(const Axis<Scalar<V>>& axis, V normalised) {
  return (normalised + axis.shift) * axis.half - axis.offset;
}

// Largest magnitude a pixel coordinate is allowed to keep: beyond any image (arguments.cpp refuses
// larger ones), and such that floor, +1 and +2 stay inside int32.
template <class T>
STN_HD T coordinate_limit() {
  return T(1 << 30);
}

// NaN is read as the normalised coordinate -1; infinities and huge values are brought to where the
// conversion to int is defined.
template <class V>
STN_HD V make_finite(const Axis<Scalar<V>>& axis, V x) {
  const V limit = all<V>(coordinate_limit<Scalar<V>>());
  x = x == x ? x : all<V>(-axis.offset);
  return larger(smaller(x, limit), V(-limit));
}

// Floor of a coordinate that make_finite has passed.
template <class V>
STN_HD V floor_of(V x) {
  const V truncated = to_real<V>(truncate(x));
  return truncated > x ? truncated - 1 : truncated;
}

// Into the image; NaN (0 / 0 on an axis of one pixel) becomes 0.
template <class V>
STN_HD V clip(const Axis<Scalar<V>>& axis, V x) {
  return smaller(larger(x, V{}), all<V>(axis.last));
}

// How often x is folded at the mirrors on its way into the image.
template <class V>
STN_HD V reflections(const Axis<Scalar<V>>& axis, V x) {
  if (!(axis.span > 0)) return V{};
  return floor_of(absolute(x - axis.mirror) / axis.span);
}

template <class V>
STN_HD V remainder_by_two(V whole) {
  return whole - 2 * floor_of(whole / 2);
}

// Reflected about the mirrors, as often as needed: the distance from the lower mirror, folded.
template <class V>
STN_HD V reflect(const Axis<Scalar<V>>& axis, V x) {
  const V flips = reflections(axis, x);
  const V extra = absolute(x - axis.mirror) - flips * axis.span;
  return (remainder_by_two(flips) > 0 ? axis.span - extra : extra) + axis.mirror;
}

// d reflect / dx: the sign of the folds.
template <class V>
STN_HD V reflect_slope(const Axis<Scalar<V>>& axis, V x) {
  const V sign = x < axis.mirror ? all<V>(-1) : all<V>(1);
  return remainder_by_two(reflections(axis, x)) > 0 ? -sign : sign;
}

// Into [0, size), in the image that is repeated with that period.
template <class V>
STN_HD V wrap(const Axis<Scalar<V>>& axis, V x) {
  const Scalar<V> period = static_cast<Scalar<V>>(axis.size);
  V inner = multiply_add(-period, floor_of(V(x / period)), x);
  inner = inner < 0 ? inner + period : inner;  // the quotient was rounded up
  // What is just below 0, too, is rounded to the period; and float32 coordinates beyond 2^24, which
  // do not tell neighbours apart, to anything.
  return (inner >= 0) & (inner < period) ? inner : V{};
}

// A coordinate after the boundary rule.
template <class AnyAxis, class V>
STN_HD V bound(const AnyAxis& axis, V x) {
  if (axis.padding == Padding::zeros) return x;
  if (axis.padding == Padding::wrap) return wrap(axis, x);
  return clip(axis, axis.padding == Padding::reflection ? reflect(axis, x) : x);
}

// The same of any x but NaN, infinities included: the zeros of an image go on for ever, and a
// border is as near.
template <class AnyAxis, class V>
STN_HD V bound_number(const AnyAxis& axis, V x) {
  const bool folds = axis.padding == Padding::reflection || axis.padding == Padding::wrap;
  return bound(axis, folds ? make_finite(axis, x) : x);
}

// d bound / dx. As torch: 0 on the clip limits themselves.
template <class AnyAxis, class V>
STN_HD V bound_slope(const AnyAxis& axis, V x) {
  if (axis.padding == Padding::zeros || axis.padding == Padding::wrap) return all<V>(1);
  const bool reflected = axis.padding == Padding::reflection;
  const V inner = reflected ? reflect(axis, x) : x;
  const V slope = reflected ? reflect_slope(axis, x) : all<V>(1);
  const V inside = inner > 0 ? slope : V{};
  return inner < axis.last ? inside : V{};
}

}  // namespace STN_ISA
}  // namespace stn_cuda
