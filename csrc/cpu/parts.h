// What the points of a tile add to the pixels that they see, made as vectors and added pair by
// pair.
#pragma once

#include "cpu/near.h"
#include "cpu/slab.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Two neighbouring pixels, wherever they stand.
template <class A>
struct PairOf {
  typedef A type __attribute__((vector_size(2 * sizeof(A)), aligned(sizeof(A)), may_alias));
};

// By what a point's values are multiplied: the weights of its taps; what these do along a
// direction; or what a boundary rule adds to those that zeros beyond the image would give.
enum class Weigh { plainly, along, beyond };

// What a tile's points add to pairs of neighbouring pixels, in C planes.
template <class A, int C, int D>
struct alignas(64) Parts {
  static constexpr int kRows = RunStarts<A, 2, D>::kRows;
  A of[C][kRows][kRoom][2];

  // other: the direction, or the distances from the first tap that the looks have without the rule.
  template <Weigh W>
  STN_SHARED Parts(std::integral_constant<Weigh, W>, const RunStarts<A, 2, D>& runs, int slots,
                   const A (&other)[D][kRoom], const A (*values)[kRoom]) {
    using V = Native<A>;
    constexpr int L = kLanes<A>;
    const Integer<V> lane = truncate(counting<V>());
    const Integer<V> low = lane / 2 + (lane & 1) * L, high = low + L / 2;
    for (int i = 0; i < slots; i += L) {
      V weight[D][2], change[D][2];
      for (int d = 0; d < D; ++d) {
        const V distance = load<V>(&runs.distance[d][i]);
        for (int k = 0; k < 2; ++k) {
          const A moved = k == 0 ? A(0) : runs.step[d];
          weight[d][k] = kernel<2>(V(distance - moved));
          if (W == Weigh::along) {
            change[d][k] = load<V>(&other[d][i]) * kernel_slope<2>(V(distance - moved));
          } else if (W == Weigh::beyond) {
            change[d][k] = kernel<2>(V(load<V>(&other[d][i]) - moved));
          }
        }
      }
      for (int r = 0; r < kRows; ++r) {
        V row = weight[1][r & 1];
        if (D == 3) row *= weight[D - 1][r >> 1];
        V first = weight[0][0] * row, second = weight[0][1] * row;
        if (W == Weigh::along) {
          V moved = change[1][r & 1];
          if (D == 3) {
            moved = moved * weight[D - 1][r >> 1] + weight[1][r & 1] * change[D - 1][r >> 1];
          }
          first = weight[0][0] * moved + change[0][0] * row;
          second = weight[0][1] * moved + change[0][1] * row;
        } else if (W == Weigh::beyond) {
          V zeros = change[1][r & 1];
          if (D == 3) zeros *= change[D - 1][r >> 1];
          // No rule gives a pixel less; rounding must not, since infinity times it would be NaN.
          first = larger(V(first - change[0][0] * zeros), V{});
          second = larger(V(second - change[0][1] * zeros), V{});
        }
        for (int c = 0; c < C; ++c) {
          const V value = load<V>(values[c] + i);
          const V a = first * value, b = second * value;
          store<L>(of[c][r][i], select_lanes(a, b, low));
          store<L>(of[c][r][i + L / 2], select_lanes(a, b, high));
        }
      }
    }
  }
};

// Adds them, the points in order. Alone: to zeros, which they replace. (Inlined, the loop would be
// short of registers.)
template <bool Inside, bool Alone, int C, int D, class A>
__attribute__((noinline)) void add_parts(const Slab<A>& slab, A* plane, const Order& order,
                                         const RunStarts<A, 2, D>& runs,
                                         const Parts<A, C, D>& parts) {
  using Pair = typename PairOf<A>::type;
  constexpr int R = RunStarts<A, 2, D>::kRows;
  int64_t row[R];
  for (int r = 0; r < R; ++r) row[r] = runs.row[r];
  const int64_t stride_c = slab.stride_c;
  const auto add = [&](size_t i, auto&& has_row) __attribute__((always_inline)) {
    A* at = plane + runs.offset[i];
    for (int c = 0; c < C; ++c) {
      for (int r = 0; r < R; ++r) {
        if (!has_row(r)) continue;
        const Pair part = *reinterpret_cast<const Pair*>(parts.of[c][r][i]);
        Pair& pixels = *reinterpret_cast<Pair*>(at + row[r]);
        pixels = Alone ? part : pixels + part;
      }
      at += stride_c;
    }
  };
  for (const uint16_t *slot = order.slot, *end = slot + order.count; slot != end; ++slot) {
    const size_t i = *slot;
    const int32_t outermost = Inside ? 0 : runs.outermost[i];
    if (Inside || (outermost >= slab.low && outermost + 1 < slab.high)) {
      add(i, [](int) { return true; });
    } else {
      add(i, [&](int r) {
        const int32_t at = outermost + (r >> (D - 2));
        return at >= slab.low && at < slab.high;
      });
    }
  }
}

// The same point by point: a tap of weight 0 gets nothing, whatever the value.
template <Weigh W, class A, int D>
STN_SHARED void add_points(std::integral_constant<Weigh, W> weigh, const Slab<A>& slab, A* plane,
                           const RunStarts<A, 2, D>& runs, int count, const A (&other)[D][kRoom],
                           const A (&values)[kRoom]) {
  alignas(64) A ones[1][kRoom];
  std::fill(ones[0], ones[0] + kRoom, A(1));
  const int slots = (count + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
  const Parts<A, 1, D> weights(weigh, runs, slots, other, ones);
  for (int i = 0; i < count; ++i) {
    for (int r = 0; r < RunStarts<A, 2, D>::kRows; ++r) {
      const int32_t outermost = runs.outermost[i] + (r >> (D - 2));
      if (outermost < slab.low || outermost >= slab.high) continue;
      for (int k = 0; k < 2; ++k) {
        const A weight = weights.of[0][r][i][k];
        if (weight != 0) plane[runs.offset[i] + runs.row[r] + k] += weight * values[i];
      }
    }
  }
}

template <class A>
STN_HD bool all_finite(const A* values, int count) {
  int infinite = 0;
  for (int i = 0; i < count; ++i) infinite |= values[i] - values[i] != 0;
  return infinite == 0;
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
