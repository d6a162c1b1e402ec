// The weights of a tile's taps, and their derivatives, one number for each tap and point.
#pragma once

#include "cpu/directions.h"
#include "cpu/gathers.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

template <int K, int D>
struct TapProduct {
  static constexpr int count = D == 3 ? K * K * K : K * K;
};

// Numbers of the taps of a tile's points.
template <class A, int K, int D>
struct alignas(64) TapNumbers {
  A of[TapProduct<K, D>::count][kRoom];
};

template <class Element, int K, int D>
STN_HD int64_t tap_offset(const int64_t (&stride)[3],
                          const TileTaps<Accumulate<Element>, K, D>& taps, int k, int i) {
  int64_t offset = taps.index[0][k % K][i] * stride[0] + taps.index[1][k / K % K][i] * stride[1];
  if (D == 3) offset += taps.index[D - 1][k / (K * K)][i] * stride[2];
  return offset;
}

// The weight of tap k at the points from i on, differentiated order[d] times along axis d.
template <class A, int K, int D>
STN_HD Native<A> tap_weight(const TileTaps<A, K, D>& taps, const int (&order)[D], int k, int i) {
  using V = Native<A>;
  const int tap[3] = {k % K, k / K % K, k / (K * K)};
  V product = all<V>(1);
  for (int d = 0; d < D; ++d) {
    const auto& of = order[d] == 0 ? taps.weight : (order[d] == 1 ? taps.slope : taps.curve);
    product *= load<V>(&of[d][tap[d]][i]);
  }
  return product;
}

// The sum over the axes k of direction[k] times the derivative along k of what `order` says. A
// derivative that is 0 does not count, whatever the direction.
template <class A, int K, int D>
STN_HD Native<A> tap_weight_along(const TileTaps<A, K, D>& taps, const A (&direction)[D][kRoom],
                                  const int (&order)[D], int k, int i) {
  using V = Native<A>;
  V sum{};
  for (int d = 0; d < D; ++d) {
    int next[D];
    for (int e = 0; e < D; ++e) next[e] = order[e] + (e == d ? 1 : 0);
    if (K == 2 && next[d] == 2) continue;
    const V weight = tap_weight(taps, next, k, i);
    const V term = weight * load<V>(&direction[d][i]);
    sum += weight != 0 ? term : V{};
  }
  return sum;
}

// What a tap's weight does along a direction.
template <class A, int K, int D>
void weigh_along(const TileTaps<A, K, D>& taps, const A (&direction)[D][kRoom], int slots,
                 TapNumbers<A, K, D>& weights) {
  const int none[D] = {};
  for (int k = 0; k < TapProduct<K, D>::count; ++k) {
    for (int i = 0; i < slots; i += kLanes<A>) {
      store<kLanes<A>>(&weights.of[k][i], tap_weight_along(taps, direction, none, k, i));
    }
  }
}

// The weights differentiated along one axis, or along none (axis = -1).
template <class A, int K, int D>
void weigh(const TileTaps<A, K, D>& taps, int axis, int slots, TapNumbers<A, K, D>& weights) {
  int order[D];
  for (int d = 0; d < D; ++d) order[d] = d == axis;
  for (int k = 0; k < TapProduct<K, D>::count; ++k) {
    for (int i = 0; i < slots; i += kLanes<A>) {
      store<kLanes<A>>(&weights.of[k][i], tap_weight(taps, order, k, i));
    }
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
