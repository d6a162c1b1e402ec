// Linear splat onto a slab whose planes are woven, four channels of a pixel next to each other
// (cpu/woven.h), which is unwoven in the end: a point adds to two neighbouring pixels of a row in
// all four with one vector. A patch (cpu/patch.h), which is a small image of what one tile sees,
// does the same where so large a slab would not be (cpu/weaving.h).
#pragma once

#include "cpu/splat_tile.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// How heavily the points of a tile add, whatever the channels.
template <class A, int D>
struct alignas(64) WovenWeights {
  static constexpr int kRows = RunStarts<A, 2, D>::kRows;
  A across[kRoom + 4][2];  // (read as eight at a time)
  A row[kRows][kRoom];

  STN_SHARED WovenWeights(const RunStarts<A, 2, D>& runs, int slots) {
    using V = Native<A>;
    constexpr int L = kLanes<A>;
    const Integer<V> lane = truncate(counting<V>());
    const Integer<V> low = lane / 2 + (lane & 1) * L, high = low + L / 2;
    for (int i = 0; i < slots; i += L) {
      V weight[D][2];
      for (int d = 0; d < D; ++d) {
        const V distance = load<V>(&runs.distance[d][i]);
        weight[d][0] = kernel<2>(distance);
        weight[d][1] = kernel<2>(V(distance - runs.step[d]));
      }
      store<L>(across[i], select_lanes(weight[0][0], weight[0][1], low));
      store<L>(across[i + L / 2], select_lanes(weight[0][0], weight[0][1], high));
      for (int r = 0; r < kRows; ++r) {
        V of_row = weight[1][r & 1];
        if (D == 3) of_row *= weight[D - 1][r >> 1];
        store<L>(&row[r][i], of_row);
      }
    }
  }
};

// Adds the points in order to four channels that begin at `block`.
template <bool Inside, class A, int D>
__attribute__((noinline)) void add_woven(const Slab<A>& slab, A* block, const Order& order,
                                         const RunStarts<A, 2, D>& runs,
                                         const WovenWeights<A, D>& weights, const A* values) {
  using Pixels = PixelsOf<A>;
  constexpr int R = RunStarts<A, 2, D>::kRows;
  int64_t row[R];
  for (int r = 0; r < R; ++r) row[r] = runs.row[r] * kPatchChannels;
  for (const uint16_t *slot = order.slot, *end = slot + order.count; slot != end; ++slot) {
    const size_t i = *slot;
    const int32_t outermost = Inside ? 0 : runs.outermost[i];
    A* at = block + int64_t(runs.offset[i]) * kPatchChannels;
    typename Pixels::type value;
    Pixels::weigh(values + i * kPatchChannels, weights.across[i], value);
    for (int r = 0; r < R; ++r) {
      const int32_t here = outermost + (r >> (D - 2));
      if (!Inside && (here < slab.low || here >= slab.high)) continue;
      auto& pixels = *reinterpret_cast<typename Pixels::unaligned*>(at + row[r]);
      pixels += value * weights.row[r][i];
    }
  }
}

// The points of an order that see a slab.
template <class A, int D>
STN_HD void keep_order(const Slab<A>& slab, const RunStarts<A, 2, D>& runs, const Order& all,
                       Order& kept) {
  const int32_t low = slab.low - 1, high = slab.high;
  int count = 0;
  for (int k = 0; k < all.count; ++k) {
    const uint16_t i = all.slot[k];
    kept.slot[count] = i;
    count += (runs.outermost[i] >= low) & (runs.outermost[i] < high);
  }
  kept.count = count;
}

// Adds one tile of output n into the slab's channels, of which the first is first_channel. False,
// and nothing is done, where the image wraps under one of its points.
template <class A, class T, int D>
bool splat_woven(const SampleParams& p, const Slab<A>& slab, const Spread& spread, Zeros<A>& zeros,
                 int64_t warp, const Tile<D>& tile, const Looks<T, D>& looks, Order& order,
                 int64_t n, int64_t first_channel, int64_t channels) {
  const int slots = tile.slots();
  RunStarts<A, 2, D> runs;
  find_runs<true>(p, looks, slots, runs);
  if (any_needs_room<2>(looks.frame) && !runs.all_whole(slots)) return false;
  Touched touched;
  touched.add(runs.outermost, p.input_size[D - 1] > 1 ? 1 : 0, slots);
  if (!touched.any_in(slab)) {
    took(Path::splat_elsewhere);
    return true;
  }
  took(Path::splat_woven);
  zeros.reach(touched);
  order.fit(spread.scattered, tile.width, tile.rows, tile.pitch);
  const bool inside = touched.all_in(slab);
  Order kept;
  if (!inside) keep_order(slab, runs, order, kept);
  const WovenWeights<A, D> weights(runs, slots);
  alignas(64) A together[(kRoom + 1) * kPatchChannels];
  for_each_channel_block<kPatchChannels>(channels, [&](auto block, int64_t c) {
    constexpr int C = decltype(block)::value;
    bool finite[C];
    load_together(tile, p.output, n, first_channel + c, together, finite);
    for (int k = 0; k < C; ++k) {
      for (int i = 0; !finite[k] && i < slots; ++i) together[i * kPatchChannels + k] = 0;
    }
    inside ? add_woven<true>(slab, slab.plane(c), order, runs, weights, together)
           : add_woven<false>(slab, slab.plane(c), kept, runs, weights, together);
    for (int k = 0; k < C; ++k) {
      if (finite[k]) continue;
      alignas(64) A values[kRoom];
      load_tile(tile, p.output, n, first_channel + c + k, values);
      splat_not_finite<false>(p, warp, tile, looks, slab, slab.plane(c + k), values);
    }
  });
  return true;
}

// Blocks of so many planes.
STN_HD int64_t woven_blocks(int64_t planes) {
  return (planes + kPatchChannels - 1) / kPatchChannels;
}

// The strides of such sums. Rows and planes of a power of two would be in each other's way in the
// L1 cache.
template <int D>
STN_HD void woven_strides(const int64_t (&size)[3], int64_t (&stride)[3]) {
  constexpr int64_t kMeet = 1024, kApart = 16;
  stride[0] = kPatchChannels;
  for (int d = 1; d < 3; ++d) {
    stride[d] = stride[d - 1] * (d <= D ? size[d - 1] : 1);
    if (stride[d] % kMeet == 0) stride[d] += kApart;
  }
}

// Writes so many pixels that lie next to each other to C planes.
template <int C, class Element, class A>
STN_HD void unweave_run(const A* from, int64_t count, int64_t stride_c, Element* planes) {
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  for (int64_t i = 0; i < count; i += L) {
    V sums[kPatchChannels], channel[kPatchChannels];
    for (int k = 0; k < kPatchChannels; ++k) {
      sums[k] = load<V>(from + i * kPatchChannels + k * L);  // (past the end: there is room)
    }
    part_channels<A>(sums, channel);
    const int lanes = static_cast<int>(std::min<int64_t>(L, count - i));
#pragma GCC unroll 4
    for (int k = 0; k < C; ++k) store_pixels(planes + k * stride_c + i, channel[k], lanes);
  }
}

// Writes a slab's sums to the planes of an image that is in one piece.
template <class Element, int D>
void unweave(const SampleParams& p, const Slab<Accumulate<Element>>& slab, int64_t n,
             int64_t first_channel, int64_t channels) {
  const int64_t width = p.input_size[0], height = D == 3 ? p.input_size[1] : 1;
  const bool rows = slab.stride[1] > kPatchChannels * width;
  const int64_t inner = width * height;
  for_each_channel_block<kPatchChannels>(channels, [&](auto block, int64_t c) {
    constexpr int C = decltype(block)::value;
    for (int64_t k = slab.low; k < slab.high; ++k) {
      const auto* from = slab.plane(c) + k * slab.stride[D - 1];
      Element* to = plane_of<Element>(p.input, n, first_channel + c) + k * inner;
      const int64_t length = rows ? width : inner;
      for (int64_t y = 0; y * length < inner; ++y) {
        unweave_run<C>(from + y * slab.stride[1], length, p.input.stride_c, to + y * length);
      }
    }
  });
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
