// What a tile's points add to a planar image, turned round as in cpu/turned.h, of any map whose
// rows of points look along rows of pixels, more or less: each pixel collects from the few points
// of a row that may look at it, which stand around where a straight line through their looks says.
// No pixel waits for another, where additions point by point do; the weights are shared by the
// channels, and take so much more to make than those of points that few channels do not pay for it.
#pragma once

#include "cpu/share.h"
#include "cpu/slab.h"
#include "cpu/window.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Where vectors are long enough for that: measured, as all that follows, benchmarks/README.md.
template <class A>
constexpr bool kCollects = STN_VECTOR_BYTES == 64 && std::is_same<A, float>::value;

// Points of one stretch that may see a pixel, at most.
constexpr int kMostCollected = 6;

// Vectors of weights that are kept: they have to stay in the L1 cache.
constexpr int kMostProducts = 256;

// Rounding must not hide a point from a pixel that it looks at: it is sought this much further
// away. Looks that lie beyond the limit are too large for that.
template <class A>
constexpr A kCollectSlack = A(1) / 64;
constexpr int64_t kCollectLimit = int64_t(1) << 15;

// The interval between two numbers; of vectors, one for each lane.
template <class V>
struct Interval {
  V low, high;

  STN_HD Interval(V a, V b) : low(smaller(a, b)), high(larger(a, b)) {}
  STN_HD Interval wider(Scalar<V> by) const { return {V(low - by), V(high + by)}; }
};

// A stretch of points of one row of the output: point i looks at start + i * step, give or take
// `off`, along each axis.
template <class A, int D>
struct Stretch {
  int slot, count;
  A start[D], step[D], off[D];
  A along;  // points per column
  A half;  // how far from the point that would look at a pixel those are that may see it, in points

  // Where points look between the one at index a and the one at b.
  template <class V>
  STN_HD Interval<V> looks(int d, V a, V b) const {
    const Interval<V> line(V(start[d] + a * step[d]), V(start[d] + b * step[d]));
    return line.wider(off[d] + kCollectSlack<A>);
  }
};

// The rows of pixels, of those from first up to end, that looks in an interval see: from low to
// high, as whole numbers, high included; none if that is less.
template <class V>
struct Reached {
  V low, high;

  STN_HD Reached(const Interval<V>& looks, int32_t first, int32_t end) {
    using A = Scalar<V>;
    const V from = larger(looks.low, all<V>(static_cast<A>(first) - 1));
    const V to = smaller(looks.high, all<V>(static_cast<A>(end)));
    low = larger(V(floor_of(from)), all<V>(static_cast<A>(first)));
    high = smaller(V(floor_of(to) + 1), all<V>(static_cast<A>(end - 1)));
    high = from <= to ? high : V(low - 1);
  }
};

// The points of a tile as stretches.
template <class A, int D>
struct alignas(64) Stretches {
  static constexpr int L = kLanes<A>;
  static constexpr int kMost = 24;
  int count = 0;
  int candidates = 2;  // the points of a stretch that may see a pixel
  Stretch<A, D> of[kMost];
  const A (*x)[kRoom];  // where they look, after the boundary rule
  A widest;             // the points between those that a vector's first and last pixel see
  A low, high;          // between these, along the outermost axis
  alignas(64) A bounded[D][kRoom];

  // Whether the tile is such that collecting gains on adding.
  STN_HD bool find(const SampleParams& p, const Plan& plan, const Tile<D>& tile,
                   const Looks<A, D>& looks, int channels) {
    const int slots = tile.slots();
    if (any_needs_room<2>(looks.frame) || p.input_size[0] > kCollectLimit) return false;
    const bool as_is = only(Padding::zeros, looks.frame);
    if (!as_is) bound_looks<2>(looks.frame, looks, slots, bounded);
    x = as_is ? looks.x : bounded;
    const A added = added_cost(channels);
    const bool in_one = plan.size[0] > p.output_size[0];  // rows laid end to end
    const int length = static_cast<int>(in_one ? p.output_size[0] : tile.width);
    A cost = 0, points = 0;
    widest = 0;
    low = coordinate_limit<A>();
    high = -low;
    for (int row = 0; row < tile.rows; ++row) {
      int left = tile.width, slot = row * tile.pitch;
      int room = in_one ? length - tile.first[0] % length : length;
      while (left > 0) {
        const int here = std::min(left, room);
        if (count == kMost || !add(slot, here, channels, cost)) return false;
        points += static_cast<A>(here);
        if (cost > A(1.25) * added * points) return false;  // the rest will not make up for it
        slot += here;
        left -= here;
        room = length;
      }
    }
    // What the pixels of a vector may see must lie in two vectors of points.
    return cost < added * points && widest + static_cast<A>(candidates + 3) <= 2 * L;
  }

 private:
  // In ns: what a point costs that is added by itself, and a vector of pixels of which so many rows
  // are seen.
  STN_HD static A added_cost(int channels) {
    return D == 2 ? A(1.2) + A(2.1) * channels : A(2) + A(4.2) * channels;
  }
  STN_HD static A collected_cost(A candidates, A rows, int channels) {
    return 18 + candidates * (8 + 3 * rows) +
           A(0.6) * channels * (candidates + 4 + rows * (candidates + 2));
  }

  STN_HD bool add(int slot, int points, int channels, A& cost) {
    using V = Native<A>;
    Stretch<A, D>& one = of[count++];
    one.slot = slot;
    one.count = points;
    Integer<V> wild{};  // NaN, too
    for (int d = 0; d < D; ++d) {
      const A* at = x[d] + slot;
      const A step = points > 1 ? (at[points - 1] - at[0]) / static_cast<A>(points - 1) : A(d == 0);
      V least = all<V>(at[0]), most = least;
      for (int i = 0; i < points; i += L) {
        const V lane = counting<V>() + static_cast<A>(i);
        const V look = load<V>(at + i), apart = look - step * lane;
        const auto counts = lane < static_cast<A>(points);
        wild |= counts & ~(absolute(look) < static_cast<A>(kCollectLimit));
        least = smaller(least, V(counts ? apart : least));
        most = larger(most, V(counts ? apart : most));
      }
      const A from = least_lane(least), to = -least_lane(V(-most));
      one.step[d] = step;
      one.off[d] = (to - from) / 2;
      one.start[d] = (to + from) / 2;
    }
    one.along = 1 / one.step[0];
    const A reach = 1 + one.off[0] + kCollectSlack<A>;
    one.half = reach * std::abs(one.along);
    const A need = 2 * one.half + 1, spread = (L - 1) * std::abs(one.along);
    if (!all_lanes(wild == 0) || !(need < kMostCollected + 1)) return false;
    candidates = std::max(candidates, static_cast<int>(need));
    widest = std::max(widest, spread);
    const Interval<A> outermost = one.looks(D - 1, A(0), static_cast<A>(points - 1));
    low = std::min(low, outermost.low);
    high = std::max(high, outermost.high);
    A rows = 1, most_rows = 1;
    for (int d = 1; d < D; ++d) {
      const A here = std::abs(one.step[d]) * (spread + need) + 2 * one.off[d] + 2;
      rows *= here;
      most_rows *= here + A(1.5);
    }
    if (!(2 * most_rows * kMostCollected < kMostProducts)) return false;
    const A vectors = static_cast<A>(points) * std::abs(one.step[0]) / L + A(0.7);
    cost += vectors * collected_cost(static_cast<A>(static_cast<int>(need)), rows, channels);
    return true;
  }
};

// As many vectors of pixels as a vector has lanes, and what they see. (Found one by one, what takes
// a long row of instructions that wait for each other, the branches on it took most of the time.)
template <class A, int D>
struct alignas(64) Sights {
  using V = Native<A>;
  static constexpr int L = kLanes<A>;
  int32_t point[L];                       // the first of a stretch that is seen
  int32_t low[D - 1][L], high[D - 1][L];  // rows of pixels along y, z: inclusive

  // From this column on. lower, upper: the bounds of the rows along each axis.
  STN_HD Sights(const Stretch<A, D>& stretch, int column, const int32_t (&lower)[D],
                const int32_t (&upper)[D]) {
    const V left =
        (counting<V>() * A(L) + (static_cast<A>(column) - stretch.start[0])) * stretch.along;
    const V right = left + (L - 1) * stretch.along;
    const V first = larger(V(smaller(left, right) - stretch.half), V{});
    const V last =
        smaller(V(larger(left, right) + stretch.half), all<V>(static_cast<A>(stretch.count - 1)));
    store<L>(point, truncate(smaller(first, all<V>(A(kRoom)))));
    for (int d = 1; d < D; ++d) {
      const Reached<V> rows(stretch.looks(d, first, last), lower[d], upper[d]);
      store<L>(low[d - 1], truncate(rows.low));
      store<L>(high[d - 1], truncate(first <= last ? rows.high : V(rows.low - 1)));
    }
  }
};

// Vectors of pixels, and how heavily the points that each of them sees weigh in every row.
template <int K, class A, int D>
struct alignas(64) Collectors {
  using V = Native<A>;
  using I = Integer<V>;
  static constexpr int L = kLanes<A>;
  static constexpr int kMost = 32;
  struct One {
    int32_t column, begin;            // of the first pixel, and of the points
    int32_t low[D - 1], high[D - 1];  // rows, slices
    int32_t product;                  // the first of those of its rows
    I lane[K];                        // which points, from the first on
  };
  const SampleParams& p;
  const Stretches<A, D>& stretches;
  int count = 0, products = 0;
  One of[kMost];
  V product[kMostProducts];

  Collectors(const SampleParams& params, const Stretches<A, D>& all) : p(params), stretches(all) {}

  // Whether there is no room for another.
  STN_HD bool full() const { return count == kMost || 2 * products > kMostProducts; }

  // The vector of pixels from this column on, number `which` of those seen.
  STN_HD void add(const Stretch<A, D>& stretch, const Sights<A, D>& sights, int which, int column) {
    for (int d = 1; d < D; ++d) {
      if (sights.low[d - 1][which] > sights.high[d - 1][which]) return;
    }
    One& one = of[count++];
    one.column = column;
    one.begin = std::min(stretch.slot + sights.point[which], kRoom - 2 * L);
    for (int d = 1; d < D; ++d) {
      one.low[d - 1] = sights.low[d - 1][which];
      one.high[d - 1] = sights.high[d - 1][which];
    }
    one.product = products;
    const V pixel = counting<V>() + static_cast<A>(column);
    const V last = all<V>(static_cast<A>(stretch.count - 1));
    const V first = floor_of(V((pixel - stretch.start[0]) * stretch.along - stretch.half)) + 1;
    const I from = truncate(larger(smaller(first, last), V{})) + (stretch.slot - one.begin);
    const I end = all_index<V>(stretch.slot + stretch.count - 1 - one.begin);
    V across[K], away[D - 1][K];
    for (int k = 0; k < K; ++k) {
      const I at = from + k;
      one.lane[k] = at < end ? at : end;
      const V weight = kernel<2>(V(pick(one, stretches.x[0], k) - pixel));
      across[k] = at <= end ? weight : V{};
      for (int d = 1; d < D; ++d) away[d - 1][k] = pick(one, stretches.x[d], k);
    }
    V* to = product + products;
    const int32_t front = D == 3 ? one.low[D - 2] : 0, back = D == 3 ? one.high[D - 2] : 0;
    for (int32_t z = front; z <= back; ++z) {
      V weight[K], distance[K];
      for (int k = 0; k < K; ++k) {
        weight[k] = across[k];
        if (D == 3) weight[k] *= kernel<2>(V(away[D - 2][k] - static_cast<A>(z)));
        distance[k] = away[0][k] - static_cast<A>(one.low[0]);
      }
      for (int32_t y = one.low[0]; y <= one.high[0]; ++y) {
        for (int k = 0; k < K; ++k) {
          *to++ = weight[k] * kernel<2>(distance[k]);
          distance[k] -= 1;
        }
      }
    }
    products = static_cast<int>(to - product);
  }

  STN_HD V pick(const One& one, const A* values, int k) const {
    const A* from = values + one.begin;
    return select_lanes(load<V>(from), load<V>(from + L), one.lane[k]);
  }

  // Adds to C planes what their pixels collect.
  template <int C>
  STN_SHARED void collect(const Slab<A>& slab, A* plane, const A (*values)[kRoom]) const {
    for (const One* one = of; one != of + count; ++one) {
      V value[C][K];
      for (int c = 0; c < C; ++c) {
        for (int k = 0; k < K; ++k) value[c][k] = pick(*one, values[c], k);
      }
      const int lanes = std::min<int>(L, static_cast<int>(p.input_size[0]) - one->column);
      const V* weight = product + one->product;
      const int32_t front = D == 3 ? one->low[D - 2] : 0, back = D == 3 ? one->high[D - 2] : 0;
      for (int32_t z = front; z <= back; ++z) {
        A* to = plane + one->column + one->low[0] * slab.stride[1];
        if (D == 3) to += z * slab.stride[2];
        for (int32_t y = one->low[0]; y <= one->high[0]; ++y, to += slab.stride[1], weight += K) {
          for (int c = 0; c < C; ++c) {
            A* row = to + c * slab.stride_c;
            V sum = load_some<V>(row, lanes);
            for (int k = 0; k < K; ++k) sum += weight[k] * value[c][k];
            store_pixels(row, sum, lanes);
          }
        }
      }
    }
  }
};

// Calls f(collectors) for a tile's vectors of pixels, some at a time.
template <class A, int D, class F>
STN_HD void for_each_collectors(const SampleParams& p, const Slab<A>& slab,
                                const Stretches<A, D>& stretches, F&& f) {
  constexpr int L = kLanes<A>;
  int32_t lower[D] = {}, upper[D];
  for (int d = 0; d < D; ++d) upper[d] = static_cast<int32_t>(p.input_size[d]);
  lower[D - 1] = slab.low;
  upper[D - 1] = slab.high;
  const auto all = [&](auto candidates) {
    Collectors<candidates.value, A, D> collectors(p, stretches);
    const auto flush = [&] {
      if (collectors.count > 0) f(collectors);
      collectors.count = collectors.products = 0;
    };
    for (int k = 0; k < stretches.count; ++k) {
      const Stretch<A, D>& stretch = stretches.of[k];
      const A end = static_cast<A>(stretch.count - 1);
      const Reached<A> seen(stretch.looks(0, A(0), end), 0, upper[0]);
      if (seen.low > seen.high) continue;
      const int last = static_cast<int>(seen.high);
      for (int column = static_cast<int>(seen.low) / L * L; column <= last; column += L * L) {
        const Sights<A, D> sights(stretch, column, lower, upper);
        const int vectors = std::min(L, (last - column) / L + 1);
        for (int v = 0; v < vectors; ++v) {
          collectors.add(stretch, sights, v, column + v * L);
          if (collectors.full()) flush();
        }
      }
    }
    flush();
  };
  switch (stretches.candidates) {
    case 2:
    case 3:
      return all(std::integral_constant<int, 3>{});
    case 4:
      return all(std::integral_constant<int, 4>{});
    default:
      return all(std::integral_constant<int, kMostCollected>{});
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
