// Forward: output[n, c, p] = sum over taps of weight * input[n, c, tap].
#pragma once

#include "cpu/interleaved.h"
#include "cpu/runs.h"
#include "cpu/staged.h"
#include "cpu/tiles.h"
#include "cpu/together.h"
#include "cpu/view.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Bicubic, planar: the four taps of a row lie among four consecutive pixels, whatever the boundary
// rule made of them, unless the image wraps; CubicRows holds the weights on these.
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

// Points whose value is NaN, from a weight of 0 times an infinite or NaN pixel, which is rare, are
// computed again, tap by tap.
template <class Element>
STN_HD void sample_rows(const SampleParams& p, const TileTaps<Accumulate<Element>, 4, 2>& taps,
                        const CubicRows<Accumulate<Element>>& rows, const Element* plane, int first,
                        int last, Accumulate<Element>* values) {
  using A = Accumulate<Element>;
  const int64_t stride = p.input.stride[1];
  for (int i = first; i < last; ++i) {
    A column[4] = {0, 0, 0, 0};
    for (int r = 0; r < 4; ++r) {
      const Element* row = plane + taps.index[1][r][i] * stride + rows.base[i];
      const A weight = taps.weight[1][r][i];
      for (int j = 0; j < 4; ++j) column[j] += weight * to_float(row[j]);
    }
    const A* w = rows.weight[i];
    const A sum = (column[0] * w[0] + column[1] * w[1]) + (column[2] * w[2] + column[3] * w[3]);
    values[i] = sum == sum ? sum : interpolate(plane, p.input.stride, taps, i);
  }
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
STN_SHARED void sample_channels(const SampleParams& p, bool streams, const Tile<D>& tile,
                                const TileTaps<Accumulate<Element>, K, D>& taps,
                                Around<Element> around, int64_t n) {
  using A = Accumulate<Element>;
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  const int channels = static_cast<int>(p.channels);
  const Element* image = plane_of<Element>(p.input, n, 0);
  Element* output = plane_of<Element>(p.output, n, 0);
  const bool far = is_far(p);
  if (far) took(Path::announced);
  tile.for_each_row([&](int slot, const int32_t (&at)[D]) {
    for (int j = 0; j < tile.width; ++j) {
      if (far) announce_pixel(p, image, taps, slot + j, tile.slots());
      const PointTaps<A, K, D> point(taps, p.input.stride, slot + j);
      Element* __restrict values =
          output + offset_of<D>(at, p.output.stride) + j * p.output.stride[0];
      bool nan = false;
      // Whole vectors, a few at a time, and what is left.
      const auto add = [&](auto count, int c) __attribute__((always_inline)) {
        V sum[count.value] = {};
        for (int k = 0; k < PointTaps<A, K, D>::count; ++k) {
          const Element* pixel = image + point.offset[k] + c;
#pragma GCC unroll 4
          for (int v = 0; v < count.value; ++v) {
            sum[v] += point.weight[k] * load_pixels<V>(pixel + v * L);
          }
        }
#pragma GCC unroll 4
        for (int v = 0; v < count.value; ++v) {
          const int at = c + v * L;
          const V value = around.in_channels(sum[v], slot + j, n, at, L);
          streams ? stream_pixels(values + at, value) : store_pixels(values + at, value, L);
        }
        nan |= any_nan(sum);
      };
      int c = 0;
      for (; c + 4 * L <= channels; c += 4 * L) add(std::integral_constant<int, 4>{}, c);
      for (; c + L <= channels; c += L) add(std::integral_constant<int, 1>{}, c);
      if (c < channels) {
        V sum{};
        for (int k = 0; k < PointTaps<A, K, D>::count; ++k) {
          sum += point.weight[k] * load_some<V>(image + point.offset[k] + c, channels - c);
        }
        const int count = channels - c;
        store_pixels(values + c, around.in_channels(sum, slot + j, n, c, count), count);
        nan |= any_nan(sum, sum);
      }
      if (nan) {
        for (int64_t c = 0; c < p.channels; ++c) {
          values[c] =
              Rounded<Element>::from(interpolate(image + c, p.input.stride, taps, slot + j));
        }
      }
    }
  });
}

// Planar: the values of the marked groups in a block of C channels, from what view(g) shows of
// them. After a NaN, which may be a weight of 0 times a pixel that is not finite, a group loses its
// mark.
template <class Element, int K, int C, int D, class View>
STN_SHARED void sample_marked(const SampleParams& p, const Groups<Accumulate<Element>, D>& groups,
                              Around<Element> around, int64_t n, int64_t c, int32_t* marks,
                              View&& view) {
  using V = Native<Accumulate<Element>>;
  Element* output = plane_of<Element>(p.output, n, c);
  const int64_t stride_c = p.output.stride_c;
  const typename std::decay<View>::type see = view;  // a copy, which stores cannot touch
  for (int g = 0; g < groups.count; ++g) {
    if (!marks[g]) continue;
    V values[C];
    values_seen<D, K>(see(g), values);
    if (K > 1 && any_nan(values)) marks[g] = 0;
#pragma GCC unroll 4
    for (int k = 0; k < C; ++k) {
      values[k] = around.at_points(values[k], g * groups.L, n, c + k);
    }
    groups.store(g, values, output, stride_c);
  }
}

// Planar: the groups that have a window.
template <class Element, int K, int D>
STN_SHARED void sample_windows(const SampleParams& p, const Groups<Accumulate<Element>, D>& groups,
                               Around<Element> around, BatchRange images,
                               WindowTile<Accumulate<Element>, D>& windows, const Box<D>& next) {
  const auto all = [&](auto reach) {
    took(reach.value == Reach::wide     ? Path::sample_wide
         : reach.value == Reach::narrow ? Path::sample_narrow
                                        : Path::sample_windows);
    const int together = planes_together<Element>(p, windows, kLinesOfValues);
    for (int64_t n = images.begin; n < images.end; ++n) {
      for_each_channel_block(together, p.channels, [&](auto channels, int64_t c) {
        const Element* plane = plane_of<const Element>(p.input, n, c);
        announce<Element>(p, next, n, c, channels.value);
        sample_marked<Element, K, channels.value>(
            p, groups, around, n, c, windows.used,
            WindowViews<reach.value, Element, K, D>(p, windows, plane));
      });
    }
  };
  with_reach<K>(p, windows, all);
}

// Planar: the groups that have no window yet.
template <class Element, int K, int D>
STN_SHARED void sample_runs(const SampleParams& p, const Plan& plan,
                            const RunStarts<Accumulate<Element>, K, D>& starts,
                            const Groups<Accumulate<Element>, D>& groups, Around<Element> around,
                            BatchRange images, WindowTile<Accumulate<Element>, D>& windows,
                            const Box<D>& next) {
  took(Path::sample_runs);
  look_at_runs<Element>(p, plan, starts, groups.count, images, windows,
                        [&](auto channels, int64_t n, int64_t c, int32_t* marks, auto&& view) {
                          announce<Element>(p, next, n, c, channels.value);
                          sample_marked<Element, K, channels.value>(p, groups, around, n, c, marks,
                                                                    view);
                        });
}

// Planar or strided: the points whose values are still missing, in all channels.
template <class Element, int K, int D>
STN_SHARED void sample_gaps(const SampleParams& p, Layout layout, bool wraps, const Tile<D>& tile,
                            const TileTaps<Accumulate<Element>, K, D>& taps, Around<Element> around,
                            BatchRange images, const WindowTile<Accumulate<Element>, D>& windows) {
  using A = Accumulate<Element>;
  const int slots = tile.slots();
  alignas(64) A values[kRoom];
  [[maybe_unused]] CubicRows<A> rows;
  took(layout == Layout::planar ? Path::sample_taps : Path::sample_strided);
  const bool cubic = K == 4 && layout == Layout::planar && !wraps;
  if constexpr (K == 4) {
    if (cubic) make_rows(taps, static_cast<int32_t>(p.input_size[0]), slots, rows);
  }
  for (int64_t n = images.begin; n < images.end; ++n) {
    for (int64_t c = 0; c < p.channels; ++c) {
      const Element* plane = plane_of<Element>(p.input, n, c);
      for_each_gap(windows, slots, [&](int first, int last) {
        if constexpr (K == 4) {
          if (cubic) sample_rows<Element>(p, taps, rows, plane, first, last, values);
        }
        for (int i = first; !cubic && i < last; ++i) {
          values[i] = interpolate(plane, p.input.stride, taps, i);
        }
        for (int i = first; around.any() && i < last; i += kLanes<A>) {
          const auto value = load<Native<A>>(values + i);
          store<kLanes<A>>(values + i, around.at_points(value, i, n, c));
        }
        store_tile(tile, values, first, last, plane_of<Element>(p.output, n, c), p.output.stride);
      });
    }
  }
}

// Zeros, in any layout.
template <class Element, int D>
STN_SHARED void sample_nothing(const SampleParams& p, const Tile<D>& tile, BatchRange images) {
  took(Path::sample_nothing);
  const int64_t step = p.output.stride[0];
  const bool across = has_channels_inside(p);
  for (int64_t n = images.begin; n < images.end; ++n) {
    for (int64_t c = 0; c < (across ? 1 : p.channels); ++c) {
      Element* plane = plane_of<Element>(p.output, n, c);
      tile.for_each_row([&](int, const int32_t (&at)[D]) {
        Element* row = plane + offset_of<D>(at, p.output.stride);
        if (!across && step == 1) {
          std::fill(row, row + tile.width, Element{});
          return;
        }
        for (int j = 0; j < tile.width; ++j) {
          std::fill(row + j * step, row + j * step + (across ? p.channels : 1), Element{});
        }
      });
    }
  }
}

template <class Element, int K, class T, int D>
void sample_tile(const SampleParams& p, const Plan& plan, Layout layout, BatchRange images,
                 const Tile<D>& tile, const Looks<T, D>& looks, const Box<D>& next) {
  using A = Accumulate<Element>;
  Surroundings<Element> around;
  around.template find<K>(p, looks, tile.slots());
  if (look_outside<K>(looks) && !around.any()) return sample_nothing<Element>(p, tile, images);
  WindowTile<A, D> windows;
  if (layout == Layout::planar && p.output.stride[0] == 1) {
    const Groups<A, D> groups(tile, p.output.stride, plan.streams);
    if constexpr (kWindows<D>) {
      if (find_windows<K>(p, plan, tile, looks, windows)) {
        sample_windows<Element, K>(p, groups, around, images, windows, next);
      }
    }
    if (!windows.complete(groups.count) && has_runs<K, D>(p)) {
      RunStarts<A, K, D> starts;
      find_runs<false>(p, looks, tile.slots(), starts);
      sample_runs<Element>(p, plan, starts, groups, around, images, windows, next);
    }
    if (windows.complete(groups.count)) return;
  }
  TileTaps<A, K, D> taps;
  fill_taps<0>(looks.frame, looks.x, tile.slots(), taps);
  if (layout == Layout::channels) {
    if constexpr (std::is_same<Element, Byte>::value && K == 2 && D == 2) {
      if (has_pairs(p, looks.frame)) {
        Pairs pairs;
        pairs.find(p, taps, tile.slots());
        for (int64_t m = images.begin; m < images.end; ++m) {
          sample_pairs(p, tile, taps, around, pairs, m);
        }
        return;
      }
    }
    took(Path::sample_channels);
    for (int64_t m = images.begin; m < images.end; ++m) {
      sample_channels<Element, K, D>(p, plan.streams, tile, taps, around, m);
    }
  } else {
    const bool wraps = looks.frame.axis[0].padding == Padding::wrap;
    sample_gaps<Element>(p, layout, wraps, tile, taps, around, images, windows);
  }
}

// Tasks: (warp, tile), or where warps share their basis functions (warp, group of tiles).
inline void sample(const SampleParams& p, const Plan& plan, int64_t begin, int64_t end) {
  const auto run = [&](auto element, auto interpolation, auto dims) {
    using Element = decltype(element);
    constexpr int K = TapCount<decltype(interpolation)::value>::value;
    constexpr int D = decltype(dims)::value;
    const Layout layout = layout_of<K, D>(p);
    Basis basis(plan, false);
    std::unique_ptr<Staged<Element>> staged;
    if (plan.block > 0 && plan.streams && p.warp.batch == p.batch) {
      took(Path::sample_staged);
      staged.reset(new Staged<Element>(p, plan));
    }
    const auto work = [&](int64_t n, int64_t first, int64_t last) {
      const BatchRange images = images_of_warp(p, n);
      if (plan.streams) took(Path::sample_streams);
      if (plan.scattered) announce_plane<Element>(p, images, last - first);
      for_each_tile<D>(p, plan, basis, n, first, last, [&](const auto& tiles) {
        const auto& tile = tiles.tile();
        const auto& looks = tiles.looks();
        bool done = false;
        if constexpr (D == 2 && !std::is_same<Element, Byte>::value) {
          if (staged) {
            sample_tile<Element, K>(staged->instead(p, tile), plan, layout, images, tile, looks,
                                    tiles.next());
            staged->write(p, tile, n);
            done = true;
          }
        }
        if (!done) sample_tile<Element, K>(p, plan, layout, images, tile, looks, tiles.next());
        if (p.mask.data) {
          mask_tile<K == 1 ? 1 : 2, Accumulate<Element>>(p, n, tile, looks);
        }
        if constexpr (!std::is_same<Element, Byte>::value) {
          if (p.around) cover_tile<Element, K>(p, images, tile, looks);
        }
      });
    };
    if (plan.basis_shared) {
      for_each_stretch(plan, p.warp.batch, begin, end, work);
    } else {
      for (int64_t task = begin; task < end;) {
        const int64_t n = task / plan.tiles, first = task % plan.tiles;
        const int64_t last = std::min(plan.tiles, first + end - task);
        work(n, first, last);
        task += last - first;
      }
    }
    if (plan.streams) end_of_streams();
  };
  p.input.type == ElementType::u8 ? with_interpolation(p, Byte{}, run)
                                  : with_types(p, p.input.type, run);
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
