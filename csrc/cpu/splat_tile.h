// What a tile of output points adds to a slab of an image.
#pragma once

#include "cpu/beyond.h"
#include "cpu/collect.h"
#include "cpu/patch.h"
#include "cpu/splat_channels.h"
#include "cpu/tap_weights.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Where a tile's points are added, and how heavily: weight(kx, ky, kz, i) of tap k at point i.
template <class A, int K, int D>
struct SplatTaps {
  TileTaps<A, K, D> taps;

  template <class T>
  STN_HD SplatTaps(const SampleParams&, int64_t, const Tile<D>& tile, const Looks<T, D>& looks) {
    fill_taps<0>(looks.frame, looks.x, tile.slots(), taps);
  }

  STN_HD A weight(int kx, int ky, int kz, int i) const {
    const A behind = D == 3 ? taps.weight[D - 1][kz][i] : A(1);
    return behind * taps.weight[1][ky][i] * taps.weight[0][kx][i];
  }
};

// The same along the direction.
template <class A, int K, int D>
struct SplatTapsAlong {
  TileTaps<A, K, D> taps;
  TapNumbers<A, K, D> weights;

  template <class T>
  STN_HD SplatTapsAlong(const SampleParams& p, int64_t warp, const Tile<D>& tile,
                        const Looks<T, D>& looks) {
    alignas(64) A direction[D][kRoom];
    fill_taps<1>(looks.frame, looks.x, tile.slots(), taps);
    find_directions(p, warp, tile, looks, direction);
    weigh_along(taps, direction, tile.slots(), weights);
  }

  STN_HD A weight(int kx, int ky, int kz, int i) const {
    return weights.of[(kz * K + ky) * K + kx][i];
  }
};

template <bool Along, class A, int K, int D>
using TapsToSplat = std::conditional_t<Along, SplatTapsAlong<A, K, D>, SplatTaps<A, K, D>>;

template <int K, int D, class A, class Weighted>
STN_HD void splat_point(const Slab<A>& slab, A* plane, const Weighted& weighted, int i, A value) {
  const auto& taps = weighted.taps;
  for (int kz = 0; kz < (D == 3 ? K : 1); ++kz) {
    const int32_t z = D == 3 ? taps.index[D - 1][kz][i] : 0;
    if (D == 3 && (z < slab.low || z >= slab.high)) continue;
    for (int ky = 0; ky < K; ++ky) {
      const int32_t y = taps.index[1][ky][i];
      if (D == 2 && (y < slab.low || y >= slab.high)) continue;
      A* row = plane + y * slab.stride[1] + (D == 3 ? z * slab.stride[2] : 0);
      for (int kx = 0; kx < K; ++kx) {
        const A w = weighted.weight(kx, ky, kz, i);
        if (w != 0) row[taps.index[0][kx][i] * slab.stride[0]] += w * value;
      }
    }
  }
}

// Point by point: a tap of weight 0 gets nothing, whatever the value.
template <int K, int D, class A, class Weighted>
STN_SHARED void splat_points(const Slab<A>& slab, A* plane, const Tile<D>& tile,
                             const Weighted& weighted, const A* values) {
  for (int i = 0; i < tile.slots(); ++i) splat_point<K, D>(slab, plane, weighted, i, values[i]);
}

// A channel some of whose values are not: infinity times a weight of 0 must not reach a pixel.
template <bool Along, class T, class A, int D>
STN_SHARED void splat_not_finite(const SampleParams& p, int64_t warp, const Tile<D>& tile,
                                 const Looks<T, D>& looks, const Slab<A>& slab, A* plane,
                                 const A (&values)[kRoom]) {
  took(Path::splat_points);
  const TapsToSplat<Along, A, 2, D> weighted(p, warp, tile, looks);
  splat_points<2, D>(slab, plane, tile, weighted, values);
}

// What is known of all points of a warp.
struct Spread {
  bool scattered;  // neighbours look far apart
  bool alone;      // no two that look inside see the same pixel
};

// Whether no two points see the same pixel: whether all look at least two pixels apart, along one
// axis or the other; further by what rounding may take away. With zeros around the image: those
// that look there add zeros to pixels of others, while another rule would have them add more.
template <int D>
STN_SHARED bool are_alone(const SampleParams& p, int64_t n) {
  if constexpr (D == 2) {
    constexpr int64_t kLargest = int64_t(1) << 15;  // for float32 to tell pixels well apart
    constexpr double kApart = 2 + 1.0 / 64;
    if (p.map != MapKind::affine || !only_zeros(p) || p.batch != p.input.batch) return false;
    for (int d = 0; d < 2; ++d) {
      if (p.input_size[d] < 2 || p.input_size[d] > kLargest) return false;
    }
    const AffineMap<double, 2> map(p.warp, n, pixel_frame<double, 2>(p), p.output_size,
                                   p.align_corners);
    const auto& m = map.matrix;
    // The inverse's norm tells how far apart points are that look so far apart.
    const double determinant = m[0][0] * m[1][1] - m[0][1] * m[1][0];
    const double widest =
        std::max(std::abs(m[0][1]) + std::abs(m[1][1]), std::abs(m[0][0]) + std::abs(m[1][0]));
    return widest * kApart < std::abs(determinant);
  }
  return false;
}

// Linear, planar: adds one tile of output n into the slab's channels that begin at first_channel,
// by what its pixels collect. False, and nothing is done, where that is no gain.
template <class A, int D>
STN_SHARED bool splat_collected(const SampleParams& p, const Plan& plan, const Slab<A>& slab,
                                Zeros<A>& zeros, int64_t warp, const Tile<D>& tile,
                                const Looks<A, D>& looks, const Box<D>& next, int64_t n,
                                int64_t first_channel, int64_t channels) {
  Stretches<A, D> stretches;
  const int together = static_cast<int>(std::min<int64_t>(p.channels, 1 << 10));
  if (!stretches.find(p, plan, tile, looks, together)) return false;
  const int32_t size = static_cast<int32_t>(p.input_size[D - 1]);
  const Reached<A> reached(Interval<A>(stretches.low, stretches.high), 0, size);
  const Touched touched{static_cast<int32_t>(reached.low), static_cast<int32_t>(reached.high)};
  if (touched.low > touched.high || !touched.any_in(slab)) {
    took(Path::splat_elsewhere);
    return true;
  }
  zeros.reach(touched);
  const int slots = tile.slots();
  if (next.known && next.low[D - 1] >= slab.low && next.high[D - 1] < slab.high) {
    for (int64_t c = 0; c < channels; ++c) {
      next.announce(slab.stride, slab.data + c * slab.stride_c);
    }
  }
  bool first = true;
  for_each_collectors(p, slab, stretches, [&](const auto& collectors) {
    const auto add = [&](auto block, int64_t c, auto&& add_one) {
      constexpr int C = decltype(block)::value;
      alignas(64) A values[C][kRoom];
      bool finite = true;
      A* plane = slab.data + c * slab.stride_c;
      for (int k = 0; k < C; ++k) {
        load_tile(tile, p.output, n, first_channel + c + k, values[k]);
        finite &= all_finite(values[k], slots);
      }
      if (!finite) {
        // Whatever channels are together, the sums are to be the same.
        for (int k = 0; C > 1 && k < C; ++k) add_one(c + k);
        if (C == 1 && first) splat_not_finite<false>(p, warp, tile, looks, slab, plane, values[0]);
        return;
      }
      took(Path::splat_collected);
      collectors.template collect<C>(slab, plane, values);
    };
    const auto add_one = [&](int64_t c) {
      add(std::integral_constant<int, 1>{}, c, [](int64_t) {});
    };
    for_each_channel_block(plan.plane_by_plane ? 1 : kChannelBlock, channels,
                           [&](auto block, int64_t c) { add(block, c, add_one); });
    first = false;
  });
  return true;
}

// Linear, planar, two dimensions: the same by patches.
template <class A, class T>
STN_SHARED void splat_patched(const SampleParams& p, const Slab<A>& slab, Zeros<A>& zeros,
                              int64_t warp, const Tile<2>& tile, const Looks<T, 2>& looks,
                              const Box<2>& next, const RunStarts<A, 2, 2>& runs,
                              const PatchBox<A>& box, int64_t n, int64_t first_channel,
                              int64_t channels) {
  const Touched touched{box.top, box.top + box.height - 1};
  if (!touched.any_in(slab)) return took(Path::splat_elsewhere);
  zeros.reach(touched);
  const int slots = tile.slots();
  Patch<A> patch;
  const PatchPoints<A> points(box, runs, slots, slab.stride[1], Patch<A>::second(box));
  alignas(64) A together[(kRoom + 1) * kPatchChannels];
  for_each_channel_block<kPatchChannels>(channels, [&](auto block, int64_t c) {
    constexpr int C = decltype(block)::value;
    A* plane = slab.data + c * slab.stride_c;
    bool finite[C], all = true;
    load_together(tile, p.output, n, first_channel + c, together, finite);
    for (bool one : finite) all &= one;
    if (next.known && next.low[1] >= slab.low && next.high[1] < slab.high) {
      for (int k = 0; k < C; ++k) next.announce(slab.stride, plane + k * slab.stride_c);
    }
    took(Path::splat_patched);
    for (int k = 0; !all && k < C; ++k) {
      for (int i = 0; !finite[k] && i < slots; ++i) together[i * kPatchChannels + k] = 0;
    }
    patch.clear(box);
    patch.add(box, points, together, slots);
    patch.template give<C>(box, slab, plane);
    for (int k = 0; !all && k < C; ++k) {
      if (finite[k]) continue;
      alignas(64) A values[kRoom];
      load_tile(tile, p.output, n, first_channel + c + k, values);
      splat_not_finite<false>(p, warp, tile, looks, slab, plane + k * slab.stride_c, values);
    }
  });
}

// The same, in any way. False, and nothing is done, where the image wraps under one of its points.
template <bool Along, class A, class T, int D>
bool splat_runs(const SampleParams& p, const Plan& plan, const Slab<A>& slab, const Rows& rows,
                Share share, const Spread& spread, Zeros<A>& zeros, int64_t warp,
                const Tile<D>& tile, const Looks<T, D>& looks, const Box<D>& next, Order& order,
                int64_t n, int64_t first_channel, int64_t channels) {
  if constexpr (!Along && kCollects<A> && std::is_same<T, A>::value) {
    if (p.channels >= kFewestCollected && !spread.scattered &&
        splat_collected(p, plan, slab, zeros, warp, tile, looks, next, n, first_channel,
                        channels)) {
      return true;
    }
  }
  const int slots = tile.slots();
  RunStarts<A, 2, D> runs;
  bool found = false, any_nan = false;
  if constexpr (!Along && D == 2) {
    if (has_patches(p) && !spread.scattered && !spread.alone) {
      any_nan = find_runs<true>(p, looks, slots, runs);
      found = true;
      if (any_needs_room<2>(looks.frame) && !runs.all_whole(slots)) return false;
      const PatchBox<A> box(runs, slots, slab.stride[1]);
      const bool crowded = slab.stride[1] * sizeof(A) % 1024 == 0;
      if (box.pays(slots, crowded)) {
        splat_patched(p, slab, zeros, warp, tile, looks, next, runs, box, n, first_channel,
                      channels);
        return true;
      }
    }
  }
  Near<T, D> near;
  order.fit(spread.scattered || spread.alone, tile.width, tile.rows, tile.pitch);
  // Of a tile that may see other slabs, too, only the points that see this one.
  const bool cut = share == Share::some && near.can_find(looks);
  if (cut) near.find(rows, looks, order, slots);
  const Looks<T, D>& seen = cut ? near.looks : looks;
  const Order& in_order = cut ? near.order : order;
  const int count = cut ? near.count : slots;
  if (cut || !found) any_nan = find_runs<true>(p, seen, count, runs);
  if (any_needs_room<2>(seen.frame) && !runs.all_whole(count)) return false;
  Touched touched;
  touched.add(runs.outermost, p.input_size[D - 1] > 1 ? 1 : 0, count);
  if (!touched.any_in(slab)) {
    took(Path::splat_elsewhere);
    return true;
  }
  zeros.reach(touched);
  if (plan.plane_by_plane) took(Path::splat_by_plane);
  if (spread.scattered) took(Path::splat_scattered);
  alignas(64) A direction[D][kRoom];
  bool directed = true;
  if (Along) {
    find_directions(p, warp, tile, looks, direction);
    through_boundary<2>(looks, cut || any_nan, slots, direction);
    for (const auto& along : direction) directed &= all_finite(along, slots);
    if (cut) near.keep(direction);
  }
  const bool inside = touched.all_in(slab), far = spread.scattered && is_plane_far(p);
  if (far) took(Path::splat_announced);
  // The values of C channels from c on.
  const auto add = [&](auto block, int64_t c, auto&& add_one) {
    constexpr int C = decltype(block)::value;
    alignas(64) A values[C][kRoom];
    bool finite = directed;
    A* plane = slab.data + c * slab.stride_c;
    if (far) {
      for (int k = 0; k < C; ++k) announce_runs(runs, count, plane + k * slab.stride_c);
    }
    for (int k = 0; k < C; ++k) {
      load_tile(tile, p.output, n, first_channel + c + k, values[k]);
      finite &= all_finite(values[k], slots);
    }
    if (!finite) {
      // Whatever channels are together, the sums are to be the same.
      for (int k = 0; C > 1 && k < C; ++k) add_one(c + k);
      if (C == 1) splat_not_finite<Along>(p, warp, tile, looks, slab, plane, values[0]);
      return;
    }
    if (next.known && next.low[D - 1] >= slab.low && next.high[D - 1] < slab.high) {
      for (int k = 0; k < C; ++k) next.announce(slab.stride, plane + k * slab.stride_c);
    }
    const auto weigh = std::integral_constant<Weigh, Along ? Weigh::along : Weigh::plainly>{};
    took(inside ? Path::splat_inside : Path::splat_across);
    if (cut) near.keep(values);
    const Parts<A, C, D> parts(weigh, runs, count, direction, values);
    const auto add_all = [&](auto alone) {
      inside ? add_parts<true, alone.value, C, D>(slab, plane, in_order, runs, parts)
             : add_parts<false, alone.value, C, D>(slab, plane, in_order, runs, parts);
    };
    if constexpr (D == 2 && !Along) {
      if (spread.alone && known_inside(looks)) {
        took(Path::splat_alone);
        return add_all(std::true_type{});
      }
    }
    add_all(std::false_type{});
  };
  const auto add_one = [&](int64_t c) { add(std::integral_constant<int, 1>{}, c, [](int64_t) {}); };
  constexpr int kMost = D == 3 ? 2 : kChannelBlock;
  for_each_channel_block<kMost>(plan.plane_by_plane ? 1 : kMost, channels,
                                [&](auto block, int64_t c) { add(block, c, add_one); });
  return true;
}

// Any interpolation and layout.
template <bool Along, class Element, int K, class T, int D>
void splat_taps(const SampleParams& p, Layout layout, const Slab<Accumulate<Element>>& slab,
                Zeros<Accumulate<Element>>& zeros, int64_t warp, const Tile<D>& tile,
                const Looks<T, D>& looks, int64_t n, int64_t first_channel, int64_t channels) {
  using A = Accumulate<Element>;
  const TapsToSplat<Along, A, K, D> weighted(p, warp, tile, looks);
  Touched touched;
  for (const auto& index : weighted.taps.index[D - 1]) touched.add(index, 0, tile.slots());
  if (!touched.any_in(slab)) return took(Path::splat_elsewhere);
  zeros.reach(touched);
  took(layout == Layout::channels ? Path::splat_channels : Path::splat_taps);
  if (layout == Layout::channels) {
    splat_channels<Element, K, D>(p, slab, tile, weighted,
                                  plane_of<const Element>(p.output, n, first_channel),
                                  static_cast<int>(channels));
    return;
  }
  alignas(64) A values[kRoom];
  for (int64_t c = 0; c < channels; ++c) {
    load_tile(tile, p.output, n, first_channel + c, values);
    splat_points<K, D>(slab, slab.plane(c), tile, weighted, values);
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
