// From the sums of columns of points to the pixels of a row, where neighbouring points look not
// much nearer than pixels are: then all that a vector of pixels needs is in one or two vectors of
// sums.
#pragma once

#include "cpu/parts.h"
#include "cpu/scaled_looks.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// The vectors that one instruction permutes by lanes.
template <class A>
constexpr int kPermuted = STN_VECTOR_BYTES == 64                                    ? 2
                          : STN_VECTOR_BYTES == 32 && std::is_same<A, float>::value ? 1
                                                                                    : 0;

// Whether points are far enough apart for that, and pixels so many that it pays.
template <class A>
STN_HD bool may_have_windows(const AffineMap<A, 2>& map, const SampleParams& p) {
  constexpr int64_t kNarrow = 32;  // measured: benchmarks/README.md
  const auto is_wide = [&](int vectors) {
    return p.input_size[0] > vectors * kNarrow && std::abs(map.matrix[0][0]) * vectors >= 1;
  };
  return (kPermuted<A> > 0 && is_wide(1)) || (kPermuted<A> > 1 && is_wide(2));
}

// Whether no vector of pixels sees more than so many vectors of sums, but for points that rounding
// moved.
template <class A>
bool fits_windows(const ScaledAxis<A>& axis, int vectors) {
  constexpr int L = kLanes<A>;
  const int64_t apart = vectors * L - 1;
  for (int64_t k = apart; k < axis.size(); ++k) {
    const A rounding = std::numeric_limits<A>::epsilon() * (L + std::abs(axis.at[k]));
    if (axis.at[k] - axis.at[k - apart] < L - 1 - rounding) return false;
  }
  return true;
}

template <class A, class Element>
class ScaledWindows {
 public:
  using V = Native<A>;
  static constexpr int L = kLanes<A>;
  static constexpr int kRows = 4;  // sums wait for so many, to be out of the store buffer when read

  ScaledWindows(const ScaledAxis<A>& axis, int32_t pixels, const ScaledRows<A>& rows, bool onto)
      : rows_(rows),
        onto_(onto),
        pixels_(pixels),
        step_(axis.mirrored ? -1 : 1),
        permuted_(fits_windows(axis, 1) ? 1 : 2) {
    int64_t begin[L] = {}, end[L] = {};
    int32_t room = 0;
    axis.for_each_pixel(0, pixels_, [&](int32_t x, int64_t first, int64_t last) {
      begin[x % L] = first;
      end[x % L] = last;
      if (x % L < L - 1 && x + 1 < pixels_) return;
      add_vector(axis, x - x % L, x % L + 1, begin, end);
      room = std::max(room, vectors_.back().count);
    });
    // Beyond a row of sums, on both sides, there are zeros.
    ahead_ = (room + L - 1) / L * L;
    pitch_ = (ahead_ + axis.size() + room + 3 * L) / L * L;
    sums_.resize(kRows * pitch_ / L + 1);
  }

  // Gives a row of pixels what sees it of a plane of values, at once or with the rows that follow.
  STN_HD void give(const Element* plane, const typename ScaledRows<A>::Row& row, Element* to) {
    to_[count_] = to;
    finite_ &= rows_.sum(plane, row, sums_of(count_));
    if (++count_ == kRows) finish();
  }

  STN_HD void finish() {
    if (count_ == 0) return;
    if (!finite_) took(Path::scaled_carefully);
    if (permuted_ == 1) {
      finite_ ? spread<1, false>() : spread<1, true>();
    } else if constexpr (kPermuted<A> > 1) {
      finite_ ? spread<2, false>() : spread<2, true>();
    }
    count_ = 0;
    finite_ = true;
  }

 private:
  using Index = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
  struct alignas(64) Lanes {
    A of[L];
  };
  // By what a vector of pixels is seen: each by `count` points at most, the first of which are
  // those in `lane` from `point` on; the others follow, step by step.
  struct Vector {
    int32_t point, count, weights;
    alignas(64) Index lane[L];
  };

  void add_vector(const ScaledAxis<A>& axis, int32_t x, int lanes, int64_t (&begin)[L],
                  const int64_t (&end)[L]) {
    Vector vector{0, 0, static_cast<int32_t>(weights_.size()), {}};
    begin[0] =
        std::max(begin[0], begin[lanes - 1] - (permuted_ * L - 1));  // one that rounding moved
    const int64_t nearest = axis.mirrored ? begin[lanes - 1] : begin[0];
    vector.point = static_cast<int32_t>(axis.mirrored ? axis.size() - 1 - nearest : nearest);
    for (int k = 0; k < lanes; ++k) {
      vector.lane[k] = static_cast<Index>(std::abs(begin[k] - nearest));
      vector.count = std::max(vector.count, static_cast<int32_t>(end[k] - begin[k]));
    }
    weights_.resize(weights_.size() + vector.count);
    for (int k = 0; k < lanes; ++k) {
      for (int64_t m = begin[k]; m < end[k]; ++m) {
        weights_[vector.weights + m - begin[k]].of[k] = axis.weight(m, x + k);
      }
    }
    vectors_.push_back(vector);
  }

  A* sums_of(int row) { return sums_[0].of + row * pitch_ + ahead_; }

  // Careful: a weight of 0 counts 0 whatever the sum.
  template <int Permuted, bool Careful>
  STN_SHARED void spread() {
    const bool whole = count_ == kRows && !onto_;
    const A* const sums = sums_of(0);
    const Lanes* const weights = weights_.data();
    const int64_t pitch = pitch_, step = step_;
    Element* to[kRows];
    for (int r = 0; r < kRows; ++r) to[r] = to_[r];
    int32_t left = pixels_;
    for (const Vector& vector : vectors_) {
      Integer<V> lane;
      std::memcpy(&lane, vector.lane, sizeof lane);
      const A* from = sums + vector.point;
      V total[kRows] = {};
      for (int m = 0; m < vector.count; ++m) {
        const V weight = load<V>(weights[vector.weights + m].of);
        for (int r = 0; r < kRows; ++r) {
          const A* row = from + r * pitch;
          const V part =
              weight * (Permuted == 1 ? permute(load<V>(row), lane)
                                      : select_lanes(load<V>(row), load<V>(row + L), lane));
          total[r] += Careful ? (weight != 0 ? part : V{}) : part;
        }
        from += step;
      }
      for (int r = 0; r < kRows; ++r) {
        if (whole && left >= L) {
          store_pixels(to[r], total[r], L);
        } else if (r < count_) {
          give_some(total[r], to[r], std::min(L, left));
        }
        to[r] += L;
      }
      left -= L;
    }
  }

  STN_SHARED void give_some(V total, Element* to, int lanes) const {
    store_pixels(to, onto_ ? V(total + load_some<V>(to, lanes)) : total, lanes);
  }

  const ScaledRows<A>& rows_;
  const bool onto_;
  const int32_t pixels_;
  const int step_;      // to the sum that follows in the order of pixels
  const int permuted_;  // vectors of sums
  int32_t ahead_ = 0;
  std::vector<Vector> vectors_;
  std::vector<Lanes> weights_;
  int64_t pitch_;
  std::vector<Lanes> sums_;
  Element* to_[kRows];
  int count_ = 0;
  bool finite_ = true;
};

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
