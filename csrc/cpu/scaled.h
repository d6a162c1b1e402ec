// The adjoint of a bilinear sample through an affine map that keeps the axes apart: a point looks
// where its column says along x, and where its row says along y (boxes of attention, crops, resized
// and mirrored images). So rows of points are summed first, a vector of points at a time, by how
// heavily they weigh in a row of pixels; what the sums add to the pixels of their row is told then
// by the column alone, a vector of such rows at a time. Of an image that is enlarged, the second
// part is that of few rows.
#pragma once

#include <memory>
#include <vector>

#include "cpu/turned.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// As many vectors as one has lanes: lane k of vector i becomes lane i of vector k.
template <class V, int L>
STN_HD void transpose(V (&v)[L]) {
  const Integer<V> lane = truncate(counting<V>());
#pragma GCC unroll 8
  for (int step = 1; step < L; step *= 2) {
    const auto second = (lane & step) != 0;
    const Integer<V> even = second ? lane + (L - step) : lane;
    const Integer<V> odd = second ? lane + L : lane + step;
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) {
      if (i & step) continue;
      const V a = v[i], b = v[i + step];
      v[i] = select_lanes(a, b, even);
      v[i + step] = select_lanes(a, b, odd);
    }
  }
}

// What a map says of the columns of points, and of the rows of pixels [low, high).
template <class A>
struct ScaledLooks {
  struct Column {
    int32_t point, pixel;  // the first of two pixels; -1 and the image's width are possible
    A weight[2];           // 0 beyond the image
  };
  struct Row {
    int32_t y, count;  // of the points' rows that it is seen by
    int32_t first;     // of their offsets and weights
  };
  std::vector<Column> columns;  // by the pixels
  std::vector<Row> rows;
  std::vector<int64_t> offsets;
  std::vector<A> weights;

  ScaledLooks(const AffineMap<A, 2>& map, const SampleParams& p, int32_t low, int32_t high) {
    const auto look = [&](int d, int64_t k) {
      A at[2] = {}, x[2];
      at[d] = static_cast<A>(k);
      map.coordinate(at, x);
      return x[d];
    };
    // The points in the order of what they see.
    const auto ordered = [&](int d, int64_t k) {
      return map.matrix[d][d] < 0 ? p.output_size[d] - 1 - k : k;
    };
    const int64_t width = p.input_size[0], height = p.output_size[1];
    columns.resize(p.output_size[0]);
    for (int64_t k = 0; k < p.output_size[0]; ++k) {
      const int64_t point = ordered(0, k);
      const A x = smaller(larger(look(0, point), A(-2)), static_cast<A>(width + 1));
      const A first = std::floor(x);
      const int64_t pixel = static_cast<int64_t>(first);
      Column& column = columns[k];
      column.point = static_cast<int32_t>(point);
      column.pixel = static_cast<int32_t>(std::min(std::max<int64_t>(pixel, -1), width));
      column.weight[0] = pixel >= 0 && pixel < width ? 1 - (x - first) : A(0);
      column.weight[1] = pixel >= -1 && pixel + 1 < width ? x - first : A(0);
    }
    int64_t begin = 0, end = 0;
    for (int32_t y = low; y < high; ++y) {
      const A above = static_cast<A>(y) - 1, below = static_cast<A>(y) + 1;
      while (begin < height && look(1, ordered(1, begin)) <= above) ++begin;
      end = std::max(begin, end);
      while (end < height && look(1, ordered(1, end)) < below) ++end;
      const int32_t first = static_cast<int32_t>(weights.size());
      rows.push_back({y, static_cast<int32_t>(end - begin), first});
      for (int64_t k = begin; k < end; ++k) {
        const int64_t point = ordered(1, k);
        offsets.push_back(point * p.output.stride[1]);
        weights.push_back(1 - std::abs(look(1, point) - static_cast<A>(y)));
      }
    }
  }
};

// Up to a vector's lanes of rows of pixels, and what the points of each column add to them.
template <class A>
class ScaledRows {
 public:
  using V = Native<A>;
  static constexpr int L = kLanes<A>;

  ScaledRows(const ScaledLooks<A>& looks, const SampleParams& p)
      : looks_(looks),
        points_(static_cast<int32_t>(p.output_size[0])),
        pixels_(static_cast<int32_t>(p.input_size[0])),
        pitch_((points_ + L - 1) / L * L),
        sums_(new A[L * pitch_]()),
        found_(new A[(static_cast<int64_t>(pixels_) + L) * L]) {}

  int count() const { return count_; }

  // Adds a row, from a plane of values.
  template <class Element>
  void sum(const Element* plane, const typename ScaledLooks<A>::Row& row) {
    y_[count_] = row.y;
    A* to = sums_.get() + count_++ * pitch_;
    const int64_t* offset = looks_.offsets.data() + row.first;
    const A* weight = looks_.weights.data() + row.first;
    constexpr int kTogether = 4;
    int32_t j = 0;
    const auto add = [&](auto vectors, int32_t lanes) __attribute__((always_inline)) {
      constexpr int N = decltype(vectors)::value;
      V total[N] = {};
      for (int32_t k = 0; k < row.count; ++k) {
        const Element* from = plane + offset[k] + j;
        for (int m = 0; m < N; ++m) {
          total[m] +=
              weight[k] * (lanes < L ? load_pixels<V>(from, lanes) : load_pixels<V>(from + m * L));
        }
      }
      for (int m = 0; m < N; ++m) store<L>(to + j + m * L, total[m]);
      j += N * L;
    };
    while (j + kTogether * L <= points_) add(std::integral_constant<int, kTogether>{}, L);
    while (j + L <= points_) add(std::integral_constant<int, 1>{}, L);
    if (j < points_) add(std::integral_constant<int, 1>{}, points_ - j);
  }

  // Gives the rows to `image`, on top of what is there or not, and has none then.
  template <class To>
  void give(bool add, To* image, int64_t stride_y) {
    if (count_ == 0) return;
    if (spread<false>()) {
      took(Path::scaled_carefully);
      spread<true>();
    }
    for (int32_t x = 0; x < pixels_; x += L) {
      V row[L];
      for (int k = 0; k < L; ++k) row[k] = load<V>(found_.get() + (x + k) * L);
      transpose(row);
      const int lanes = std::min(L, pixels_ - x);
      for (int k = 0; k < count_; ++k) {
        To* to = image + y_[k] * stride_y + x;
        if (add) row[k] += load_some<V>(to, lanes);
        store_pixels(to, row[k], lanes);
      }
    }
    count_ = 0;
  }

 private:
  // From the points' sums to the pixels, which in found_ come one after the other, each with all
  // rows. Careful: a weight of 0 counts 0 whatever the sum. Whether any is NaN.
  template <bool Careful>
  bool spread() {
    V current{}, next{};
    int32_t pixel = -1;
    Integer<V> finite = all_index<V>(-1);
    A* const found = found_.get();
    const auto go_to = [&](int32_t to) {
      while (pixel < to) {
        if (pixel >= 0) store<L>(found + static_cast<int64_t>(pixel) * L, current);
        finite &= current == current;
        current = next;
        next = V{};
        ++pixel;
      }
    };
    V column[L];
    int32_t loaded = -1;
    for (const auto& one : looks_.columns) {
      if (one.point / L != loaded) {
        loaded = one.point / L;
        for (int k = 0; k < L; ++k) column[k] = load<V>(sums_.get() + k * pitch_ + loaded * L);
        transpose(column);
      }
      go_to(one.pixel);
      const V sum = load<V>(reinterpret_cast<const A*>(column) + one.point % L * L);
      if (!Careful || one.weight[0] != 0) current += one.weight[0] * sum;
      if (!Careful || one.weight[1] != 0) next += one.weight[1] * sum;
    }
    go_to(pixels_);
    return !all_lanes(finite);
  }

  const ScaledLooks<A>& looks_;
  const int32_t points_, pixels_;
  const int64_t pitch_;
  std::unique_ptr<A[]> sums_, found_;
  int count_ = 0;
  int32_t y_[L];
};

// Up to how many pixels there may be to a point for that to be quicker than other ways; and the
// same of many channels, where a map may be turned round, whose weights these share. Measured:
// benchmarks/README.md.
constexpr double kMostScaled = 8, kMostScaledOfMany = 0.5;
constexpr int64_t kManyScaled = 8;

// Whether the map keeps the axes apart, its points are near enough to one another, and none looks
// too far away to be counted.
template <class A>
STN_HD bool is_scaled(const AffineMap<A, 2>& map, double most) {
  constexpr A kFar = A(1 << 20);
  bool apart = map.matrix[0][1] == 0 && map.matrix[1][0] == 0;
  apart &= std::abs(static_cast<double>(map.matrix[0][0]) * map.matrix[1][1]) <= most;
  for (int d = 0; d < 2; ++d) {
    apart &= std::abs(map.offset[d]) < kFar && std::abs(map.matrix[d][d]) < kFar;
  }
  return apart;  // none of which holds for NaN
}

// The rows [low, high) of image `image`, if all of its warps allow it; as if there were zeros
// beyond the image: then(n, c, count) may add what another rule adds to that (cpu/beyond.h), of
// output n to the channels [c, c + count).
template <class Element, class Then>
STN_HD bool splat_scaled(const SampleParams& p, const Plan& plan, int64_t image, int32_t low,
                         int32_t high, Then&& then) {
  using A = Accumulate<Element>;
  const int64_t images = p.input.batch == 1 ? p.batch : 1;
  const bool wide = p.warp.type == ElementType::f64;
  constexpr bool direct = std::is_same<A, Element>::value;
  if (p.output.stride[0] != 1) return false;
  if (wide != std::is_same<A, double>::value || (images > 1 && !direct)) return false;
  if (!only_zeros(p) && !direct) return false;
  const bool shares = kTurned<Element> && plan.turned && p.channels >= kManyScaled;
  const double most = shares ? kMostScaledOfMany : kMostScaled;
  const auto frame = pixel_frame<A, 2>(p);
  const auto map_of = [&](int64_t n) {
    return AffineMap<A, 2>(p.warp, p.warp.batch == 1 ? 0 : n, frame, p.output_size,
                           p.align_corners);
  };
  for (int64_t n = image; n < image + images; ++n) {
    if (!is_scaled(map_of(n), most)) return false;
  }
  for (int64_t n = image; n < image + images; ++n) {
    took(n > image ? Path::scaled_onto : Path::scaled);
    const ScaledLooks<A> looks(map_of(n), p, low, high);
    ScaledRows<A> rows(looks, p);
    const int64_t stride_y = p.input.stride[1];
    for (int64_t c = 0; c < p.channels; ++c) {
      const Element* plane = plane_of<const Element>(p.output, n, c);
      Element* to = plane_of<Element>(p.input, image, c);
      for (const auto& row : looks.rows) {
        if (row.count > 0) {
          rows.sum(plane, row);
          if (rows.count() == rows.L) rows.give(n > image, to, stride_y);
        } else if (n == image) {
          std::fill_n(to + row.y * stride_y, p.input_size[0], Element{});
        }
      }
      rows.give(n > image, to, stride_y);
    }
    then(n, 0, p.channels);
  }
  return true;
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
