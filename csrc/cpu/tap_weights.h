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

// The factors of the weights at the points from i on.
template <class A, int K, int D>
STN_HD auto factors_at(const TileTaps<A, K, D>& taps, int i) {
  return [&taps, i](int d, int tap, int order) {
    const auto& of = order == 0 ? taps.weight : (order == 1 ? taps.slope : taps.curve);
    return load<Native<A>>(&of[d][tap][i]);
  };
}

// A direction at the points from i on.
template <class A, int D>
STN_HD void load_direction(const A (&direction)[D][kRoom], int i, Native<A> (&at)[D]) {
  for (int d = 0; d < D; ++d) at[d] = load<Native<A>>(&direction[d][i]);
}

// What a tap's weight does along a direction.
template <class A, int K, int D>
void weigh_along(const TileTaps<A, K, D>& taps, const A (&direction)[D][kRoom], int slots,
                 TapNumbers<A, K, D>& weights) {
  const int none[D] = {};
  for (int k = 0; k < TapProduct<K, D>::count; ++k) {
    for (int i = 0; i < slots; i += kLanes<A>) {
      Native<A> at[D];
      load_direction(direction, i, at);
      store<kLanes<A>>(&weights.of[k][i], tap_weight_along<K>(at, none, k, factors_at(taps, i)));
    }
  }
}

// The weights differentiated along one axis, or along none (axis = -1).
template <class A, int K, int D>
void weigh(const TileTaps<A, K, D>& taps, int axis, int slots, TapNumbers<A, K, D>& weights) {
  int order[D];
  order_along(axis, order);
  for (int k = 0; k < TapProduct<K, D>::count; ++k) {
    for (int i = 0; i < slots; i += kLanes<A>) {
      store<kLanes<A>>(&weights.of[k][i], tap_weight<K>(order, k, factors_at(taps, i)));
    }
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
