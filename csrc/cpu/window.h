// Linear and nearest looks of a vector of neighbouring points at a planar image. They see few rows
// of pixels, and a short stretch of each: two vectors of pixels per row, from which a permutation
// takes every point's left and right neighbour. The loads are shared by the points, where pairs of
// pixels (copy_pairs) take one for each point and row.
#pragma once

#include "cpu/gather.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Only AVX-512 permutes two registers by lanes in one instruction; made up of two permutations and
// a blend, it loses against pairs.
constexpr bool kWindows = STN_VECTOR_BYTES == 64;

// How many rows are seen varies from vector to vector, and branching on that costs more than a row
// does: the rows of an image's y axis are taken four at a time.
constexpr int kRowBlock = 4;

// More rows than this cost more than pairs. Of volumes: along one axis, and in all.
template <int D>
constexpr int kMaxRows = D == 2 ? 12 : 8;
constexpr int kMaxRowsOfVolume = 24;

template <class V>
STN_HD V permute(V low, V high, Integer<V> index) {
  return __builtin_shuffle(low, high, index);
}

// Keeps a vector in its register: GCC would load it anew for every use, and unaligned loads are
// what limits this.
template <class V>
STN_HD void keep(V& v) {
#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
  __asm__("" : "+v"(v));
#endif
}

// The integer vector that goes with V, from 32-bit indices.
template <class V>
STN_HD Integer<V> load_index(const int32_t* from) {
  Vector<int32_t, kLanes<Scalar<V>>> v;
  std::memcpy(&v, from, sizeof v);
  return __builtin_convertvector(v, Integer<V>);
}

template <class V>
STN_HD V load_pixels(const Scalar<V>* from) {
  return load<V>(from);
}
template <class V>
STN_HD V load_pixels(const BFloat16* from) {
  Vector<uint16_t, kLanes<float>> bits;
  std::memcpy(&bits, from, sizeof bits);
  return (V)(__builtin_convertvector(bits, Vector<uint32_t, kLanes<float>>) << 16);
}
template <class V>
STN_HD V load_pixels(const Half* from) {
#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
  return (V)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#else
  V v;
  for (int k = 0; k < kLanes<float>; ++k) v[k] = to_float(from[k]);
  return v;
#endif
}

// The first n pixels.
template <class V, class Element>
STN_HD V load_pixels(const Element* from, int n) {
  if constexpr (std::is_same<Element, Scalar<V>>::value) {
    return load_first(from, n);
  } else {
    Element pixels[kLanes<Scalar<V>>] = {};
    std::memcpy(pixels, from, n * sizeof(Element));
    return load_pixels<V>(pixels);
  }
}

// What the vectors of a tile see.
template <class A, int D>
struct alignas(64) WindowTile {
  static constexpr int kGroups = kRoom / kLanes<A>;
  bool used[kGroups];
  int32_t column[kGroups];        // of the window's first pixel
  int64_t start[kGroups];         // that pixel's offset
  int32_t first[D - 1][kGroups];  // row: y, then z
  int32_t rows[D - 1][kGroups];   // y's, in whole blocks; z's
  A weight[D - 1][kGroups][kMaxRows<D>][kLanes<A>];
  A slope[D - 1][kGroups][kMaxRows<D>][kLanes<A>];  // filled on request
};

// The range [low, high] of a vector's indices, most often those at its ends.
template <class V>
STN_HD void index_range(const int32_t* index, int32_t& low, int32_t& high) {
  constexpr int L = kLanes<Scalar<V>>;
  int32_t first = index[0], last = index[L - 1];
#if defined(__x86_64__)
  // In general registers: GCC would go on with vectors, at several cycles per step.
  __asm__("" : "+r"(first), "+r"(last));
#endif
  low = std::min(first, last);
  high = std::max(first, last);
  const auto at = load_index<V>(index);
  if (all_lanes((at >= low) & (at <= high))) return;
  for (int k = 1; k < L - 1; ++k) {
    low = std::min(low, index[k]);
    high = std::max(high, index[k]);
  }
}

// The weights of the rows low, low + 1, ... for points whose first row is `first`. Every point has
// two rows, one below the other; of an axis of one pixel the second counts 0.
template <int Rows, class V>
STN_HD void spread(Integer<V> first, V upper_weight, V lower_weight, int rows,
                   Scalar<V> (&to)[Rows][kLanes<Scalar<V>>]) {
  Integer<V> above{}, row{};
  for (int k = 0; k < rows; ++k, row += 1) {
    const auto here = first == row;
    const V weight = here ? upper_weight : V{};
    store<kLanes<Scalar<V>>>(to[k], above ? lower_weight : weight);
    above = here;
  }
}

// Finds the window of group g; false if its points see too much.
template <bool Slopes, class A, int K, int D>
STN_HD bool find_window(const SampleParams& p, const TileTaps<A, K, D>& taps, int g,
                        WindowTile<A, D>& windows) {
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  const int i = g * L;
  int32_t low, high;
  index_range<V>(&taps.index[0][0][i], low, high);
  if (high - low > 2 * L - K) return false;
  const int32_t last = std::max<int32_t>(0, static_cast<int32_t>(p.input_size[0]) - 2 * L);
  windows.column[g] = std::min(low, last);
  int64_t start = windows.column[g];
  int rows_in_all = 1;
  for (int d = 1; d < D; ++d) {
    index_range<V>(&taps.index[d][0][i], low, high);
    const int block = d == 1 ? kRowBlock : 1;
    const int32_t rows = (high - low + K + block - 1) & -block;
    if (rows > kMaxRows<D> || rows > p.input_size[d]) return false;
    low = std::min(low, static_cast<int32_t>(p.input_size[d]) - rows);
    rows_in_all *= rows;
    start += low * p.input.stride[d];
    windows.rows[d - 1][g] = rows;
    windows.first[d - 1][g] = low;
    if constexpr (K == 2) {
      const auto first = load_index<V>(&taps.index[d][0][i]) - low;
      spread(first, load<V>(&taps.weight[d][0][i]), load<V>(&taps.weight[d][1][i]), rows,
             windows.weight[d - 1][g]);
      if (Slopes) {
        spread(first, load<V>(&taps.slope[d][0][i]), load<V>(&taps.slope[d][1][i]), rows,
               windows.slope[d - 1][g]);
      }
    }
  }
  windows.start[g] = start;
  return rows_in_all <= kMaxRowsOfVolume;
}

// Finds the windows of a tile, if it is padded for them. Whether all of its points have one.
template <bool Slopes, class A, int K, int D>
STN_HD bool find_windows(const SampleParams& p, const Tile<D>& tile, const TileTaps<A, K, D>& taps,
                         WindowTile<A, D>& windows) {
  const int groups = (tile.slots() + kLanes<A> - 1) / kLanes<A>;
  bool all = true;
  for (int g = 0; g < groups; ++g) {
    all &= windows.used[g] = kWindows && tile.padded && find_window<Slopes>(p, taps, g, windows);
  }
  return all;
}

// Calls f(first, last) for each run of slots without a window.
template <class A, int D, class F>
STN_HD void for_each_gap(const WindowTile<A, D>& windows, int slots, F&& f) {
  constexpr int L = kLanes<A>;
  for (int first = 0; first < slots; first += L) {
    if (windows.used[first / L]) continue;
    int last = first;
    while (last < slots && !windows.used[last / L]) last += L;
    f(first, std::min(last, slots));
    first = last;
  }
}

// Whether a window is wider than the image: nothing is read beyond the end of a row.
template <class A>
STN_HD bool is_narrow(const SampleParams& p) {
  return p.input_size[0] < 2 * kLanes<A>;
}

// The rows of group g: f(y, left, right) with the pixels left and right of every point in row y of
// its window; after each plane z, end(z).
template <bool Narrow, class Element, int K, int D, class F, class End>
STN_HD void for_each_row_seen(const SampleParams& p,
                              const TileTaps<Accumulate<Element>, K, D>& taps,
                              const WindowTile<Accumulate<Element>, D>& windows, int g,
                              const Element* plane, F&& f, End&& end) {
  using A = Accumulate<Element>;
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  const auto left = load_index<V>(&taps.index[0][0][g * L]) - windows.column[g];
  const auto right = left + 1;
  const int64_t stride = p.input.stride[1];
  const int first = std::min<int>(static_cast<int>(p.input_size[0]), L);
  const int second = static_cast<int>(p.input_size[0]) - first;
  const auto block = [&](int y, const Element* at) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int k = 0; k < kRowBlock; ++k) {
      const Element* row = at + k * stride;
      V low = Narrow ? load_pixels<V>(row, first) : load_pixels<V>(row);
      V high = Narrow ? load_pixels<V>(row + first, second) : load_pixels<V>(row + L);
      keep(low);
      keep(high);
      f(y + k, permute(low, high, left), permute(low, high, right));
    }
  };
  const Element* slice = plane + windows.start[g];
  // The same window of the next plane: planes are far apart, and nothing else announces them.
  for (int k = 0; k < kRowBlock; ++k) {
    __builtin_prefetch(slice + p.input.stride_c + k * stride);
  }
  const int depth = D == 3 ? windows.rows[D - 2][g] : 1;
  for (int z = 0; z < depth; ++z) {
    block(0, slice);
    for (int y = kRowBlock; y < windows.rows[0][g]; y += kRowBlock) block(y, slice + y * stride);
    end(z);
    if (D == 3) slice += p.input.stride[2];
  }
}

// The pixels that the points of group g are nearest to; zeros for those outside.
template <bool Narrow, class Element, int D>
STN_HD Native<Accumulate<Element>> window_values(const SampleParams& p,
                                                 const TileTaps<Accumulate<Element>, 1, D>& taps,
                                                 const WindowTile<Accumulate<Element>, D>& windows,
                                                 int g, const Element* plane) {
  using V = Native<Accumulate<Element>>;
  const int i = g * kLanes<Accumulate<Element>>;
  V weight = load<V>(&taps.weight[0][0][i]);
  for (int d = 1; d < D; ++d) weight *= load<V>(&taps.weight[d][0][i]);
  const auto row = load_index<V>(&taps.index[1][0][i]) - windows.first[0][g];
  const auto depth = load_index<V>(&taps.index[D - 1][0][i]) - windows.first[D - 2][g];
  V total{}, slice{};
  for_each_row_seen<Narrow, Element, 1, D>(
      p, taps, windows, g, plane,
      [&](int y, V pixel, V) __attribute__((always_inline)) { slice = row == y ? pixel : slice; },
      [&](int z) __attribute__((always_inline)) { total = depth == z ? slice : total; });
  return weight != 0 ? (D == 3 ? total : slice) : V{};
}

// The interpolated values of group g.
template <bool Narrow, class Element, int D>
STN_HD Native<Accumulate<Element>> window_values(const SampleParams& p,
                                                 const TileTaps<Accumulate<Element>, 2, D>& taps,
                                                 const WindowTile<Accumulate<Element>, D>& windows,
                                                 int g, const Element* plane) {
  using V = Native<Accumulate<Element>>;
  const int i = g * kLanes<Accumulate<Element>>;
  const V w0 = load<V>(&taps.weight[0][0][i]), w1 = load<V>(&taps.weight[0][1][i]);
  V total{}, slice{};
  for_each_row_seen<Narrow, Element, 2, D>(
      p, taps, windows, g, plane,
      [&](int y, V left, V right) __attribute__((always_inline)) {
        slice += load<V>(windows.weight[0][g][y]) * (w0 * left + w1 * right);
      },
      [&](int z) __attribute__((always_inline)) {
        if (D == 3) {
          total += load<V>(windows.weight[D - 2][g][z]) * slice;
          slice = V{};
        }
      });
  return D == 3 ? total : slice;
}

// Their derivatives with respect to the coordinates.
template <bool Narrow, class Element, int D>
STN_HD void window_gradient(const SampleParams& p, const TileTaps<Accumulate<Element>, 2, D>& taps,
                            const WindowTile<Accumulate<Element>, D>& windows, int g,
                            const Element* plane, Native<Accumulate<Element>> (&gradient)[D]) {
  using V = Native<Accumulate<Element>>;
  const int i = g * kLanes<Accumulate<Element>>;
  const V w0 = load<V>(&taps.weight[0][0][i]), w1 = load<V>(&taps.weight[0][1][i]);
  const V s0 = load<V>(&taps.slope[0][0][i]), s1 = load<V>(&taps.slope[0][1][i]);
  V x{}, y_{}, value{};
  for (int d = 0; d < D; ++d) gradient[d] = V{};
  for_each_row_seen<Narrow, Element, 2, D>(
      p, taps, windows, g, plane,
      [&](int y, V left, V right) __attribute__((always_inline)) {
        const V weight = load<V>(windows.weight[0][g][y]);
        const V row = w0 * left + w1 * right;
        x += weight * (s0 * left + s1 * right);
        y_ += load<V>(windows.slope[0][g][y]) * row;
        if (D == 3) value += weight * row;
      },
      [&](int z) __attribute__((always_inline)) {
        if (D == 3) {
          const V weight = load<V>(windows.weight[D - 2][g][z]);
          gradient[0] += weight * x;
          gradient[1] += weight * y_;
          gradient[D - 1] += load<V>(windows.slope[D - 2][g][z]) * value;
          x = y_ = value = V{};
        }
      });
  if (D == 2) {
    gradient[0] = x;
    gradient[1] = y_;
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
