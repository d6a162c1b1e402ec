// The order in which a tile's points are added to a slab, and which of them see it.
#pragma once

#include "cpu/runs.h"
#include "cpu/slab.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// The order in which a tile's points are added: neighbours, which add to the same pixels, come far
// apart, since an addition that reads what one just before it wrote must wait for it.
// Scattered points come one after the other.
struct Order {
  int32_t width = 0, rows = 0, pitch = 0;
  int count = 0;
  bool scattered = false;
  uint16_t slot[kRoom];

  void fit(bool are_scattered, int32_t to_width, int32_t to_rows, int32_t to_pitch) {
    if (to_width == width && to_rows == rows && to_pitch == pitch && are_scattered == scattered) {
      return;
    }
    width = to_width, rows = to_rows, pitch = to_pitch, scattered = are_scattered;
    count = 0;
    const int stride = scattered ? 1 : 16;
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

// The points of a tile that see a slab of an image.
struct Near {
  alignas(64) uint8_t sees[kRoom];
  int all, count;
  uint16_t before[kRoom / 8 + 1];  // how many there are before every eighth slot
  Order order;                     // theirs, as they are numbered when the others are gone

  // Leaves their runs alone.
  template <class A, int D>
  STN_HD void find(const Slab<A>& slab, const Order& of_all, int slots, RunStarts<A, 2, D>& runs) {
    all = slots;
    for (int i = 0; i < slots; ++i) {
      const int32_t outermost = runs.outermost[i];
      sees[i] = (outermost + 1 >= slab.low) & (outermost < slab.high);
    }
    // (A tile may be padded.)
    std::fill(sees + slots, sees + (slots + kRowAlign - 1) / kRowAlign * kRowAlign, 0);
    number_them();
    if (!of_all.scattered) pick(of_all);
    keep(runs.outermost);
    keep(runs.offset);
    keep(runs.distance);
  }

  // Moves what belongs to them to the front.
  template <class E>
  STN_HD void keep(E (&values)[kRoom]) const {
    for (int i = 0; i < all; i += kMoved<E>) {
      store_marked(values + i, sees + i, values + before[i / 8]);
    }
  }
  template <class E, int N>
  STN_HD void keep(E (&values)[N][kRoom]) const {
    for (auto& one : values) keep(one);
  }

 private:
  // (Members would be written in every turn of these loops.)
  void number_them() {
    int number = 0;
    for (int i = 0; i < all; i += 8) {
      before[i / 8] = static_cast<uint16_t>(number);
      for (int k = 0; k < 8; ++k) number += sees[i + k];
    }
    order.count = count = number;
    for (int i = 0; i < number; ++i) order.slot[i] = static_cast<uint16_t>(i);
  }

  void pick(const Order& of_all) {
    uint16_t numbers[kRoom];
    int number = 0;
    for (int i = 0; i < all; ++i) {
      numbers[i] = static_cast<uint16_t>(number);
      number += sees[i];
    }
    number = 0;
    for (int k = 0; k < of_all.count; ++k) {
      const size_t i = of_all.slot[k];
      order.slot[number] = numbers[i];
      number += sees[i];
    }
    order.count = number;
  }
};

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
