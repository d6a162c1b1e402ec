// Forward: output[n, c, p] = sum over taps of weight * input[n, c, tap].
#pragma once

#include "cpu/window.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Points whose value is NaN, from a weight of 0 times an infinite or NaN pixel, which is rare, are
// computed again, tap by tap.
template <class Element, int K, int D>
STN_HD void mend(const SampleParams& p, const TileTaps<Accumulate<Element>, K, D>& taps,
                 const Element* plane, int first, int last, Accumulate<Element>* values) {
  for (int i = first; i < last; ++i) {
    if (values[i] != values[i]) values[i] = interpolate(plane, p.input.stride, taps, i);
  }
}

// Linear, planar, the slots [first, last): pairs of pixels. Whether a value is NaN.
template <class Element, int D>
STN_HD bool sample_points(const SampleParams& p, const TileTaps<Accumulate<Element>, 2, D>& taps,
                          const int32_t (&offset)[kRoom], const Element* plane, int first, int last,
                          Accumulate<Element>* values) {
  using A = Accumulate<Element>;
  alignas(64) Pair<Element> pairs[Rows<D>::count][kRoom];
  copy_pairs<Element, D>(plane, offset, Rows<D>(p), first, last, pairs);
  int not_a_number = 0;
#pragma GCC ivdep
  for (int i = first; i < last; ++i) {
    A sum = 0;
    for (int r = 0; r < Rows<D>::count; ++r) {
      const A row = taps.weight[0][0][i] * to_float(pairs[r][i].first) +
                    taps.weight[0][1][i] * to_float(pairs[r][i].second);
      sum += row_weight(taps, r, i) * row;
    }
    values[i] = sum;
    not_a_number |= sum != sum;
  }
  return not_a_number != 0;
}

// Nearest, planar, the slots [first, last): one pixel or 0. Never a NaN that is not a pixel's.
template <class Element, int D>
STN_HD bool sample_points(const SampleParams&, const TileTaps<Accumulate<Element>, 1, D>& taps,
                          const int32_t (&offset)[kRoom], const Element* plane, int first, int last,
                          Accumulate<Element>* values) {
  using A = Accumulate<Element>;
  alignas(64) Element pixels[kRoom];
  for (int i = first; i < last; ++i) pixels[i] = plane[offset[i]];
#pragma GCC ivdep
  for (int i = first; i < last; ++i) {
    A weight = taps.weight[0][0][i];
    for (int d = 1; d < D; ++d) weight *= taps.weight[d][0][i];
    const A value = to_float(pixels[i]);
    values[i] = weight != 0 ? value : A(0);
  }
  return false;
}

// Linear and nearest, planar, the slots [first, last).
template <class Element, int K, int D>
STN_HD void sample_plane(const SampleParams& p, const TileTaps<Accumulate<Element>, K, D>& taps,
                         const int32_t (&offset)[kRoom], const Element* plane, int first, int last,
                         Accumulate<Element>* values) {
  if (sample_points<Element, D>(p, taps, offset, plane, first, last, values)) {
    mend<Element>(p, taps, plane, first, last, values);
  }
}

// Bicubic, planar: the four taps of a row lie among four consecutive pixels, whatever the boundary
// rule made of them; CubicRows holds the weights on these.
template <class A>
struct alignas(64) CubicRows {
  int32_t base[kRoom];
  A weight[kRoom][4];
};

template <class A>
STN_HD void make_rows(const TileTaps<A, 4, 2>& taps, int32_t width, int count, CubicRows<A>& rows) {
#pragma GCC ivdep
  for (int i = 0; i < count; ++i) {
    int32_t low = taps.index[0][0][i];
    for (int k = 1; k < 4; ++k) low = low < taps.index[0][k][i] ? low : taps.index[0][k][i];
    const int32_t base = low < width - 4 ? low : width - 4;
    rows.base[i] = base;
    for (int j = 0; j < 4; ++j) {
      A sum = 0;
      for (int k = 0; k < 4; ++k) {
        sum += taps.index[0][k][i] == base + j ? taps.weight[0][k][i] : A(0);
      }
      rows.weight[i][j] = sum;
    }
  }
}

template <class Element>
STN_HD void sample_plane(const SampleParams& p, const TileTaps<Accumulate<Element>, 4, 2>& taps,
                         const CubicRows<Accumulate<Element>>& rows, const Element* plane,
                         int first, int last, Accumulate<Element>* values) {
  using A = Accumulate<Element>;
  const int64_t stride = p.input.stride[1];
  int not_a_number = 0;
  for (int i = first; i < last; ++i) {
    A column[4] = {0, 0, 0, 0};
    for (int r = 0; r < 4; ++r) {
      const Element* row = plane + taps.index[1][r][i] * stride + rows.base[i];
      const A weight = taps.weight[1][r][i];
      for (int j = 0; j < 4; ++j) column[j] += weight * to_float(row[j]);
    }
    const A* w = rows.weight[i];
    const A sum = (column[0] * w[0] + column[1] * w[1]) + (column[2] * w[2] + column[3] * w[3]);
    values[i] = sum;
    not_a_number |= sum != sum;
  }
  if (not_a_number) mend<Element>(p, taps, plane, first, last, values);
}

// The taps of one point of the tile as pointers offsets and weights, for vectors of channels.
template <class A, int K, int D>
struct PointTaps {
  static constexpr int count = D == 3 ? K * K * K : K * K;
  int64_t offset[count];
  A weight[count];

  STN_HD PointTaps(const TileTaps<A, K, D>& taps, const int64_t (&stride)[3], int i) {
    for (int k = 0; k < count; ++k) {
      const int kx = k % K, ky = k / K % K, kz = k / (K * K);
      offset[k] = taps.index[0][kx][i] * stride[0] + taps.index[1][ky][i] * stride[1];
      weight[k] = taps.weight[0][kx][i] * taps.weight[1][ky][i];
      if (D == 3) {
        offset[k] += taps.index[D - 1][kz][i] * stride[2];
        weight[k] *= taps.weight[D - 1][kz][i];
      }
    }
  }
};

// Consecutive channels: each tap's channels are one vector after another.
template <class Element, int K, int D>
STN_HD void sample_channels(const SampleParams& p, const Tile<D>& tile,
                            const TileTaps<Accumulate<Element>, K, D>& taps, int64_t n) {
  using A = Accumulate<Element>;
  const Element* image = plane_of<Element>(p.input, n, 0);
  Element* output = plane_of<Element>(p.output, n, 0);
  tile.for_each_row([&](int slot, const int32_t (&at)[D]) {
    for (int j = 0; j < tile.width; ++j) {
      const PointTaps<A, K, D> point(taps, p.input.stride, slot + j);
      Element* __restrict values =
          output + offset_of<D>(at, p.output.stride) + j * p.output.stride[0];
      int not_a_number = 0;
#pragma GCC ivdep
      for (int64_t c = 0; c < p.channels; ++c) {
        A sum = 0;
        for (int k = 0; k < PointTaps<A, K, D>::count; ++k) {
          sum += point.weight[k] * to_float(image[point.offset[k] + c]);
        }
        values[c] = Rounded<Element>::from(sum);
        not_a_number |= sum != sum;
      }
      if (not_a_number) {
        for (int64_t c = 0; c < p.channels; ++c) {
          values[c] =
              Rounded<Element>::from(interpolate(image + c, p.input.stride, taps, slot + j));
        }
      }
    }
  });
}

// Planar: the points that have a window, in all channels. After a NaN, which may be a weight of 0
// times a pixel that is not finite, no window counts; whether there is none.
template <class Element, int K, int D>
STN_HD bool sample_windows(const SampleParams& p, const Groups<Accumulate<Element>, D>& groups,
                           BatchRange images, WindowTile<Accumulate<Element>, D>& windows) {
  using V = Native<Accumulate<Element>>;
  Integer<V> nan{};
  const auto block = [&](auto narrow, auto channels, int64_t n, int64_t c) {
    constexpr int C = decltype(channels)::value;
    const Element* plane = plane_of<const Element>(p.input, n, c);
    Element* output = plane_of<Element>(p.output, n, c);
    for (int g = 0; g < groups.count; ++g) {
      if (!windows.used[g]) continue;
      V values[C];
      window_values<narrow.value, C, K>(p, windows, g, plane, values);
#pragma GCC unroll 4
      for (int k = 0; k < C; ++k) {
        groups.store(g, values[k], output + k * p.output.stride_c);
        nan |= values[k] != values[k];
      }
    }
  };
  const auto all = [&](auto narrow) {
    for (int64_t n = images.begin; n < images.end; ++n) {
      for_each_channel_block(p.channels,
                             [&](auto channels, int64_t c) { block(narrow, channels, n, c); });
    }
  };
  is_narrow<Accumulate<Element>>(p) ? all(std::true_type{}) : all(std::false_type{});
  const bool clean = K == 1 || all_lanes(nan == 0);
  if (!clean) windows.clear();
  return clean;
}

// Planar or strided: the points that have no window, in all channels.
template <class Element, int K, int D>
void sample_gaps(const SampleParams& p, Layout layout, const Tile<D>& tile,
                 const TileTaps<Accumulate<Element>, K, D>& taps, BatchRange images,
                 const WindowTile<Accumulate<Element>, D>& windows) {
  using A = Accumulate<Element>;
  const int slots = tile.slots();
  alignas(64) int32_t offset[kRoom];
  alignas(64) A values[kRoom];
  [[maybe_unused]] CubicRows<A> rows;
  if (layout == Layout::planar) {
    if constexpr (K == 4) {
      make_rows(taps, static_cast<int32_t>(p.input_size[0]), slots, rows);
    } else {
      first_offsets(p, taps, slots, offset);
    }
  }
  for (int64_t n = images.begin; n < images.end; ++n) {
    for (int64_t c = 0; c < p.channels; ++c) {
      const Element* plane = plane_of<Element>(p.input, n, c);
      for_each_gap(windows, slots, [&](int first, int last) {
        if (layout == Layout::strided) {
          for (int i = first; i < last; ++i) {
            values[i] = interpolate(plane, p.input.stride, taps, i);
          }
        } else if constexpr (K == 4) {
          sample_plane<Element>(p, taps, rows, plane, first, last, values);
        } else {
          sample_plane<Element, K, D>(p, taps, offset, plane, first, last, values);
        }
        store_tile(tile, values, first, last, plane_of<Element>(p.output, n, c), p.output.stride);
      });
    }
  }
}

template <class Element, int K, int D>
void sample_tile(const SampleParams& p, Layout layout, int64_t n, const Tile<D>& tile) {
  using A = Accumulate<Element>;
  const BatchRange images = images_of_warp(p, n);
  with_looks(p, n, tile, [&](const auto& looks) {
    WindowTile<A, D> windows;
    if (layout == Layout::planar && p.output.stride[0] == 1) {
      bool complete = find_windows<K>(p, tile, looks, windows);
      if constexpr (kWindows<D>) {
        const Groups<A, D> groups(tile, p.output.stride);
        complete &= sample_windows<Element, K>(p, groups, images, windows);
      }
      if (complete) return;
    } else {
      windows.clear();
    }
    TileTaps<A, K, D> taps;
    fill_taps<false>(looks.frame, p.padding, looks.x, tile.slots(), taps);
    if (layout == Layout::channels) {
      for (int64_t m = images.begin; m < images.end; ++m) {
        sample_channels<Element, K, D>(p, tile, taps, m);
      }
    } else {
      sample_gaps<Element>(p, layout, tile, taps, images, windows);
    }
  });
}

// Tasks: (warp, tile).
inline void sample(const SampleParams& p, const Plan& plan, int64_t begin, int64_t end) {
  with_types(p, p.input.type, [&](auto element, auto interpolation, auto dims) {
    using Element = decltype(element);
    constexpr int K = TapCount<decltype(interpolation)::value>::value;
    constexpr int D = decltype(dims)::value;
    const Layout layout = layout_of<K, D>(p);
    for (int64_t task = begin; task < end; ++task) {
      const Tile<D> tile(plan, p.output_size, task % plan.tiles);
      sample_tile<Element, K, D>(p, layout, task / plan.tiles, tile);
    }
  });
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
