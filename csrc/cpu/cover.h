// What does not depend on the pixels: how much of a look lies inside the image. From it follow an
// image that is the same everywhere, and what lies around one (params.h: cover).
#pragma once

#include "cpu/looks.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// How much of each of the tile's looks lies inside, along the axes that have zeros around them, or
// along all. Whether that is all of it.
template <int K, class T, class A, int D>
STN_SHARED bool find_cover(const Looks<T, D>& looks, bool along_all, int slots, A (&cover)[kRoom]) {
  using V = Native<T>;
  bool whole = true;
  for (int i = 0; i < slots; i += kLanes<T>) {
    V product = all<V>(1);
    for (int d = 0; d < D; ++d) {
      const Axis<T>& axis = looks.frame.axis[d];
      if (along_all || axis.padding == Padding::zeros) {
        product *= inside_part<K>(axis, load<V>(&looks.x[d][i]));
      }
    }
    store<kLanes<T>>(&cover[i], product);
    whole &= all_lanes(product == 1);
  }
  return whole;
}

// A value of a point of which `cover` lies inside, where the image or what is around it has `fill`.
template <class V>
STN_HD V covered(bool around, V cover, V fill, V value) {
  const V constant = cover != 0 ? V(cover * fill) : V{};
  const V filled = cover == 1 ? value : V(value + (1 - cover) * fill);
  return around ? filled : constant;
}

// A row of points next to each other in the output.
template <class Element, class A>
STN_HD void cover_row(bool around, const A* cover, A fill, int width, Element* row) {
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  for (int j = 0; j < width; j += L) {
    const int count = std::min(L, width - j);
    const V value = around ? load_some<V>(row + j, count) : V{};
    store_pixels(row + j, covered(around, load<V>(cover + j), all<V>(fill), value), count);
  }
}

template <class Element, int D>
STN_SHARED void cover_points(const SampleParams& p, BatchRange images, const Tile<D>& tile,
                             const Accumulate<Element> (&cover)[kRoom]) {
  using A = Accumulate<Element>;
  [[maybe_unused]] const int64_t step = p.output.stride[0], stride_y = p.output.stride[1];
  const auto fill = [&](int64_t n, int64_t c) {
    const int64_t at = n * p.fill.stride_n + c * p.fill.stride_c;
    return to_float(static_cast<const Element*>(p.fill.data)[at]);
  };
  for (int64_t n = images.begin; n < images.end; ++n) {
    Element* image = static_cast<Element*>(p.output.data) + n * p.output.stride_n;
    for (int64_t c = 0; step == 1 && c < p.channels; ++c) {
      Element* plane = image + c * p.output.stride_c;
      if constexpr (D == 2) {
        if (tile.block > 0) {
          using V = Native<A>;
          const V of_channel = all<V>(fill(n, c));
          tile.for_each_block([&](int slot, const int32_t (&at)[2], int columns, int rows) {
            Element* to = plane + offset_of<D>(at, p.output.stride);
            const V value = p.around ? load_block<V>(to, stride_y, columns, rows) : V{};
            const V sum = covered(p.around, load<V>(cover + slot), of_channel, value);
            store_block(to, stride_y, sum, columns, rows);
          });
          continue;
        }
      }
      tile.for_each_row([&](int slot, const int32_t (&at)[D]) {
        Element* row = plane + offset_of<D>(at, p.output.stride);
        cover_row(p.around, cover + slot, fill(n, c), tile.width, row);
      });
    }
    if (step == 1) continue;
    tile.for_each_row([&](int slot, const int32_t (&at)[D]) {
      Element* row = image + offset_of<D>(at, p.output.stride);
      for (int j = 0; j < tile.width; ++j) {
        const A part = cover[slot + j];
        for (int64_t c = 0; c < p.channels && !(p.around && part == 1); ++c) {
          Element& to = row[j * step + c * p.output.stride_c];
          to = Rounded<Element>::from(covered(p.around, part, fill(n, c), to_float(to)));
        }
      }
    });
  }
}

template <class Element, int K, class T, int D>
STN_SHARED void cover_tile(const SampleParams& p, BatchRange images, const Tile<D>& tile,
                           const Looks<T, D>& looks) {
  alignas(64) Accumulate<Element> cover[kRoom];
  if (p.around && look_inside(p.interpolation, looks)) return;
  if (find_cover<K>(looks, false, tile.slots(), cover) && p.around) return;
  cover_points<Element>(p, images, tile, cover);
}

// A tile's part of the mask; cover: null where all is inside.
template <class A, int D>
STN_SHARED void write_mask(const Image& mask, int64_t n, const Tile<D>& tile, const A* cover) {
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  with_element(mask.type, [&](auto element) {
    using Element = decltype(element);
    if constexpr (std::is_same<Accumulate<Element>, A>::value) {
      Element* data = static_cast<Element*>(mask.data) + n * mask.stride_n;
      if constexpr (D == 2) {
        if (tile.block > 0) {
          return tile.for_each_block([&](int slot, const int32_t (&at)[2], int columns, int rows) {
            const V part = cover ? load<V>(cover + slot) : all<V>(1);
            store_block(data + offset_of<D>(at, mask.stride), mask.stride[1], part, columns, rows);
          });
        }
      }
      tile.for_each_row([&](int slot, const int32_t (&at)[D]) {
        Element* row = data + offset_of<D>(at, mask.stride);
        for (int j = 0; j < tile.width; j += L) {
          const V part = cover ? load<V>(cover + slot + j) : all<V>(1);
          store_pixels(row + j, part, std::min(L, tile.width - j));
        }
      });
    }
  });
}

// The mask of K taps per axis, which is that of zeros around the image, whatever is there.
template <int K, class A, class T, int D>
STN_SHARED void mask_tile(const SampleParams& p, int64_t n, const Tile<D>& tile,
                          const Looks<T, D>& looks) {
  constexpr auto kBilinear = Interpolation::bilinear;
  if (look_inside(kBilinear, looks)) return write_mask<A>(p.mask, n, tile, nullptr);
  alignas(64) A cover[kRoom];
  const bool whole = find_cover<K>(looks, true, tile.slots(), cover);
  write_mask<A>(p.mask, n, tile, whole ? nullptr : cover);
}

// What is around the image as it is added to a tile's values before they are stored. Of most
// elements it is not: cover_tile adds it to what is stored.
template <class Element>
struct Surroundings {
  template <int K, class Looks>
  STN_HD void find(const SampleParams&, const Looks&, int) {}
  STN_HD bool any() const { return false; }
  template <class V>
  STN_HD V at_points(V value, int, int64_t, int64_t) const {
    return value;
  }
  template <class V>
  STN_HD V in_channels(V value, int, int64_t, int64_t, int) const {
    return value;
  }
};

// A byte would be rounded twice.
template <>
struct Surroundings<Byte> {
  const Image* fill = nullptr;  // if it counts for the tile
  alignas(64) float cover[kRoom];

  template <int K, class Looks>
  STN_HD void find(const SampleParams& p, const Looks& looks, int slots) {
    if (!p.around || look_inside(p.interpolation, looks)) return;
    if (!find_cover<K>(looks, false, slots, cover)) fill = &p.fill;
  }
  STN_HD bool any() const { return fill; }

  STN_HD float value(int64_t n, int64_t c) const {
    return static_cast<const float*>(fill->data)[n * fill->stride_n + c * fill->stride_c];
  }
  // Of a vector of points from a slot on, and of `count` channels of one point.
  STN_HD FloatVector at_points(FloatVector values, int slot, int64_t n, int64_t c) const {
    if (!fill) return values;
    return covered(true, load<FloatVector>(cover + slot), all<FloatVector>(value(n, c)), values);
  }
  STN_HD FloatVector in_channels(FloatVector values, int slot, int64_t n, int64_t c,
                                 int count) const {
    if (!fill) return values;
    FloatVector around{};
    for (int k = 0; k < count; ++k) around[k] = value(n, c + k);
    return covered(true, all<FloatVector>(cover[slot]), around, values);
  }
};

// How they are handed on: where there is nothing, nothing is.
template <class Element>
using Around = std::conditional_t<std::is_empty<Surroundings<Element>>::value,
                                  Surroundings<Element>, const Surroundings<Element>&>;

// Where a tile's corners look; looks.ranged says whether the others are known to look in between.
template <class T, int D>
__attribute__((noinline)) void look_at_corners(const AnyMap<T, D>& any, const Tile<D>& tile,
                                               Looks<T, D>& looks) {
  any.visit([&](const auto& map) {
    for (int k = 0; k < 4; ++k) {
      const int row = k / 2 * (tile.rows - 1), column = k % 2 * (tile.width - 1);
      int32_t p[D];
      T x[D];
      for (int d = 0; d < D; ++d) p[d] = tile.first[d] + (d == 0 ? column : d == 1 ? row : 0);
      look_of(map, p, x);
      for (int d = 0; d < D; ++d) looks.x[d][row * tile.pitch + column] = x[d];
    }
    find_range(map, tile, looks);
  });
}

template <class Element, int K, class T, int D>
void cover_tiles(const SampleParams& p, const Plan& plan, int64_t n, int64_t first, int64_t last) {
  const BatchRange images = images_of_warp(p, n);
  Looks<T, D> looks;
  looks.frame = pixel_frame<T, D>(p);
  const AnyMap<T, D> map(p.map, p.warp, n, looks.frame, p.output_size, p.align_corners);
  const bool monotonic = map.monotonic();
  alignas(64) Accumulate<Element> whole[kRoom];
  std::fill(whole, whole + kRoom, 1);
  Basis none;
  for (int64_t t = first; t < last; ++t) {
    const Tile<D> tile(plan, t);
    if (monotonic) {  // the corners tell of most tiles all that is to be known
      look_at_corners(map, tile, looks);
      if (look_inside(p.interpolation, looks)) {
        if (!p.around) cover_points<Element>(p, images, tile, whole);
        continue;
      }
    }
    look_through(map, tile, looks, none, n);
    cover_tile<Element, K>(p, images, tile, looks);
  }
}

// Tasks: (warp, tile).
inline void cover(const SampleParams& p, const Plan& plan, int64_t begin, int64_t end) {
  with_types(p, p.output.type, [&](auto element, auto interpolation, auto dims) {
    using Element = decltype(element);
    constexpr int K = TapCount<decltype(interpolation)::value>::value;
    constexpr int D = decltype(dims)::value;
    for (int64_t task = begin; task < end;) {
      const int64_t n = task / plan.tiles, first = task % plan.tiles;
      const int64_t last = std::min(plan.tiles, first + end - task);
      p.warp.type == ElementType::f64 ? cover_tiles<Element, K, double, D>(p, plan, n, first, last)
                                      : cover_tiles<Element, K, float, D>(p, plan, n, first, last);
      task += last - first;
    }
  });
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
