// The gradient of the coordinates tap by tap, in any layout: each tap's pixel times what flows
// back, summed over channels, and then the slopes of the weights.
#pragma once

#include "cpu/runs.h"
#include "cpu/tap_weights.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Any layout, the slots [first, last).
template <class Element, int K, int D>
STN_HD void dot_points(const SampleParams& p, const TileTaps<Accumulate<Element>, K, D>& taps,
                       const Element* plane, const Accumulate<Element>* grad, int first, int last,
                       TapNumbers<Accumulate<Element>, K, D>& dots) {
  for (int i = first; i < last; ++i) {
    for (int k = 0; k < TapProduct<K, D>::count; ++k) {
      dots.of[k][i] += grad[i] * to_float(plane[tap_offset<Element>(p.input.stride, taps, k, i)]);
    }
  }
}

// Vectors whose lanes are added together.
template <class V>
constexpr int kTogether = std::min(4, kLanes<Scalar<V>>);

// The sums of the lanes of kTogether vectors, that of vector m at place_of_total(m): half of the
// vectors at every step, of which each holds twice as many of them.
template <class V>
STN_HD V totals(const V* of) {
  constexpr int L = kLanes<Scalar<V>>;
  const Integer<V> lane = truncate(counting<V>());
  V v[kTogether<V>];
  for (int m = 0; m < kTogether<V>; ++m) v[m] = of[m];
  int half = L / 2;
  for (int count = kTogether<V>; count > 1; count /= 2, half /= 2) {
    const Integer<V> low = (lane & (half - 1)) + (lane & ~(2 * half - 1)) +
                           ((lane & half) != 0 ? Integer<V>{} + L : Integer<V>{});
    for (int m = 0; m < count / 2; ++m) {
      v[m] = select_lanes(v[2 * m], v[2 * m + 1], low) +
             select_lanes(v[2 * m], v[2 * m + 1], Integer<V>(low + half));
    }
  }
  for (; half > 0; half /= 2) v[0] += select_lanes(v[0], v[0], Integer<V>(lane ^ half));
  return v[0];
}
template <class V>
constexpr int place_of_total(int m) {
  constexpr int L = kLanes<Scalar<V>>;
  return kTogether<V> == 2 ? m * (L / 2) : (m % 2 * 2 + m / 2) * (L / 4);
}

// Consecutive channels: a dot product of two vectors for each tap.
template <class Element, int K, int D>
STN_SHARED void dot_channels(const SampleParams& p, const Tile<D>& tile,
                             const TileTaps<Accumulate<Element>, K, D>& taps, int64_t n,
                             TapNumbers<Accumulate<Element>, K, D>& dots) {
  using V = Native<Accumulate<Element>>;
  constexpr int L = kLanes<Scalar<V>>;
  constexpr int T = TapProduct<K, D>::count;
  const int channels = static_cast<int>(p.channels);
  const Element* image = plane_of<const Element>(p.input, n, 0);
  const Element* output = plane_of<const Element>(p.output, n, 0);
  const bool far = is_far(p);
  if (far) took(Path::announced);
  tile.for_each_row([&](int slot, const int32_t (&at)[D]) {
    for (int j = 0; j < tile.width; ++j) {
      const int i = slot + j;
      if (far) announce_pixel(p, image, taps, i, tile.slots());
      const Element* grad = output + offset_of<D>(at, p.output.stride) + j * p.output.stride[0];
      const Element* pixel[T];
      V sum[T];
      for (int k = 0; k < T; ++k) {
        pixel[k] = image + tap_offset<Element>(p.input.stride, taps, k, i);
        sum[k] = V{};
      }
      // Whole vectors, and what is left.
      int c = 0;
      for (; c + L <= channels; c += L) {
        const V value = load_pixels<V>(grad + c);
        for (int k = 0; k < T; ++k) sum[k] += value * load_pixels<V>(pixel[k] + c);
      }
      if (c < channels) {
        const V value = load_pixels<V>(grad + c, channels - c);
        for (int k = 0; k < T; ++k) sum[k] += value * load_pixels<V>(pixel[k] + c, channels - c);
      }
      for (int k = 0; k < T; k += kTogether<V>) {
        const V sums = totals(sum + k);
        for (int m = 0; m < kTogether<V>; ++m) {
          dots.of[k + m][i] += sums[place_of_total<V>(m)];
        }
      }
    }
  });
}

// The gradients of the coordinates, or with a direction what they do along it. A tap whose
// coefficient is 0 does not count, whatever its pixel holds.
template <bool Along, class A, int K, int D>
STN_SHARED void combine(const TileTaps<A, K, D>& taps, const TapNumbers<A, K, D>& dots, int first,
                        int last, const A (&direction)[D][kRoom], A (&grad)[D][kRoom]) {
  using V = Native<A>;
  for (int d = 0; d < D; ++d) {
    int order[D];
    order_along(d, order);
    for (int i = first; i < last; i += kLanes<A>) {
      V at[D], sum{};
      if (Along) load_direction(direction, i, at);
      for (int k = 0; k < TapProduct<K, D>::count; ++k) {
        const auto factors = factors_at(taps, i);
        const V coefficient =
            Along ? tap_weight_along<K>(at, order, k, factors) : tap_weight<K>(order, k, factors);
        const V term = coefficient * load<V>(&dots.of[k][i]);
        sum += coefficient != 0 ? term : V{};
      }
      store<kLanes<A>>(&grad[d][i], sum);
    }
  }
}

// The tile's dot products over the images, of the slots whose gradients are still missing.
template <class Element, int K, int D>
STN_SHARED void make_dots(const SampleParams& p, Layout layout, const Tile<D>& tile,
                          const TileTaps<Accumulate<Element>, K, D>& taps, BatchRange images,
                          const WindowTile<Accumulate<Element>, D>& windows,
                          TapNumbers<Accumulate<Element>, K, D>& dots) {
  using A = Accumulate<Element>;
  alignas(64) A values[kRoom];
  took(layout == Layout::channels ? Path::grad_channels
       : layout == Layout::planar ? Path::grad_taps
                                  : Path::grad_strided);
  const int count = tile.slots();
  for (auto& row : dots.of) std::fill(row, row + count, A(0));
  for (int64_t n = images.begin; n < images.end; ++n) {
    if (layout == Layout::channels) {
      dot_channels<Element>(p, tile, taps, n, dots);
      continue;
    }
    for (int64_t c = 0; c < p.channels; ++c) {
      const Element* plane = plane_of<const Element>(p.input, n, c);
      p.keeps ? std::fill(values, values + count, A(1)) : load_tile(tile, p.output, n, c, values);
      for_each_gap(windows, count, [&](int first, int last) {
        dot_points<Element>(p, taps, plane, values, first, last, dots);
      });
    }
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
