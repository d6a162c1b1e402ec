// Where a coordinate lands: normalised -> pixel, and the boundary rules, each with its derivative.
#pragma once

#include "math/qualifiers.h"
#include "params.h"

namespace stn_cuda {
inline namespace STN_ISA {

// One axis of the image, in the form that coordinate arithmetic needs.
template <class T>
struct Axis {
  int32_t size;
  T last;    // the last pixel's coordinate, size - 1
  T half;    // d pixel / d normalised
  T offset;  // pixel = (normalised + 1) * half - offset
  T mirror;  // reflection: the lower mirror, -0.5 or 0
  T span;    // reflection: the distance between the mirrors
};

template <class T>
STN_HD Axis<T> make_axis(int64_t size, bool align_corners) {
  Axis<T> axis;
  axis.size = static_cast<int32_t>(size);
  axis.last = static_cast<T>(size - 1);
  axis.half = static_cast<T>(align_corners ? size - 1 : size) / 2;
  axis.offset = align_corners ? T(0) : T(0.5);
  axis.mirror = -axis.offset;
  axis.span = static_cast<T>(align_corners ? size - 1 : size);
  return axis;
}

// Normalised [-1, 1] -> pixel: the corner pixels' centres with align_corners, else their edges.
template <class T>
STN_HD T to_pixel(const Axis<T>& axis, T normalised) {
  return (normalised + 1) * axis.half - axis.offset;
}

// Largest magnitude a pixel coordinate is allowed to keep: beyond any image (ops.cpp refuses larger
// ones), and such that floor, +1 and +2 stay inside int32.
template <class T>
STN_HD T coordinate_limit() {
  return T(1 << 30);
}

// NaN is read as the normalised coordinate -1; infinities and huge values are brought to where the
// conversion to int is defined.
template <class T>
STN_HD T make_finite(const Axis<T>& axis, T x) {
  x = x == x ? x : -axis.offset;
  x = x < coordinate_limit<T>() ? x : coordinate_limit<T>();
  return x > -coordinate_limit<T>() ? x : -coordinate_limit<T>();
}

// Floor of a coordinate that make_finite has passed; unlike std::floor it vectorises everywhere.
template <class T>
STN_HD int32_t floor_to_int(T x) {
  const int32_t truncated = static_cast<int32_t>(x);
  return truncated - (static_cast<T>(truncated) > x ? 1 : 0);
}

template <class T>
STN_HD T floor_of(T x) {
  return static_cast<T>(floor_to_int(x));
}

// Into the image; NaN (0 / 0 on an axis of one pixel) becomes 0.
template <class T>
STN_HD T clip(const Axis<T>& axis, T x) {
  x = x > 0 ? x : T(0);
  return x < axis.last ? x : axis.last;
}

// Reflected about the mirrors, as often as needed: x = mirror + |distance|, folded.
template <class T>
STN_HD T reflect(const Axis<T>& axis, T x) {
  const T distance = std::fabs(x - axis.mirror);
  const T flips = axis.span > 0 ? floor_of(distance / axis.span) : T(0);
  const T extra = distance - flips * axis.span;
  const T odd = flips - 2 * floor_of(flips / 2);
  return (odd > 0 ? axis.span - extra : extra) + axis.mirror;
}

// d reflect / dx: the sign of the fold.
template <class T>
STN_HD T reflect_slope(const Axis<T>& axis, T x) {
  const T flips = axis.span > 0 ? floor_of(std::fabs(x - axis.mirror) / axis.span) : T(0);
  const T odd = flips - 2 * floor_of(flips / 2);
  const T sign = x < axis.mirror ? T(-1) : T(1);
  return odd > 0 ? -sign : sign;
}

// A coordinate after the boundary rule.
template <class T>
STN_HD T bound(const Axis<T>& axis, Padding padding, T x) {
  if (padding == Padding::zeros) return x;
  return clip(axis, padding == Padding::reflection ? reflect(axis, x) : x);
}

// d bound / dx. As torch: 0 on the clip limits themselves.
template <class T>
STN_HD T bound_slope(const Axis<T>& axis, Padding padding, T x) {
  if (padding == Padding::zeros) return T(1);
  const bool reflected = padding == Padding::reflection;
  const T inner = reflected ? reflect(axis, x) : x;
  const T slope = reflected ? reflect_slope(axis, x) : T(1);
  return (inner > 0) & (inner < axis.last) ? slope : T(0);
}

}  // namespace STN_ISA
}  // namespace stn_cuda
