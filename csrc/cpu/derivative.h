// sample's derivatives: along a direction, or along each axis of the image. They see what sample
// sees, and weigh it with the weights' slopes:
//   derivative[n, c, p] = sum over taps of (d weight / d direction) * input[n, c, tap].
#pragma once

#include "cpu/runs.h"
#include "cpu/sample.h"
#include "cpu/tap_weights.h"
#include "cpu/tiles.h"
#include "cpu/together.h"
#include "cpu/view.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// What is written: the values, if they are asked for, and then the derivatives, as images whose
// points lie where the output's do.
struct Written {
  Image image[4];
  int count = 0, values;
  bool along;  // one direction, not each axis

  STN_HD explicit Written(const SampleParams& p)
      : values(p.output.data ? 1 : 0), along(p.direction != Direction::none) {
    if (values) image[count++] = p.output;
    const int derivatives = along ? 1 : p.dims;
    const int64_t bytes = p.axis_stride * element_size(p.derivative.type);
    for (int d = 0; d < derivatives; ++d) {
      image[count] = p.derivative;
      image[count++].data = static_cast<char*>(p.derivative.data) + d * bytes;
    }
  }
};

// Channels whose values and derivatives are computed together: as many as the vector registers have
// room for, of which jet_seen takes as many as there are sums for each.
template <int K, int D>
constexpr int kDerivedBlock = []() {
  constexpr int registers = STN_VECTOR_BYTES == 64 ? 32 : 16;
  constexpr int sums = K == 4 ? 3 : D == 2 ? 2 * K : 5 * K;
  return std::max(1, std::min(kChannelBlock, (registers - 8) / sums));
}();

// Planar: the marked groups in a block of C channels, from what view(g) shows of them. After a NaN,
// which may be a weight of 0 times a pixel that is not finite, a group loses its mark.
template <class Element, int K, int C, int D, class View>
STN_SHARED void derive_marked(const Written& written, const Groups<Accumulate<Element>, D>& groups,
                              int64_t n, int64_t c,
                              const Accumulate<Element> (&direction)[D][kRoom], int32_t* marks,
                              View&& view) {
  using A = Accumulate<Element>;
  using V = Native<A>;
  const typename std::decay<View>::type see = view;  // a copy, which stores cannot touch
  const int count = groups.count, values = written.values;
  Element* plane[4];
  int64_t stride_c[4];
  for (int k = 0; k < written.count; ++k) {
    plane[k] = plane_of<Element>(written.image[k], n, c);
    stride_c[k] = written.image[k].stride_c;
  }
  const auto each = [&](auto&& derive) __attribute__((always_inline)) {
    for (int g = 0; g < count; ++g) {
      if (!marks[g]) continue;
      V along[D], value[C];
      for (int d = 0; d < D; ++d) along[d] = load<V>(&direction[d][g * kLanes<A>]);
      const auto put = [&](int which, const V(&of)[C]) __attribute__((always_inline)) {
        groups.store(g, of, plane[which], stride_c[which]);
        return any_nan(of);
      };
      bool nan = derive(g, along, value, put);
      if (values) nan |= put(0, value);
      if (nan) marks[g] = 0;
    }
  };
  if (written.along) {
    each([&](int g, const V(&along)[D], V(&value)[C], auto&& put) __attribute__((always_inline)) {
      V change[C];
      change_seen<D, K>(see(g), along, value, change);
      return put(values, change);
    });
  } else {
    each([&](int g, const V(&along)[D], V(&value)[C], auto&& put) __attribute__((always_inline)) {
      V slope[D][C];
      jet_seen<D, K>(see(g), along, value, slope);
      bool nan = false;
      for (int d = 0; d < D; ++d) nan |= put(values + d, slope[d]);
      return nan;
    });
  }
}

// Planar: the groups that have a window.
template <class Element, int K, int D>
STN_SHARED void derive_windows(const SampleParams& p, const Written& written,
                               const Groups<Accumulate<Element>, D>& groups, BatchRange images,
                               const Box<D>& next, const Accumulate<Element> (&direction)[D][kRoom],
                               WindowTile<Accumulate<Element>, D>& windows) {
  took(Path::derive_windows);
  const auto all = [&](auto reach) {
    const int together = planes_together<Element>(p, windows, kLinesOfSlopes);
    for (int64_t n = images.begin; n < images.end; ++n) {
      for_each_channel_block<kDerivedBlock<K, D>>(
          together, p.channels, [&](auto channels, int64_t c) {
            const Element* plane = plane_of<const Element>(p.input, n, c);
            announce<Element>(p, next, n, c, channels.value);
            derive_marked<Element, K, channels.value>(
                written, groups, n, c, direction, windows.used,
                WindowViews<reach.value, Element, K, D>(p, windows, plane));
          });
    }
  };
  with_reach<K>(p, windows, all);
}

// Planar: the groups that have no window yet.
template <class Element, int K, int D>
STN_SHARED void derive_runs(const SampleParams& p, const Written& written, const Plan& plan,
                            const RunStarts<Accumulate<Element>, K, D>& starts,
                            const Groups<Accumulate<Element>, D>& groups, BatchRange images,
                            const Box<D>& next, const Accumulate<Element> (&direction)[D][kRoom],
                            WindowTile<Accumulate<Element>, D>& windows) {
  took(Path::derive_runs);
  look_at_runs<Element, kDerivedBlock<K, D>>(
      p, plan, starts, groups.count, images, windows,
      [&](auto channels, int64_t n, int64_t c, int32_t* marks, auto&& view) {
        announce<Element>(p, next, n, c, channels.value);
        derive_marked<Element, K, channels.value>(written, groups, n, c, direction, marks, view);
      });
}

// One number, tap by tap, in any layout; taps of weight 0 are not read.
template <class Element, int K, int D>
STN_HD Accumulate<Element> weighted_sum(const Element* plane, const int64_t (&stride)[3],
                                        const TileTaps<Accumulate<Element>, K, D>& taps,
                                        const TapNumbers<Accumulate<Element>, K, D>& weights,
                                        int i) {
  Accumulate<Element> sum = 0;
  for (int k = 0; k < TapProduct<K, D>::count; ++k) {
    const auto w = weights.of[k][i];
    if (w != 0) sum += w * to_float(plane[tap_offset<Element>(stride, taps, k, i)]);
  }
  return sum;
}

// Consecutive channels: each tap's channels are one vector after another.
template <class Element, int K, int D>
STN_SHARED void derive_channels(const SampleParams& p, const Image& image, const Tile<D>& tile,
                                const TileTaps<Accumulate<Element>, K, D>& taps,
                                const TapNumbers<Accumulate<Element>, K, D>& weights, int64_t n) {
  using V = Native<Accumulate<Element>>;
  constexpr int L = kLanes<Accumulate<Element>>;
  constexpr int T = TapProduct<K, D>::count;
  const int channels = static_cast<int>(p.channels);
  const Element* input = plane_of<const Element>(p.input, n, 0);
  Element* output = plane_of<Element>(image, n, 0);
  tile.for_each_row([&](int slot, const int32_t (&at)[D]) {
    for (int j = 0; j < tile.width; ++j) {
      const int i = slot + j;
      Element* __restrict values = output + offset_of<D>(at, image.stride) + j * image.stride[0];
      const Element* pixel[T];
      for (int k = 0; k < T; ++k)
        pixel[k] = input + tap_offset<Element>(p.input.stride, taps, k, i);
      bool nan = false;
      for (int c = 0; c < channels; c += L) {
        V sum{};
        for (int k = 0; k < T; ++k) {
          sum += weights.of[k][i] * load_some<V>(pixel[k] + c, channels - c);
        }
        store_pixels(values + c, sum, std::min(channels - c, L));
        nan |= any_nan(sum, sum);
      }
      for (int c = 0; nan && c < channels; ++c) {
        values[c] =
            Rounded<Element>::from(weighted_sum(input + c, p.input.stride, taps, weights, i));
      }
    }
  });
}

// Planar or strided: the points that are still missing, in all channels.
template <class Element, int K, int D>
STN_SHARED void derive_gaps(const SampleParams& p, const Image& image, const Tile<D>& tile,
                            const TileTaps<Accumulate<Element>, K, D>& taps,
                            const TapNumbers<Accumulate<Element>, K, D>& weights, BatchRange images,
                            const WindowTile<Accumulate<Element>, D>& windows) {
  alignas(64) Accumulate<Element> values[kRoom];
  for (int64_t n = images.begin; n < images.end; ++n) {
    for (int64_t c = 0; c < p.channels; ++c) {
      const Element* plane = plane_of<const Element>(p.input, n, c);
      for_each_gap(windows, tile.slots(), [&](int first, int last) {
        for (int i = first; i < last; ++i) {
          values[i] = weighted_sum(plane, p.input.stride, taps, weights, i);
        }
        store_tile(tile, values, first, last, plane_of<Element>(image, n, c), image.stride);
      });
    }
  }
}

template <class Element, int K, class T, int D>
void derive_tile(const SampleParams& p, const Plan& plan, Layout layout, int64_t warp,
                 BatchRange images, const Tile<D>& tile, const Looks<T, D>& looks,
                 const Box<D>& next) {
  using A = Accumulate<Element>;
  const Written written(p);
  if (look_outside<K>(looks)) {
    SampleParams part = p;
    for (int k = 0; k < written.count; ++k) {
      part.output = written.image[k];
      sample_nothing<Element>(part, tile, images);
    }
    return;
  }
  alignas(64) A direction[D][kRoom];
  const int slots = tile.slots();
  WindowTile<A, D> windows;
  if (layout == Layout::planar && p.derivative.stride[0] == 1) {
    const Groups<A, D> groups(tile, p.derivative.stride);
    find_directions(p, warp, tile, looks, direction);
    through_boundary<K>(looks, has_nan(looks, slots), slots, direction);
    if constexpr (kWindows<D>) {
      if (find_windows<K>(p, plan, tile, looks, windows)) {
        derive_windows<Element, K>(p, written, groups, images, next, direction, windows);
      }
    }
    if (!windows.complete(groups.count) && has_runs<K, D>(p)) {
      RunStarts<A, K, D> starts;
      find_runs<false>(p, looks, slots, starts);
      derive_runs<Element>(p, written, plan, starts, groups, images, next, direction, windows);
    }
    if (windows.complete(groups.count)) return;
  }
  TileTaps<A, K, D> taps;
  TapNumbers<A, K, D> weights;
  fill_taps<1>(looks.frame, looks.x, slots, taps);
  find_directions(p, warp, tile, looks, direction);
  took(layout == Layout::channels ? Path::derive_channels
       : layout == Layout::planar ? Path::derive_taps
                                  : Path::derive_strided);
  for (int k = 0; k < written.count; ++k) {
    if (written.along && k >= written.values) {
      weigh_along(taps, direction, slots, weights);
    } else {
      weigh(taps, k - written.values, slots, weights);
    }
    if (layout != Layout::channels) {
      derive_gaps<Element>(p, written.image[k], tile, taps, weights, images, windows);
      continue;
    }
    for (int64_t n = images.begin; n < images.end; ++n) {
      derive_channels<Element>(p, written.image[k], tile, taps, weights, n);
    }
  }
}

// Tasks: (warp, tile). The derivative of nearest is 0: ops.cpp returns zeros.
inline void sample_derivative(const SampleParams& p, const Plan& plan, int64_t begin, int64_t end) {
  with_types(p, p.input.type, [&](auto element, auto interpolation, auto dims) {
    constexpr int K = TapCount<decltype(interpolation)::value>::value;
    constexpr int D = decltype(dims)::value;
    if constexpr (K > 1) {
      const Layout layout = layout_of<K, D>(p);
      Basis none;
      for (int64_t task = begin; task < end;) {
        const int64_t n = task / plan.tiles, first = task % plan.tiles;
        const int64_t last = std::min(plan.tiles, first + end - task);
        const BatchRange images = images_of_warp(p, n);
        for_each_tile<D>(p, plan, none, n, first, last, [&](const auto& tiles) {
          derive_tile<decltype(element), K>(p, plan, layout, n, images, tiles.tile(), tiles.looks(),
                                            tiles.next());
        });
        task += last - first;
      }
    }
  });
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
