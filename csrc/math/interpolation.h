// Interpolation along one axis: which pixels a look at x reads, with what weights, and how those
// weights change with x. The image's weights are products over the axes.
//
// Every index is inside the image. A tap that the boundary rule puts outside has weight 0, and a
// tap of weight 0 is never read: an infinite or NaN pixel only reaches the outputs that see it.
#pragma once

#include "math/boundary.h"

namespace stn_cuda {
inline namespace STN_ISA {

template <Interpolation I>
struct TapCount {
  static constexpr int value =
      I == Interpolation::nearest ? 1 : (I == Interpolation::bilinear ? 2 : 4);
};

// The taps of one axis. slope = d weight / d x, of the coordinate before the boundary rule.
template <class T, int K>
struct Taps {
  int32_t index[K];
  T weight[K];
  T slope[K];
};

STN_HD int32_t clamp_index(int32_t i, int32_t low, int32_t high) {
  i = i > low ? i : low;
  return i < high ? i : high;
}

// Linear interpolation's weight of a pixel at distance d = x - p.
template <class T>
STN_HD T tent(T d) {
  const T weight = 1 - std::fabs(d);
  return weight > 0 ? weight : T(0);
}

// d tent / d x; at the kinks the side that floor(x) takes, as torch.
template <class T>
STN_HD T tent_slope(T d) {
  const T rising = (d >= -1) & (d < 0) ? T(1) : T(0);
  return (d >= 0) & (d < 1) ? T(-1) : rising;
}

// Cubic convolution (Keys 1981) with a = -0.75, as torch and OpenCV: the weights of the pixels at
// floor(x) - 1 ... floor(x) + 2 for the fraction t.
template <class T>
STN_HD T cubic_near(T d) {  // |d| <= 1
  const T a = T(-0.75);
  return ((a + 2) * d - (a + 3)) * d * d + 1;
}

template <class T>
STN_HD T cubic_far(T d) {  // 1 <= |d| <= 2
  const T a = T(-0.75);
  return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
}

template <class T>
STN_HD T cubic_near_slope(T d) {
  const T a = T(-0.75);
  return (3 * (a + 2) * d - 2 * (a + 3)) * d;
}

template <class T>
STN_HD T cubic_far_slope(T d) {
  const T a = T(-0.75);
  return (3 * a * d - 10 * a) * d + 8 * a;
}

// Round half to even, as torch (nearbyint), in a form that vectorises everywhere.
template <class T>
STN_HD int32_t round_to_int(T x) {
  const int32_t below = floor_to_int(x);
  const T fraction = x - static_cast<T>(below);
  const int32_t on_tie = fraction == T(0.5) ? (below & 1) : 0;
  return below + (fraction > T(0.5) ? 1 : on_tie);
}

template <class T>
STN_HD void nearest_taps(const Axis<T>& axis, Padding padding, T x, Taps<T, 1>& taps) {
  const int32_t i = round_to_int(bound(axis, padding, make_finite(axis, x)));
  taps.index[0] = clamp_index(i, 0, axis.size - 1);
  taps.weight[0] = taps.index[0] == i ? T(1) : T(0);
  taps.slope[0] = T(0);
}

// Two neighbouring pixels base, base + 1, both inside: a look half outside shifts the pair inwards
// and the tent gives the outside part weight 0.
template <class T>
STN_HD void linear_taps(const Axis<T>& axis, Padding padding, T x, Taps<T, 2>& taps) {
  const T finite = make_finite(axis, x);
  const T bounded = bound(axis, padding, finite);
  const bool single = axis.size == 1;
  const int32_t base = clamp_index(floor_to_int(bounded), 0, single ? 0 : axis.size - 2);
  const T d = bounded - static_cast<T>(base);
  taps.index[0] = base;
  taps.index[1] = single ? base : base + 1;
  taps.weight[0] = tent(d);
  taps.weight[1] = single ? T(0) : tent(d - 1);
  const T slope = x == x ? bound_slope(axis, padding, finite) : T(0);
  taps.slope[0] = slope * tent_slope(d);
  taps.slope[1] = single ? T(0) : slope * tent_slope(d - 1);
}

// The boundary rule holds for each of the four pixels, not for x.
template <class T>
STN_HD void cubic_taps(const Axis<T>& axis, Padding padding, T x, Taps<T, 4>& taps) {
  const T finite = make_finite(axis, x);
  const int32_t below = floor_to_int(finite);
  const T t = finite - static_cast<T>(below);
  const T moves = x == x ? T(1) : T(0);
  const T weight[4] = {cubic_far(t + 1), cubic_near(t), cubic_near(1 - t), cubic_far(2 - t)};
  const T slope[4] = {cubic_far_slope(t + 1), cubic_near_slope(t), -cubic_near_slope(1 - t),
                      -cubic_far_slope(2 - t)};
  for (int k = 0; k < 4; ++k) {
    const int32_t i = below - 1 + k;
    const int32_t bounded = padding == Padding::zeros
                                ? i
                                : static_cast<int32_t>(bound(axis, padding, static_cast<T>(i)));
    taps.index[k] = clamp_index(bounded, 0, axis.size - 1);
    const bool inside = taps.index[k] == bounded;
    taps.weight[k] = inside ? weight[k] : T(0);
    taps.slope[k] = inside ? moves * slope[k] : T(0);
  }
}

template <class T>
STN_HD void axis_taps(const Axis<T>& axis, Padding padding, T x, Taps<T, 1>& taps) {
  nearest_taps(axis, padding, x, taps);
}
template <class T>
STN_HD void axis_taps(const Axis<T>& axis, Padding padding, T x, Taps<T, 2>& taps) {
  linear_taps(axis, padding, x, taps);
}
template <class T>
STN_HD void axis_taps(const Axis<T>& axis, Padding padding, T x, Taps<T, 4>& taps) {
  cubic_taps(axis, padding, x, taps);
}

}  // namespace STN_ISA
}  // namespace stn_cuda
