// Reading the image at a tile's taps, for the image layouts that matter.
#pragma once

#include "cpu/looks.h"
#include "cpu/pixels.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

enum class Layout {
  planar,    // rows of consecutive pixels: a row's taps are one load
  channels,  // consecutive channels: vectors of channels per tap
  strided    // anything else
};

// Whether the image's offsets inside a plane fit 32 bits.
template <int D>
STN_HD bool fits_int32(const SampleParams& p) {
  int64_t last = 0;
  for (int d = 0; d < D; ++d) last += (p.input_size[d] - 1) * p.input.stride[d];
  return last < (int64_t(1) << 31) - 1;
}

template <int K, int D>
STN_HD Layout layout_of(const SampleParams& p) {
  if (has_channels_inside(p)) return Layout::channels;
  if (p.input.stride[0] == 1 && p.input_size[0] >= K && fits_int32<D>(p)) return Layout::planar;
  return Layout::strided;
}

// The pointer of image n, channel c.
template <class Element>
STN_HD Element* plane_of(const Image& image, int64_t n, int64_t c) {
  return static_cast<Element*>(image.data) + n * image.stride_n + c * image.stride_c;
}

// What the box is in the channels [c, c + count) of image n.
template <class Element, int D>
STN_HD void announce(const SampleParams& p, const Box<D>& box, int64_t n, int64_t c, int count) {
  for (int k = 0; k < count; ++k) {
    box.announce(p.input.stride, plane_of<const Element>(p.input, n, c + k));
  }
}

// One output value, tap by tap, in any layout; taps of weight 0 are not read.
template <class Element, int K, int D>
STN_HD Accumulate<Element> interpolate(const Element* plane, const int64_t (&stride)[3],
                                       const TileTaps<Accumulate<Element>, K, D>& taps, int i) {
  using A = Accumulate<Element>;
  A sum = 0;
  for (int kz = 0; kz < (D == 3 ? K : 1); ++kz) {
    const A wz = D == 3 ? taps.weight[D - 1][kz][i] : A(1);
    const int64_t z = D == 3 ? taps.index[D - 1][kz][i] * stride[2] : 0;
    for (int ky = 0; ky < K; ++ky) {
      const A wzy = wz * taps.weight[1][ky][i];
      const int64_t row = z + taps.index[1][ky][i] * stride[1];
      for (int kx = 0; kx < K; ++kx) {
        const A w = wzy * taps.weight[0][kx][i];
        if (w != 0) sum += w * to_float(plane[row + taps.index[0][kx][i] * stride[0]]);
      }
    }
  }
  return sum;
}

// Announces the planes of an image that the points of so many tiles, scattered over it, see next:
// in order, which is quicker than a miss now and then. If they stay in the L2 cache, and the points
// are enough to see most of them.
template <class Element>
STN_HD void announce_plane(const SampleParams& p, BatchRange images, int64_t tiles) {
  constexpr int64_t kCache = int64_t(1) << 20;
  const int64_t pixels = points(p.input_size, p.dims);
  const int64_t plane = pixels * static_cast<int64_t>(sizeof(Element));
  int64_t length = 1;
  bool in_one = true;
  for (int d = 0; d < p.dims; ++d) {
    in_one &= p.input.stride[d] == length;
    length *= p.input_size[d];
  }
  if (images.end - images.begin > 1 || !in_one) return;
  if (plane > kCache || 2 * plane <= kCache || p.channels > 1) return;
  if (4 * tiles * kTile < pixels) return;
  took(Path::plane_announced);
  announce_run(plane_of<const Element>(p.input, images.begin, 0), plane);
}

// The tile's values in one plane of the output, in the accumulation type; zeros in the padding.
template <class Element, int D>
STN_HD void load_tile(const Tile<D>& tile, const Element* plane, const int64_t (&stride)[3],
                      Accumulate<Element> (&values)[kRoom]) {
  using A = Accumulate<Element>;
  if constexpr (D == 2) {
    if (tile.block > 0) {
      return tile.for_each_block([&](int slot, const int32_t (&p)[2], int columns, int rows) {
        const Element* from = plane + offset_of<D>(p, stride);
        store<kLanes<A>>(values + slot, load_block<Native<A>>(from, stride[1], columns, rows));
      });
    }
  }
  tile.for_each_row([&](int slot, const int32_t (&p)[D]) {
    const Element* row = plane + offset_of<D>(p, stride);
    A* to = values + slot;
    if (stride[0] == 1) {
      int j = 0;
      for (; j < tile.width; j += kLanes<A>) {
        const int left = tile.width - j;
        __builtin_prefetch(row + j + tile.ahead(stride));
        store<kLanes<A>>(to + j, left >= kLanes<A> ? load_pixels<Native<A>>(row + j)
                                                   : load_pixels<Native<A>>(row + j, left));
      }
      for (; j < tile.pitch; j += kLanes<A>) store<kLanes<A>>(to + j, Native<A>{});
      return;
    }
    for (int j = 0; j < tile.width; ++j) to[j] = to_float(row[j * stride[0]]);
    for (int j = tile.width; j < tile.pitch; ++j) to[j] = 0;
  });
}

// The same in image n, channel c, whatever its elements are.
template <class A, int D>
STN_SHARED void load_tile(const Tile<D>& tile, const Image& image, int64_t n, int64_t c,
                          A (&values)[kRoom]) {
  with_element(image.type, [&](auto element) {
    using Element = decltype(element);
    if constexpr (std::is_same<Accumulate<Element>, A>::value) {
      load_tile(tile, plane_of<const Element>(image, n, c), image.stride, values);
    }
  });
}

// Writes the values of the slots [first, last) into one plane of the output.
template <class Element, int D>
STN_HD void store_tile(const Tile<D>& tile, const Accumulate<Element>* values, int first, int last,
                       Element* plane, const int64_t (&stride)[3]) {
  using V = Native<Accumulate<Element>>;
  constexpr int L = kLanes<Accumulate<Element>>;
  if constexpr (D == 2) {
    if (tile.block > 0) {
      return tile.for_each_block([&](int slot, const int32_t (&p)[2], int columns, int rows) {
        if (slot < first || slot >= last) return;
        const V value = load<V>(values + slot);
        store_block(plane + offset_of<D>(p, stride), stride[1], value, columns, rows);
      });
    }
  }
  tile.for_each_row([&](int slot, const int32_t (&p)[D]) {
    Element* row = plane + offset_of<D>(p, stride);
    const auto* from = values + slot;
    const int end = std::min(last - slot, tile.width);
    int j = std::max(first - slot, 0);
    if (stride[0] == 1) {
      for (; j < end; j += L) store_pixels(row + j, load<V>(from + j), std::min(L, end - j));
    } else {
      for (; j < end; ++j) row[j * stride[0]] = Rounded<Element>::from(from[j]);
    }
  });
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
