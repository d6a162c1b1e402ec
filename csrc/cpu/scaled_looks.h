// What an affine map that keeps the axes apart says of each of them.
#pragma once

#include <vector>

#include "cpu/inverse.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Where the points look along one axis, in the order of what they see.
template <class A>
struct ScaledAxis {
  std::vector<A> at;
  bool mirrored;

  ScaledAxis(const AffineMap<A, 2>& map, const SampleParams& p, int d)
      : at(p.output_size[d]), mirrored(map.matrix[d][d] < 0) {
    for (int64_t k = 0; k < size(); ++k) {
      A from[2] = {}, x[2];
      from[d] = static_cast<A>(point(k));
      map.coordinate(from, x);
      at[k] = x[d];
    }
  }

  int64_t size() const { return static_cast<int64_t>(at.size()); }
  int64_t point(int64_t k) const { return mirrored ? size() - 1 - k : k; }
  A weight(int64_t k, int32_t pixel) const { return 1 - std::abs(at[k] - static_cast<A>(pixel)); }

  // Calls f(pixel, begin, end) for the pixels [low, high): each is seen by the points [begin, end).
  template <class F>
  void for_each_pixel(int32_t low, int32_t high, F&& f) const {
    int64_t begin = 0, end = 0;
    for (int32_t pixel = low; pixel < high; ++pixel) {
      const A before = static_cast<A>(pixel) - 1, after = static_cast<A>(pixel) + 1;
      while (begin < size() && at[begin] <= before) ++begin;
      end = std::max(begin, end);
      while (end < size() && at[end] < after) ++end;
      f(pixel, begin, end);
    }
  }
};

// The rows of pixels [low, high), and by which rows of points they are seen.
template <class A>
struct ScaledRows {
  struct Row {
    int32_t y, count;
    int32_t first;  // of the points' offsets and weights
  };
  std::vector<Row> rows;
  std::vector<int64_t> offsets;
  std::vector<A> weights;
  int64_t points;  // of a row

  ScaledRows(const AffineMap<A, 2>& map, const SampleParams& p, int32_t low, int32_t high)
      : points(p.output_size[0]) {
    const ScaledAxis<A> axis(map, p, 1);
    axis.for_each_pixel(low, high, [&](int32_t y, int64_t begin, int64_t end) {
      rows.push_back({y, static_cast<int32_t>(end - begin), static_cast<int32_t>(weights.size())});
      for (int64_t k = begin; k < end; ++k) {
        offsets.push_back(axis.point(k) * p.output.stride[1]);
        weights.push_back(axis.weight(k, y));
      }
    });
  }

  // What the points of each column add to a row of pixels, from a plane of values. Whether all sums
  // are finite.
  template <class Element>
  STN_HD bool sum(const Element* plane, const Row& row, A* to) const {
    using V = Native<A>;
    constexpr int L = kLanes<A>, kTogether = 4;
    const int64_t* offset = offsets.data() + row.first;
    const A* weight = weights.data() + row.first;
    int64_t j = 0;
    V zero{};
    const auto add = [&](auto vectors, int lanes) __attribute__((always_inline)) {
      constexpr int N = decltype(vectors)::value;
      V total[N] = {};
      for (int32_t k = 0; k < row.count; ++k) {
        const Element* from = plane + offset[k] + j;
        for (int m = 0; m < N; ++m) {
          total[m] +=
              weight[k] * (lanes < L ? load_pixels<V>(from, lanes) : load_pixels<V>(from + m * L));
        }
      }
      for (int m = 0; m < N; ++m) {
        store<L>(to + j + m * L, total[m]);
        zero += total[m] * 0;
      }
      j += N * L;
    };
    while (j + kTogether * L <= points) add(std::integral_constant<int, kTogether>{}, L);
    while (j + L <= points) add(std::integral_constant<int, 1>{}, L);
    if (j < points) add(std::integral_constant<int, 1>{}, static_cast<int>(points - j));
    return all_lanes(zero == 0);
  }
};

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
