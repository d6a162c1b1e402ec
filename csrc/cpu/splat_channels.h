// What a tile's points add to an image whose channels lie next to each other: vectors of channels.
#pragma once

#include "cpu/ahead.h"
#include "cpu/slab.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// One vector addition per tap, of the channels [first, last) of point i. A tap of weight 0 gets
// nothing, whatever the value.
template <class Element, int K, int D, class Weighted>
STN_HD void add_channels(const Slab<Accumulate<Element>>& slab, const Weighted& weighted, int i,
                         const Element* value, int first, int last) {
  using A = Accumulate<Element>;
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  const auto& taps = weighted.taps;
  for (int kz = 0; kz < (D == 3 ? K : 1); ++kz) {
    for (int ky = 0; ky < K; ++ky) {
      const int32_t outermost = taps.index[D - 1][D == 3 ? kz : ky][i];
      if (outermost < slab.low || outermost >= slab.high) continue;
      A* row = slab.data + taps.index[1][ky][i] * slab.stride[1] +
               (D == 3 ? taps.index[D - 1][kz][i] * slab.stride[2] : 0);
      for (int kx = 0; kx < K; ++kx) {
        const A w = weighted.weight(kx, ky, kz, i);
        if (w == 0) continue;
        A* at = row + taps.index[0][kx][i] * slab.stride[0];
        int c = first;
        for (; c + L <= last; c += L) {
          store<L>(at + c, V(load<V>(at + c) + w * load_pixels<V>(value + c)));
        }
        if (c < last) {
          const int left = last - c;
          const V sum = load_pixels<V>(at + c, left) + w * load_pixels<V>(value + c, left);
          store_pixels(at + c, sum, left);
        }
      }
    }
  }
}

// Calls f(i, value) for each point, whose channels begin at value; those of later ones are
// announced.
template <class Element, int D, class F>
STN_HD void for_each_pixel(const SampleParams& p, const Tile<D>& tile, const Element* values,
                           int64_t channels, F&& f) {
  const int64_t bytes = channels * static_cast<int64_t>(sizeof(Element));
  const int64_t step = p.output.stride[0];
  tile.for_each_row([&](int slot, const int32_t (&at)[D]) __attribute__((always_inline)) {
    const Element* value = values + offset_of<D>(at, p.output.stride);
    for (int j = 0; j < tile.width; ++j, value += step) {
      announce_run(value + kPointsAhead * step, bytes);
      f(slot + j, value);
    }
  });
}

// The vectors of channels of which four pixels stay in registers.
constexpr int kHeldVectors = STN_VECTOR_BYTES == 64 ? 4 : 2;

// Linear looks, N vectors of channels from channel c on: the pixels that a point adds to stay in
// registers, since the next one mostly adds to those on its right, too. (Loads and stores of the
// same pixels are what limits the additions one by one. Each pixel's additions keep their order.)
template <class Element, int N, int D, class Weighted>
STN_SHARED void splat_held(const SampleParams& p, const Slab<Accumulate<Element>>& slab,
                           const Tile<D>& tile, const Weighted& weighted, const Element* values,
                           int c) {
  using A = Accumulate<Element>;
  using V = Native<A>;
  constexpr int L = kLanes<A>, R = D == 3 ? 4 : 2;
  const auto& taps = weighted.taps;
  const int64_t step = slab.stride[0];
  int64_t row[R];
  for (int r = 0; r < R; ++r) row[r] = (r & 1) * slab.stride[1] + (r >> 1) * slab.stride[D - 1];
  V left[R][N] = {}, right[R][N] = {};
  A* held = nullptr;  // the first row's left pixel, from channel c on
  const auto load_column = [&](const A* at, V(&column)[R][N]) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) column[r][v] = load<V>(at + row[r] + v * L);
    }
  };
  const auto store_column = [&](A* at, const V(&column)[R][N]) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) store<L>(at + row[r] + v * L, column[r][v]);
    }
  };
  const auto let_go = [&]() __attribute__((always_inline)) {
    if (!held) return;
    store_column(held, left);
    store_column(held + step, right);
    held = nullptr;
  };
  const auto add = [&](int i, const Element* value) __attribute__((always_inline)) {
    A weight[R][2];
    bool whole = taps.index[D - 1][0][i] >= slab.low && taps.index[D - 1][1][i] < slab.high;
    A* at = slab.data + c;
    for (int d = 0; d < D; ++d) {
      whole &= taps.index[d][1][i] == taps.index[d][0][i] + 1;
      at += taps.index[d][0][i] * slab.stride[d];
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int k = 0; k < 2; ++k) {
        weight[r][k] = weighted.weight(k, r & 1, r >> 1, i);
        whole &= weight[r][k] != 0;
      }
    }
    if (!whole) {
      let_go();
      return add_channels<Element, 2, D>(slab, weighted, i, value - c, c, c + N * L);
    }
    if (held && at == held + step) {
      store_column(held, left);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < N; ++v) left[r][v] = right[r][v];
      }
      load_column(at + step, right);
    } else if (at != held) {
      let_go();
      load_column(at, left);
      load_column(at + step, right);
    }
    held = at;
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) {
      const V one = load_pixels<V>(value + v * L);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        left[r][v] += weight[r][0] * one;
        right[r][v] += weight[r][1] * one;
      }
    }
  };
  for_each_pixel(p, tile, values + c, N * L, add);
  let_go();
}

// All channels.
template <class Element, int K, int D, class Weighted>
STN_SHARED void splat_channels(const SampleParams& p, const Slab<Accumulate<Element>>& slab,
                               const Tile<D>& tile, const Weighted& weighted, const Element* values,
                               int channels) {
  int c = 0;
  if constexpr (K == 2) {
    constexpr int L = kLanes<Accumulate<Element>>, N = kHeldVectors / (D == 3 ? 2 : 1);
    for (; c + N * L <= channels; c += N * L) {
      splat_held<Element, N>(p, slab, tile, weighted, values, c);
    }
    for (; c + L <= channels; c += L) splat_held<Element, 1>(p, slab, tile, weighted, values, c);
    if (c > 0) took(Path::splat_held);
  }
  if (c == channels) return;
  const auto add = [&](int i, const Element* value) __attribute__((always_inline)) {
    add_channels<Element, K, D>(slab, weighted, i, value - c, c, channels);
  };
  for_each_pixel(p, tile, values + c, channels - c, add);
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
