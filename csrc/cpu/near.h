// The order in which a tile's points are added to a slab, and which of them see it.
#pragma once

#include "cpu/runs.h"
#include "cpu/share.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// The order in which a tile's points are added: neighbours, which add to the same pixels, come far
// apart, since an addition that reads what one just before it wrote must wait for it.
// Scattered points, and those that share no pixel, come one after the other: what they write to one
// line of a cache, while it is there.
struct Order {
  int32_t width = 0, rows = 0, pitch = 0;
  int count = 0;
  bool in_turn = false;
  uint16_t slot[kRoom];

  void fit(bool one_by_one, int32_t to_width, int32_t to_rows, int32_t to_pitch) {
    if (to_width == width && to_rows == rows && to_pitch == pitch && one_by_one == in_turn) {
      return;
    }
    width = to_width, rows = to_rows, pitch = to_pitch, in_turn = one_by_one;
    count = 0;
    const int stride = in_turn ? 1 : 16;
    for (int first = 0; first < stride; ++first) {
      for (int y = 0; y < rows; ++y) {
        // Each row starts further to the right than the one above it: both add to the row of
        // pixels between them.
        for (int x = (first + 5 * y) % stride; x < width; x += stride) {
          slot[count++] = static_cast<uint16_t>(y * pitch + x);
        }
      }
    }
  }
};

// Announces the pixels that a tile's points see in a plane.
template <class A, int D>
STN_HD void announce_runs(const RunStarts<A, 2, D>& runs, int count, const A* plane) {
  for (int i = 0; i < count; ++i) {
    for (const int64_t row : runs.row) __builtin_prefetch(plane + runs.offset[i] + row, 1);
  }
}

// Elements that are moved together: a multiple of eight.
template <class E>
constexpr int kMoved = STN_VECTOR_BYTES == 64 ? kLanes<E> : 8;

// Stores those of kMoved elements that are marked (by bytes of 0 or 1) next to each other, and
// anything behind them.
template <class E>
STN_HD void store_marked(const E* from, const uint8_t* marks, E* to) {
#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
  const __m512i lanes = _mm512_loadu_si512(from);
  if constexpr (kMoved<E> == 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(marks));
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(_mm_test_epi8_mask(bytes, bytes), lanes));
  } else {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(marks));
    const __mmask8 mask = static_cast<__mmask8>(_mm_test_epi8_mask(bytes, bytes));
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi64(mask, lanes));
  }
#else
  for (int k = 0; k < kMoved<E>; ++k) {
    *to = from[k];
    to += marks[k];
  }
#endif
}

// The points of a tile whose linear looks see some rows of an image.
template <class T, int D>
struct Near {
  Looks<T, D> looks;
  int count;
  Order order;

  // Whether they can be told without their taps. (NaN is taken for a number that sees them.) Of
  // an image that wraps, all points of a tile decide how they are added.
  STN_HD static bool can_find(const Looks<T, D>& looks) {
    const Padding padding = looks.frame.axis[D - 1].padding;
    return padding != Padding::reflection && !any_needs_room<2>(looks.frame);
  }

  STN_SHARED void find(const Rows& rows, const Looks<T, D>& of_all, const Order& in_order,
                       int slots) {
    const Axis<T>& axis = of_all.frame.axis[D - 1];
    const bool border = axis.padding == Padding::border;
    // Nothing, not even infinity, is beyond NaN.
    constexpr T kNone = std::numeric_limits<T>::quiet_NaN();
    const T low = border && rows.low == 0 ? kNone : T(rows.low - 1);
    const T high = border && rows.high == axis.size ? kNone : T(rows.high);
    all_ = slots;
    for (int i = 0; i < slots; ++i) {
      const T x = of_all.x[D - 1][i];
      sees_[i] = !(x < low) & !(x >= high);
    }
    const int room = (slots + kRowAlign - 1) / kRowAlign * kRowAlign;
    std::fill(sees_ + slots, sees_ + room, 0);
    number();
    if (!in_order.in_turn) pick(in_order);
    const int end = (count + kRowAlign - 1) / kRowAlign * kRowAlign;
    for (int d = 0; d < D; ++d) {
      keep(of_all.x[d], looks.x[d]);
      std::fill(looks.x[d] + count, looks.x[d] + end, T(0));  // of the last vector
    }
    looks.frame = of_all.frame;
    looks.monotonic = false;
    looks.ranged = of_all.ranged;
    std::copy(of_all.least, of_all.least + D, looks.least);
    std::copy(of_all.greatest, of_all.greatest + D, looks.greatest);
  }

  // What belongs to them, moved to the front; `kept` may be `of_all`.
  template <class E>
  STN_SHARED void keep(const E (&of_all)[kRoom], E (&kept)[kRoom]) const {
    for (int i = 0; i < all_; i += kMoved<E>) {
      store_marked(of_all + i, sees_ + i, kept + before_[i / 8]);
    }
  }
  template <class E, int N>
  STN_HD void keep(E (&values)[N][kRoom]) const {
    for (auto& one : values) keep(one, one);
  }

 private:
  // (Members would be written in every turn of these loops.)
  void number() {
    constexpr uint64_t kOnes = 0x0101010101010101;
    int sum = 0;
    for (int i = 0; i < all_; i += 8) {
      uint64_t marks;
      std::memcpy(&marks, sees_ + i, 8);
      before_[i / 8] = static_cast<uint16_t>(sum);
      sum += static_cast<int>(marks * kOnes >> 56);
    }
    order.count = count = sum;
    for (int i = 0; i < sum; ++i) order.slot[i] = static_cast<uint16_t>(i);
  }

  void pick(const Order& in_order) {
    uint16_t numbers[kRoom];
    int sum = 0;
    for (int i = 0; i < all_; ++i) {
      numbers[i] = static_cast<uint16_t>(sum);
      sum += sees_[i];
    }
    int picked = 0;
    for (int k = 0; k < in_order.count; ++k) {
      const size_t i = in_order.slot[k];
      order.slot[picked] = numbers[i];
      picked += sees_[i];
    }
    order.count = picked;
  }

  int all_;
  alignas(64) uint8_t sees_[kRoom];
  uint16_t before_[kRoom / 8 + 1];  // how many there are before every eighth slot
};

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
