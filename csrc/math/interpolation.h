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

// The taps of one axis. slope = d weight / d x, of the coordinate before the boundary rule; curve:
// the derivative of that (a linear weight has none).
template <class V, int K>
struct Taps {
  Integer<V> index[K];
  V weight[K];
  V slope[K];
  V curve[K];
};

template <class I>
STN_HD I clamp_index(I i, I low, I high) {
  i = i > low ? i : low;
  return i < high ? i : high;
}

// Linear interpolation's weights of the pixels p and p + 1 for x = p + d, wherever x is: 1 - |d|
// and 1 - |d - 1|, but not below 0. Between the two pixels these are 1 - d and d itself.
template <class V>
STN_HD V tent_here(V d) {
  return larger(smaller(V(1 - d), V(1 + d)), V{});
}
template <class V>
STN_HD V tent_next(V d) {
  return larger(smaller(d, V(2 - d)), V{});
}

// d tent / d x; at the kinks the side that floor(x) takes, as torch.
template <class V>
STN_HD V tent_slope(V d) {
  const V right = d < 1 ? all<V>(-1) : V{};
  const V left = d >= -1 ? all<V>(1) : V{};
  return d >= 0 ? right : left;
}

// Cubic convolution (Keys 1981) with a = -0.75, as torch and OpenCV: the weights of the pixels at
// distance d, near (d <= 1) and far (1 <= d <= 2).
template <class V>
STN_HD V cubic_near(V d) {
  const Scalar<V> a = Scalar<V>(-0.75);
  return ((a + 2) * d - (a + 3)) * d * d + 1;
}

template <class V>
STN_HD V cubic_far(V d) {
  const Scalar<V> a = Scalar<V>(-0.75);
  return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
}

template <class V>
STN_HD V cubic_near_slope(V d) {
  const Scalar<V> a = Scalar<V>(-0.75);
  return (3 * (a + 2) * d - 2 * (a + 3)) * d;
}

template <class V>
STN_HD V cubic_far_slope(V d) {
  const Scalar<V> a = Scalar<V>(-0.75);
  return (3 * a * d - 10 * a) * d + 8 * a;
}

template <class V>
STN_HD V cubic_near_curve(V d) {
  const Scalar<V> a = Scalar<V>(-0.75);
  return 6 * (a + 2) * d - 2 * (a + 3);
}

template <class V>
STN_HD V cubic_far_curve(V d) {
  const Scalar<V> a = Scalar<V>(-0.75);
  return 6 * a * d - 10 * a;
}

// The weight of a pixel at distance d = look - pixel, whatever d is, in an interpolation of K taps
// (nearest: of a look that is rounded), and its first two derivatives. Of a d that is NaN: 0.
template <int K, class V>
STN_HD V kernel(V d) {
  if constexpr (K == 1) {
    return d == 0 ? all<V>(1) : V{};
  } else if constexpr (K == 2) {
    return 1 - smaller_magnitude(d, all<V>(1));
  } else {
    const V distance = smaller_magnitude(d, all<V>(2));
    return distance < 1 ? cubic_near(distance) : cubic_far(distance);
  }
}

template <int K, class V>
STN_HD V kernel_slope(V d) {
  if constexpr (K == 1) {
    return V{};
  } else if constexpr (K == 2) {
    return tent_slope(d);
  } else {
    const V distance = smaller_magnitude(d, all<V>(2));
    const V slope = distance < 1 ? cubic_near_slope(distance) : cubic_far_slope(distance);
    return d < 0 ? -slope : slope;
  }
}

// The slope times x, of a d that is no -0; 0 where there is no slope, whatever x.
template <int K, class V>
STN_HD V kernel_slope_times(V d, V x) {
  if constexpr (K == 2) {
    return (d >= -1) & (d < 1) ? turned_unless_negative(d, x) : V{};
  } else {
    return kernel_slope<K>(d) * x;
  }
}

// Not continuous at the ends: there, too, the side that floor(x) takes.
template <int K, class V>
STN_HD V kernel_curve(V d) {
  if constexpr (K < 4) {
    return V{};
  } else {
    const V distance = smaller_magnitude(d, all<V>(2));
    const V curve = distance < 1 ? cubic_near_curve(distance) : cubic_far_curve(distance);
    const V left = d >= -2 ? curve : V{};
    return d < 2 ? left : V{};
  }
}

// Round half to even, as torch (nearbyint).
template <class V>
STN_HD V round_half_even(V x) {
  const Scalar<V> half = Scalar<V>(0.5);
  const V below = floor_of(x);
  const V fraction = x - below;
  const V up = fraction > half ? all<V>(1) : V{};
  return below + (fraction == half ? remainder_by_two(below) : up);
}

// The pixel that a look is nearest to, if that is inside the image.
template <class AnyAxis, class V>
STN_HD V nearest_pixel(const AnyAxis& axis, V x) {
  const V finite = make_finite(axis, x);
  if (axis.padding == Padding::wrap) return bound(axis, round_half_even(finite));
  return round_half_even(bound(axis, finite));
}

template <class AnyAxis, class V>
STN_HD void axis_taps(const AnyAxis& axis, V x, Taps<V, 1>& taps) {
  const V rounded = nearest_pixel(axis, x);
  const V inside = clip(axis, rounded);
  taps.index[0] = truncate(inside);
  taps.weight[0] = inside == rounded ? all<V>(1) : V{};
  taps.slope[0] = taps.curve[0] = V{};
}

// Two neighbouring pixels base, base + 1, both inside: a look half outside shifts the pair inwards
// and the tent gives the outside part weight 0. Where the image wraps, the first pixel comes after
// the last.
template <class AnyAxis, class V>
STN_HD void axis_taps(const AnyAxis& axis, V x, Taps<V, 2>& taps) {
  const V finite = make_finite(axis, x);
  const V bounded = bound(axis, finite);
  const bool wraps = axis.padding == Padding::wrap;
  const bool single = axis.size == 1 && !wraps;
  V base = floor_of(bounded);
  const V highest = all<V>(single ? Scalar<V>(0) : axis.last - 1);
  if (!wraps) base = smaller(larger(base, V{}), highest);
  const V d = bounded - base;
  taps.index[0] = truncate(base);
  taps.index[1] = single ? taps.index[0] : taps.index[0] + 1;
  if (wraps) taps.index[1] = truncate(V(base < axis.last ? base + 1 : V{}));
  taps.weight[0] = tent_here(d);
  taps.weight[1] = single ? V{} : tent_next(d);
  const V slope = x == x ? bound_slope(axis, finite) : V{};
  taps.slope[0] = slope * tent_slope(d);
  taps.slope[1] = single ? V{} : slope * tent_slope(d - 1);
  taps.curve[0] = taps.curve[1] = V{};
}

// The sum of the weights of a look's taps that are inside the image, where zeros are around it; 1
// up to the last bit where all are.
template <int K, class V>
STN_HD V inside_part(const Axis<Scalar<V>>& axis, V x) {
  const V finite = make_finite(axis, x);
  if constexpr (K == 1) {
    const V rounded = round_half_even(finite);
    return clip(axis, rounded) == rounded ? all<V>(1) : V{};
  } else if constexpr (K == 2) {
    const V nearer = smaller(V(finite + 1), V(static_cast<Scalar<V>>(axis.size) - finite));
    return larger(smaller(nearer, all<V>(1)), V{});
  } else {
    const V below = floor_of(finite);
    const V t = finite - below;
    const V weight[4] = {cubic_far(V(t + 1)), cubic_near(t), cubic_near(V(1 - t)),
                         cubic_far(V(2 - t))};
    V sum{}, missing{};
    for (int k = 0; k < 4; ++k) {
      const V pixel = below + Scalar<V>(k - 1);
      const auto inside = clip(axis, pixel) == pixel;
      sum += inside ? weight[k] : V{};
      missing = inside ? missing : all<V>(1);
    }
    return missing == 0 ? all<V>(1) : sum;
  }
}

// Whether x is so far inside that no boundary rule changes what a linear look makes of it. Not so
// for NaN.
template <class V>
STN_HD auto is_inside(const Axis<Scalar<V>>& axis, V x) -> decltype(x >= 0) {
  return (x >= 0) & (x < axis.last);
}

// The same for such x, in a few operations.
template <class V>
STN_HD void axis_taps_inside(V x, Taps<V, 2>& taps) {
  taps.index[0] = truncate(x);
  taps.index[1] = taps.index[0] + 1;
  taps.weight[1] = x - to_real<V>(taps.index[0]);
  taps.weight[0] = 1 - taps.weight[1];
  taps.slope[0] = all<V>(-1);
  taps.slope[1] = all<V>(1);
  taps.curve[0] = taps.curve[1] = V{};
}

// The boundary rule holds for each of the four pixels, not for x.
template <class AnyAxis, class V>
STN_HD void axis_taps(const AnyAxis& axis, V x, Taps<V, 4>& taps) {
  const V finite = make_finite(axis, x);
  const V below = floor_of(finite);
  const V t = finite - below;
  const V moves = x == x ? all<V>(1) : V{};
  const V weight[4] = {cubic_far(t + 1), cubic_near(t), cubic_near(1 - t), cubic_far(2 - t)};
  const V slope[4] = {cubic_far_slope(t + 1), cubic_near_slope(t), -cubic_near_slope(1 - t),
                      -cubic_far_slope(2 - t)};
  const V curve[4] = {cubic_far_curve(t + 1), cubic_near_curve(t), cubic_near_curve(1 - t),
                      cubic_far_curve(2 - t)};
  for (int k = 0; k < 4; ++k) {
    const V bounded = bound(axis, V(below + Scalar<V>(k - 1)));
    const V inside = clip(axis, bounded);
    taps.index[k] = truncate(inside);
    taps.weight[k] = inside == bounded ? weight[k] : V{};
    taps.slope[k] = inside == bounded ? moves * slope[k] : V{};
    taps.curve[k] = inside == bounded ? moves * curve[k] : V{};
  }
}

// How often a derivative along `axis` differentiates along each axis; -1: not at all.
template <int D>
STN_HD void order_along(int axis, int (&order)[D]) {
  STN_UNROLL
  for (int d = 0; d < D; ++d) order[d] = d == axis;
}

// The weight of tap k of a point's K^D, differentiated order[d] times along axis d. factor(d, tap,
// order): that of axis d alone.
template <int K, int D, class Factor>
STN_HD auto tap_weight(const int (&order)[D], int k, Factor&& factor) {
  const int tap[3] = {k % K, k / K % K, k / (K * K)};
  auto product = factor(0, tap[0], order[0]);
  STN_UNROLL
  for (int d = 1; d < D; ++d) product *= factor(d, tap[d], order[d]);
  return product;
}

// The sum over the axes of direction[d] times the derivative along d of what `order` says. A
// derivative that is 0 does not count, whatever the direction.
template <int K, class V, int D, class Factor>
STN_HD V tap_weight_along(const V (&direction)[D], const int (&order)[D], int k, Factor&& factor) {
  V sum{};
  STN_UNROLL
  for (int d = 0; d < D; ++d) {
    if (K == 2 && order[d] == 1) continue;  // linear along each axis
    int next[D];
    STN_UNROLL
    for (int e = 0; e < D; ++e) next[e] = order[e] + (e == d);
    const V weight = tap_weight<K>(next, k, factor);
    sum += weight != 0 ? V(weight * direction[d]) : V{};
  }
  return sum;
}

}  // namespace STN_ISA
}  // namespace stn_cuda
