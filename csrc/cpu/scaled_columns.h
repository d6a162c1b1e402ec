// From the sums of columns of points to the pixels of rows, a vector of such rows at a time: each
// column adds to two pixels.
#pragma once

#include <memory>

#include "cpu/pixels.h"
#include "cpu/scaled_looks.h"

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

// Up to a vector's lanes of rows of pixels, and what the points of each column add to them.
template <class A, class Element>
class ScaledColumns {
 public:
  using V = Native<A>;
  static constexpr int L = kLanes<A>;

  ScaledColumns(const ScaledAxis<A>& axis, int32_t pixels, const ScaledRows<A>& rows, bool onto)
      : rows_(rows),
        onto_(onto),
        pixels_(pixels),
        pitch_((rows.points + L - 1) / L * L),
        sums_(new A[L * pitch_]()),
        found_(new A[(static_cast<int64_t>(pixels_) + L) * L]) {
    columns_.resize(axis.size());
    for (int64_t k = 0; k < axis.size(); ++k) {
      const A x = smaller(larger(axis.at[k], A(-2)), static_cast<A>(pixels_ + 1));
      const A first = std::floor(x);
      const int32_t pixel = static_cast<int32_t>(first);
      Column& column = columns_[k];
      column.point = static_cast<int32_t>(axis.point(k));
      column.pixel = std::min(std::max(pixel, -1), pixels_);
      column.weight[0] = pixel >= 0 && pixel < pixels_ ? 1 - (x - first) : A(0);
      column.weight[1] = pixel >= -1 && pixel + 1 < pixels_ ? x - first : A(0);
    }
  }

  // Gives a row of pixels what sees it of a plane of values, at once or with the rows that follow.
  void give(const Element* plane, const typename ScaledRows<A>::Row& row, Element* to) {
    to_[count_] = to;
    rows_.sum(plane, row, sums_.get() + count_++ * pitch_);
    if (count_ == L) finish();
  }

  void finish() {
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
        Element* to = to_[k] + x;
        if (onto_) row[k] += load_some<V>(to, lanes);
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
    for (const auto& one : columns_) {
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

  struct Column {
    int32_t point, pixel;  // the first of two pixels; -1 and the image's width are possible
    A weight[2];           // 0 beyond the image
  };

  const ScaledRows<A>& rows_;
  const bool onto_;
  const int32_t pixels_;
  const int64_t pitch_;
  std::vector<Column> columns_;  // by the pixels
  std::unique_ptr<A[]> sums_, found_;
  int count_ = 0;
  Element* to_[L];
};

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
