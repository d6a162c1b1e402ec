// Vectors that are blocks: lane k is in column k % 4 and row k / 4. Where a map turns, a block of
// neighbouring points sees fewer rows of pixels than as many points of one row.
#pragma once

#include <algorithm>

#include "cpu/kernels.h"
#include "cpu/pixels.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// (The shortest vectors make none.)
template <class A>
constexpr int kBlockRows = std::max(1, kLanes<A> / kBlockColumns);

// Each lane's column or row in its block.
template <class V>
STN_HD V block_rows() {
  return to_real<V>(Integer<V>(truncate(counting<V>()) / kBlockColumns));
}
template <class V>
STN_HD V block_columns() {
  return to_real<V>(Integer<V>(truncate(counting<V>()) % kBlockColumns));
}

// Two vectors end to end, and the halves of one. (GCC sends the plain form through memory.)
template <class To, class From>
STN_HD To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class T, int N>
STN_HD Vector<T, 2 * N> end_to_end(Vector<T, N> low, Vector<T, N> high) {
  using Both = Vector<T, 2 * N>;
#if defined(__x86_64__) && STN_VECTOR_BYTES >= 32
  if constexpr (sizeof(Both) == 64) {
#if STN_VECTOR_BYTES == 64
    return (Both)_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)low), (__m256i)high, 1);
#endif
  } else if constexpr (sizeof(Both) == 32) {
    return (Both)_mm256_inserti128_si256(_mm256_castsi128_si256((__m128i)low), (__m128i)high, 1);
  } else if constexpr (sizeof(Both) == 16) {
    return (Both)_mm_set_epi64x(same_bits<int64_t>(high), same_bits<int64_t>(low));
  }
#endif
  Both both;
  std::memcpy(&both, &low, sizeof low);
  std::memcpy(reinterpret_cast<char*>(&both) + sizeof low, &high, sizeof high);
  return both;
}

template <class T, int N>
STN_HD Vector<T, N / 2> half_of(Vector<T, N> v, int which) {
  using One = Vector<T, N / 2>;
#if defined(__x86_64__) && STN_VECTOR_BYTES >= 32
  if constexpr (sizeof v == 64) {
#if STN_VECTOR_BYTES == 64
    return which == 0 ? (One)_mm512_castsi512_si256((__m512i)v)
                      : (One)_mm512_extracti64x4_epi64((__m512i)v, 1);
#endif
  } else if constexpr (sizeof v == 32) {
    return which == 0 ? (One)_mm256_castsi256_si128((__m256i)v)
                      : (One)_mm256_extracti128_si256((__m256i)v, 1);
  }
#endif
  One one;
  std::memcpy(&one, reinterpret_cast<const char*>(&v) + which * sizeof one, sizeof one);
  return one;
}

// As many whole rows as a vector of L numbers has.
template <int L, class T>
STN_HD Vector<T, L> load_rows(const T* from, int64_t stride_y) {
  if constexpr (L <= kBlockColumns) {
    Vector<T, L> row;
    std::memcpy(&row, from, sizeof row);
    return row;
  } else {
    constexpr int kHalf = L / 2;
    const T* further = from + kHalf / kBlockColumns * stride_y;
    return end_to_end<T, kHalf>(load_rows<kHalf>(from, stride_y),
                                load_rows<kHalf>(further, stride_y));
  }
}

template <int L, class T>
STN_HD void store_rows(T* to, int64_t stride_y, Vector<T, L> v) {
  if constexpr (L <= kBlockColumns) {
    std::memcpy(to, &v, sizeof v);
  } else {
    constexpr int kHalf = L / 2;
    store_rows<kHalf>(to, stride_y, half_of<T, L>(v, 0));
    store_rows<kHalf>(to + kHalf / kBlockColumns * stride_y, stride_y, half_of<T, L>(v, 1));
  }
}

// The pixels of a block; zeros where it has fewer columns or rows.
template <class V, class Element>
STN_HD V load_block(const Element* from, int64_t stride_y, int columns, int rows) {
  constexpr int L = kLanes<Scalar<V>>;
  if (columns == kBlockColumns && rows == L / kBlockColumns) {
    if constexpr (std::is_same<Element, Scalar<V>>::value) {
      return load_rows<L>(from, stride_y);
    } else {
      return widen(load_rows<L>(&from->bits, stride_y), Element{});
    }
  }
  Element some[L] = {};
  for (int r = 0; r < rows; ++r) {
    std::copy(from + r * stride_y, from + r * stride_y + columns, some + r * kBlockColumns);
  }
  return load_pixels<V>(some);
}

// Writes them, rounded.
template <class V, class Element>
STN_HD void store_block(Element* to, int64_t stride_y, V v, int columns, int rows) {
  constexpr int L = kLanes<Scalar<V>>;
  if (columns == kBlockColumns && rows == L / kBlockColumns) {
    if constexpr (std::is_same<Element, Scalar<V>>::value) {
      return store_rows<L>(to, stride_y, v);
    } else {
      return store_rows<L>(&to->bits, stride_y, narrow(v, Element{}));
    }
  }
  Element some[L];
  store_pixels(some, v, L);
  for (int r = 0; r < rows; ++r) {
    std::copy(some + r * kBlockColumns, some + r * kBlockColumns + columns, to + r * stride_y);
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
