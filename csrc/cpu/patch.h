// What a tile's points add to a planar image, four channels at a time, summed first in a patch: a
// small image of what the tile sees, whose channels lie next to each other. There, a point adds to
// two neighbouring pixels of a row in all four channels with one vector, where the image itself
// takes an addition for each channel. In the end the patch is added to the image.
#pragma once

#include "cpu/near.h"
#include "cpu/slab.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Pixels of a patch, at most: it has to stay in the L1 cache.
constexpr int kMostPatched = 896;

// The pixels that a tile's linear looks see, of an image that has two rows and more.
template <class A>
struct PatchBox {
  int32_t left, top;      // the first pixel
  int32_t width, height;  // of what is seen
  int32_t pitch;          // from row to row

  STN_SHARED PatchBox(const RunStarts<A, 2, 2>& runs, int count, int64_t stride) {
    int32_t low[2] = {INT32_MAX, INT32_MAX}, high[2] = {INT32_MIN, INT32_MIN};
    const int32_t row = static_cast<int32_t>(stride);
    for (int i = 0; i < count; ++i) {
      const int32_t y = runs.outermost[i], x = runs.offset[i] - y * row;
      low[0] = low[0] < x ? low[0] : x;
      high[0] = high[0] > x ? high[0] : x;
      low[1] = low[1] < y ? low[1] : y;
      high[1] = high[1] > y ? high[1] : y;
    }
    left = low[0];
    top = low[1];
    width = high[0] - low[0] + 2;
    height = high[1] - low[1] + 2;
    pitch = (width + 3) / 4 * 4;
  }

  // Whether there is room for it, and so many points that it gains: a pixel of the patch takes two
  // fifths of the time that a point saves; less where rows of the image are `crowded`, so far apart
  // that they meet in the same places of a cache (measured, benchmarks/README.md).
  STN_HD bool pays(int points, bool crowded) const {
    if (pitch > kMostPatched || height > kMostPatched) return false;
    const int pixels = pitch * height;
    return pixels <= kMostPatched && 2 * pixels <= (crowded ? 7 : 5) * points;
  }
};

// Where the points add, and how heavily, whatever the channels.
template <class A>
struct alignas(64) PatchPoints {
  int32_t offset[kRoom];                   // of the first pixel's first channel in the patch
  A across[kRoom + 4][2], down[kRoom][2];  // (read as eight at a time)

  STN_SHARED PatchPoints(const PatchBox<A>& box, const RunStarts<A, 2, 2>& runs, int count,
                         int64_t stride, int32_t second) {
    using V = Native<A>;
    constexpr int L = kLanes<A>;
    const int32_t row = static_cast<int32_t>(stride);
    for (int i = 0; i < count; ++i) {
      const int32_t y = runs.outermost[i] - box.top;
      const int32_t x = runs.offset[i] - runs.outermost[i] * row - box.left;
      offset[i] = (y * box.pitch + (x & ~1)) * kPatchChannels + (x & 1) * second;
    }
    const Integer<V> lane = truncate(counting<V>());
    const Integer<V> low = lane / 2 + (lane & 1) * L, high = low + L / 2;
    for (int i = 0; i < count; i += L) {
      const auto pairs = [&](int d, A(*to)[2]) __attribute__((always_inline)) {
        const V distance = load<V>(&runs.distance[d][i]);
        const V first = kernel<2>(distance), second = kernel<2>(V(distance - runs.step[d]));
        store<L>(to[i], select_lanes(first, second, low));
        store<L>(to[i + L / 2], select_lanes(first, second, high));
      };
      pairs(0, across);
      pairs(1, down);
    }
  }
};

// Planar numbers of four channels to those that lie next to each other: a vector of points.
template <class A>
STN_HD void interleave(const Native<A> (&of)[kPatchChannels], A* to) {
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  if constexpr (L < kPatchChannels) {
    for (int i = 0; i < L; ++i) {
      for (int c = 0; c < kPatchChannels; ++c) to[i * kPatchChannels + c] = of[c][i];
    }
  } else {
    const Integer<V> lane = truncate(counting<V>());
    V pair[2][2];  // of channels, of points
    for (int c = 0; c < 2; ++c) {
      for (int half = 0; half < 2; ++half) {
        pair[c][half] = select_lanes(of[2 * c], of[2 * c + 1],
                                     Integer<V>((lane & 1) * L + lane / 2 + half * (L / 2)));
      }
    }
    for (int m = 0; m < kPatchChannels; ++m) {
      const int half = m / 2;
      const Integer<V> at = (lane / 4 + m % 2 * (L / 4)) * 2 + (lane & 1) + (lane & 2) / 2 * L;
      store<L>(to + m * L, select_lanes(pair[0][half], pair[1][half], at));
    }
  }
}

// A tile's values in C planes, which lie next to each other then. Tells which channels are finite.
template <int C, class Element, int D, class A = Accumulate<Element>>
STN_HD void load_together(const Tile<D>& tile, const Element* plane, const int64_t (&stride)[3],
                          int64_t stride_c, A* to, bool (&finite)[C]) {
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  V none[C];
  for (V& v : none) v = V{};
  const auto put = [&](int slot, V(&of)[kPatchChannels]) __attribute__((always_inline)) {
    for (int c = 0; c < C; ++c) none[c] += of[c] - of[c];
    interleave<A>(of, to + slot * kPatchChannels);
  };
  if (stride[0] == 1) {
    tile.for_each_row([&](int slot, const int32_t (&p)[D]) {
      const Element* row = plane + offset_of<D>(p, stride);
      for (int j = 0; j < tile.pitch; j += L) {
        const int left = std::max(0, tile.width - j);
        V of[kPatchChannels] = {};
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) {
          const Element* from = row + c * stride_c + j;
          __builtin_prefetch(from + tile.ahead(stride));
          of[c] = left >= L ? load_pixels<V>(from) : load_pixels<V>(from, left);
        }
        put(slot + j, of);
      }
    });
  } else {
    alignas(64) A values[C][kRoom] = {};
    for (int c = 0; c < C; ++c) load_tile(tile, plane + c * stride_c, stride, values[c]);
    for (int i = 0; i < tile.slots(); i += L) {
      V of[kPatchChannels] = {};
      for (int c = 0; c < C; ++c) of[c] = load<V>(values[c] + i);
      put(i, of);
    }
  }
  for (int c = 0; c < C; ++c) finite[c] = !any_nan(none[c], none[c]);
}

// The same of image n from channel c on, whatever its elements are.
template <int C, class A, int D>
STN_SHARED void load_together(const Tile<D>& tile, const Image& image, int64_t n, int64_t c, A* to,
                              bool (&finite)[C]) {
  with_element(image.type, [&](auto element) {
    using Element = decltype(element);
    if constexpr (std::is_same<Accumulate<Element>, A>::value) {
      load_together(tile, plane_of<const Element>(image, n, c), image.stride, image.stride_c, to,
                    finite);
    }
  });
}

// From numbers that lie next to each other to planar ones: a vector of pixels.
template <class A>
STN_HD void part_channels(const Native<A> (&of)[kPatchChannels], Native<A> (&to)[kPatchChannels]) {
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  const Integer<V> lane = truncate(counting<V>());
  V pair[2][2];
  for (int c = 0; c < 2; ++c) {
    for (int half = 0; half < 2; ++half) {
      const Integer<V> at = lane % (L / 2) * kPatchChannels + lane / (L / 2) + 2 * c;
      pair[c][half] = select_lanes(of[2 * half], of[2 * half + 1], at);
    }
  }
  for (int c = 0; c < kPatchChannels; ++c) {
    const Integer<V> at = lane % (L / 2) + c % 2 * (L / 2) + lane / (L / 2) * L;
    to[c] = select_lanes(pair[c / 2][0], pair[c / 2][1], at);
  }
}

// Two neighbouring pixels of four channels, wherever they stand.
template <class A>
struct PixelsOf {
  static constexpr int kBytes = 2 * kPatchChannels * sizeof(A);
  typedef A type __attribute__((vector_size(kBytes), may_alias));
  typedef A unaligned __attribute__((vector_size(kBytes), aligned(sizeof(A)), may_alias));

  // What one point's values add to them, but for the row's weight. (In place: as a value, it would
  // be passed in registers that not every processor has.)
  STN_HD static void weigh(const A* values, const A (&across)[2], type& value) {
    type weight;
    std::memcpy(&value, values, sizeof value);
    std::memcpy(&weight, across, sizeof weight);
    select<0, 1, 2, 3, 0, 1, 2, 3>(value);
    select<0, 0, 0, 0, 1, 1, 1, 1>(weight);
    value *= weight;
  }

 private:
  typedef std::conditional_t<sizeof(A) == 4, int32_t, int64_t> I;
  typedef I Lanes __attribute__((vector_size(8 * sizeof(I))));

  template <I... Lane>
  STN_HD static void select(type& v) {
#if defined(__clang__)
    v = __builtin_shufflevector(v, v, Lane...);
#else
    v = __builtin_shuffle(v, Lanes{Lane...});
#endif
  }
};

// A tile's patch. There are two of it: pairs of pixels that begin at an even column are added to
// the first, the others to the second, in which all pixels stand one further to the left. So a pair
// is aligned, and what was just added to it is had at once, where a pair that shares one pixel with
// it would have to wait.
template <class A>
struct alignas(64) Patch {
  static constexpr int kSize = kMostPatched * kPatchChannels;
  using Pair = typename PixelsOf<A>::type;

  A of[2 * kSize + 64 / sizeof(A) + kLanes<A> * kPatchChannels];  // (read past the end)

  // How far behind the first the second is.
  STN_HD static int32_t second(const PatchBox<A>& box) {
    return box.pitch * box.height * kPatchChannels + 64 / sizeof(A);
  }

  STN_SHARED void clear(const PatchBox<A>& box) {
    const int32_t end = second(box) + box.pitch * box.height * kPatchChannels;
    for (int i = 0; i < end; i += kLanes<A>) store<kLanes<A>>(of + i, Native<A>{});
  }

  // values: point by point, their channels next to each other.
  STN_SHARED void add(const PatchBox<A>& box, const PatchPoints<A>& points, const A* values,
                      int count) {
    const int32_t row = box.pitch * kPatchChannels;
    for (int i = 0; i < count; ++i) {
      A* at = of + points.offset[i];
      Pair value;
      PixelsOf<A>::weigh(values + i * kPatchChannels, points.across[i], value);
      Pair& above = *reinterpret_cast<Pair*>(at);
      Pair& below = *reinterpret_cast<Pair*>(at + row);
      above += value * points.down[i][0];
      below += value * points.down[i][1];
    }
  }

  // Adds rows and channels to the image: those in the slab.
  template <int C>
  STN_SHARED void give(const PatchBox<A>& box, const Slab<A>& slab, A* plane) const {
    using V = Native<A>;
    constexpr int L = kLanes<A>;
    const int from = std::max(0, slab.low - box.top);
    const int to = std::min(box.height, slab.high - box.top);
    const int64_t stride_c = slab.stride_c;
    const int width = box.width, pitch = box.pitch * kPatchChannels, behind = second(box);
    A* row = plane + (box.top + from) * slab.stride[1] + box.left;
    for (int y = from; y < to; ++y, row += slab.stride[1]) {
      const A* first = of + y * pitch;
      A* pixels = row;
      for (int x = 0; x < width; x += L, pixels += L, first += L * kPatchChannels) {
        const A* other = first + behind - kPatchChannels;
        V seen[kPatchChannels], channel[kPatchChannels];
        for (int k = 0; k < kPatchChannels; ++k) {
          seen[k] = load<V>(first + k * L) + load<V>(other + k * L);
        }
        part_channels<A>(seen, channel);
        const int lanes = std::min(L, width - x);
        A* at = pixels;
        for (int c = 0; c < C; ++c, at += stride_c) {
          store_pixels(at, V(load_some<V>(at, lanes) + channel[c]), lanes);
        }
      }
    }
  }
};

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
