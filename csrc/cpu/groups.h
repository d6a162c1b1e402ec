// A tile's slots as groups: vectors of neighbouring points, and where they stand in the output.
#pragma once

#include <type_traits>

#include "cpu/gather.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Channels that are computed together: their sums stay in registers.
constexpr int kChannelBlock = 4;

// The same where weights are dear beside what is done with a pixel, and registers many: measured,
// benchmarks/README.md.
template <int K, int D>
constexpr int kWideBlock = K == 2 && D == 2 && STN_VECTOR_BYTES == 64 ? 8 : kChannelBlock;

// Where the groups of a padded tile, or its blocks, stand in a plane of the output.
template <class A, int D>
struct Groups {
  static constexpr int L = kLanes<A>;
  int count;
  int64_t stride, stride_y;
  int64_t offset[kRoom / L];
  int32_t lanes[kRoom / L];  // that are points, not padding; of blocks, the columns
  int32_t rows[kRoom / L];   // of blocks
  int64_t ahead;             // of the next tile
  int32_t at_once;  // the points of a group that is simply stored: not past the caches, all lanes
  bool blocks;

  STN_HD Groups(const Tile<D>& tile, const int64_t (&strides)[3], bool stream = false)
      : count(tile.slots() / L),
        stride(strides[0]),
        stride_y(strides[1]),
        ahead(tile.ahead(strides)),
        at_once(stream && tile.block == 0 ? -1 : L),
        blocks(tile.block > 0) {
    if constexpr (D == 2) {
      if (blocks) {
        tile.for_each_block([&](int slot, const int32_t (&p)[2], int columns, int below) {
          offset[slot / L] = offset_of<D>(p, strides);
          lanes[slot / L] = columns;
          rows[slot / L] = below;
        });
        return;
      }
    }
    int64_t* at = offset;
    int32_t* of = lanes;
    tile.for_each_row([&](int, const int32_t (&p)[D]) {
      int64_t from = offset_of<D>(p, strides);
      int left = tile.width;
      for (int j = 0; j < tile.pitch; j += L) {
        *at++ = from;
        *of++ = std::max(0, std::min(L, left));
        from += L * stride;
        left -= L;
        __asm__("" : "+r"(from));  // no vectors, which take longer over so few numbers
      }
    });
  }

  STN_HD int slots() const { return count * L; }

  template <class Element>
  STN_HD Native<A> load(int g, const Element* plane) const {
    const Element* from = plane + offset[g];
    if (blocks) {
      // (Blocks side by side announce a row each.)
      __builtin_prefetch(from + ahead + g % kBlockRows<A> * stride_y);
      return load_block<Native<A>>(from, stride_y, lanes[g], rows[g]);
    }
    if (stride == 1) {
      __builtin_prefetch(from + ahead);
      return lanes[g] == L ? load_pixels<Native<A>>(from) : load_pixels<Native<A>>(from, lanes[g]);
    }
    Native<A> v{};
    for (int k = 0; k < lanes[g]; ++k) v[k] = to_float(from[k * stride]);
    return v;
  }

  // A group's values in planes `stride_c` apart; of points next to each other only. (The usual
  // case is kept short: how many instructions there are is what limits the loops around it.)
  template <class Element, int C>
  STN_HD void store(int g, const Native<A> (&v)[C], Element* plane, int64_t stride_c) const {
    Element* to = plane + offset[g];
    const int points = blocks ? lanes[g] * rows[g] : lanes[g];
    if (__builtin_expect(points != at_once, 0)) {
      Native<A> others[C];  // a copy: v itself is to stay in registers
      for (int k = 0; k < C; ++k) others[k] = v[k];
      return blocks ? store_parts(lanes[g], rows[g], others, to, stride_c)
                    : store_others(lanes[g], others, to, stride_c);
    }
    if (blocks) {
#pragma GCC unroll 8
      for (int k = 0; k < C; ++k) {
        store_block(to + k * stride_c, stride_y, v[k], kBlockColumns, kBlockRows<A>);
      }
      return;
    }
#pragma GCC unroll 8
    for (int k = 0; k < C; ++k) store_pixels(to + k * stride_c, v[k], L);
  }

 private:
  template <class Element, int C>
  STN_SHARED void store_others(int32_t count, const Native<A> (&v)[C], Element* to,
                               int64_t stride_c) const {
    for (int k = 0; k < C; ++k, to += stride_c) {
      if (kStreams<Element> && count == L) {
        stream_pixels(to, v[k]);
      } else {
        store_pixels(to, v[k], count);
      }
    }
  }

  // Of a block.
  template <class Element, int C>
  STN_SHARED void store_parts(int32_t columns, int32_t below, const Native<A> (&v)[C], Element* to,
                              int64_t stride_c) const {
    for (int k = 0; k < C; ++k) store_block(to + k * stride_c, stride_y, v[k], columns, below);
  }
};

// f(count, c) for blocks of up to Most channels that begin at c; the count is a constant of its
// type.
template <int Most = kChannelBlock, class F>
STN_HD void for_each_channel_block(int64_t channels, F&& f) {
  int64_t c = 0;
  for (; c + Most <= channels; c += Most) f(std::integral_constant<int, Most>{}, c);
  if constexpr (Most > 1) {
    if (channels > c) {
      constexpr int fewer = Most > kChannelBlock ? kChannelBlock : Most - 1;
      for_each_channel_block<fewer>(channels - c, [&](auto count, int64_t k) { f(count, c + k); });
    }
  }
}

// The same, of no more than about so many together.
template <int Most = kChannelBlock, class F>
STN_HD void for_each_channel_block(int together, int64_t channels, F&& f) {
  if constexpr (Most > 1) {
    if (together < Most && together < channels) {
      return for_each_channel_block<Most / 2>(together, channels, f);
    }
  }
  for_each_channel_block<Most>(channels, f);
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
