// The gradient that reaches the warp: first of each tap's pixel value, summed over channels,
//   dot[tap, p] = sum over c of grad[n, c, p] * input[n, c, tap],
// then of the coordinates, by the slopes of the weights, then of the map's own values (a grid, a
// flow) or parameters (theta).
#pragma once

#include "cpu/dots.h"
#include "cpu/parameter_sums.h"
#include "cpu/runs.h"
#include "cpu/sample.h"
#include "cpu/tiles.h"
#include "cpu/together.h"
#include "cpu/view.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// cpu/chain.h
template <class T, int D>
void hand_to_chain(const ChainMap<T, D>& map, const SampleParams& p, int64_t n, const Tile<D>& tile,
                   const T (&grad)[D][kRoom], LaneSums& total);

// (One copy for all kernels, as of what else depends on all maps.)
template <class T, int D>
STN_SHARED void hand_to_map(const AnyMap<T, D>& any, const SampleParams& p, bool add, int64_t n,
                            const Tile<D>& tile, Basis& basis, const T (&grad)[D][kRoom],
                            LaneSums& total) {
  if (p.keeps && !is_free(p.map)) {
    const Reading<T, D> reading(MapKind::pixel_grid, pixel_frame<T, D>(p), p.output_size,
                                p.align_corners);
    return write_gradient<T>(reading, p, false, n, tile, grad);
  }
  any.visit([&](const auto& map) {
    using Map = typename std::decay<decltype(map)>::type;
    if constexpr (kHasBasis<Map>) {
      sum_groups(map, tile, grad, total, basis.of(map, n, tile));
    } else if constexpr (Map::parametric) {
      sum_map(map, tile, grad, total);
    } else if constexpr (kIsChain<Map>) {
      hand_to_chain(map, p, n, tile, grad, total);
    } else {
      write_gradient<typename Map::element>(map.reading, p, add, n, tile, grad);
    }
  });
}

// The parameters' gradient along a tangent: what becomes of the coordinates' gradient as the map
// moves.
template <class T, int D>
STN_SHARED void bend_map(const AnyMap<T, D>& any, const Tangent& p, const Frame<T, D>& frame,
                         int64_t n, const Tile<D>& tile, const T (&grad)[D][kRoom],
                         LaneSums& total) {
  any.visit([&](const auto& map) {
    using Map = typename std::decay<decltype(map)>::type;
    if constexpr (!Map::linear) {
      const Map tangent(p.tangent, n, tangent_frame(frame), p.output_size, p.align_corners);
      sum_map(Bending<Map>{map, tangent}, tile, grad, total);
    }
  });
}

// Gradients of another type than the coordinates'.
template <class A, class T, int D>
struct Converted {
  alignas(64) T to[D][kRoom];
  Converted(const A (&from)[D][kRoom], int slots) {
    for (int d = 0; d < D; ++d) std::copy(from[d], from[d] + slots, to[d]);
  }
};
template <class A, class T, int D>
void hand_to_map(const AnyMap<T, D>& any, const SampleParams& p, bool add, int64_t n,
                 const Tile<D>& tile, Basis& basis, const A (&grad)[D][kRoom], LaneSums& total) {
  const Converted<A, T, D> converted(grad, tile.slots());
  hand_to_map(any, p, add, n, tile, basis, converted.to, total);
}
template <class A, class T, int D>
void bend_map(const AnyMap<T, D>& any, const Tangent& p, const Frame<T, D>& frame, int64_t n,
              const Tile<D>& tile, const A (&grad)[D][kRoom], LaneSums& total) {
  const Converted<A, T, D> converted(grad, tile.slots());
  bend_map(any, p, frame, n, tile, converted.to, total);
}

// Channels whose second derivatives are computed together.
constexpr int kBendBlock = 2;

// Planar: the marked groups' gradients of the coordinates over a block of C channels, from what
// view(g) shows of them, or what they do along a direction. After a NaN, which may be a weight of 0
// times a pixel that is not finite, a group loses its mark.
template <bool Along, class Element, int K, int C, int D, class View>
STN_SHARED void grad_marked(const SampleParams& p, const Groups<Accumulate<Element>, D>& groups,
                            bool first, int64_t n, int64_t c, int32_t* marks, View&& of,
                            const Accumulate<Element> (&direction)[D][kRoom],
                            Accumulate<Element> (&grad)[D][kRoom]) {
  using A = Accumulate<Element>;
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  const typename std::decay<View>::type view = of;  // a copy, which stores cannot touch
  const Element* output = plane_of<const Element>(p.output, n, c);
  for (int g = 0; g < groups.count; ++g) {
    if (!marks[g]) continue;
    V values[C], part[D];
#pragma GCC unroll 8
    for (int k = 0; k < C; ++k) values[k] = groups.load(g, output + k * p.output.stride_c);
    if constexpr (Along) {
      V along[D];
      for (int d = 0; d < D; ++d) along[d] = load<V>(&direction[d][g * L]);
      gradient_seen_along<D, K>(view(g), values, along, part);
    } else {
      gradient_seen<D, K>(view(g), values, part);
    }
    for (int d = 0; d < D; ++d) {
      if (!first) part[d] += load<V>(&grad[d][g * L]);
      store<L>(&grad[d][g * L], part[d]);
    }
    if (any_nan(part)) marks[g] = 0;
  }
}

// Planar, of one channel: the marked groups' values and their gradients (p.keeps); marks as above.
template <class Element, int K, int D, class View>
STN_HD void keep_marked(const SampleParams& p, const Groups<Accumulate<Element>, D>& groups,
                        int64_t n, int32_t* marks, View&& view,
                        Accumulate<Element> (&grad)[D][kRoom]) {
  using A = Accumulate<Element>;
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  Element* output = plane_of<Element>(p.output, n, 0);
  for (int g = 0; g < groups.count; ++g) {
    if (!marks[g]) continue;
    V value[1], slope[D];
    value_and_slopes_seen<D, K>(view(g), value, slope);
    groups.store(g, value, output, 0);
    for (int d = 0; d < D; ++d) store<L>(&grad[d][g * L], slope[d]);
    if (any_nan(value) || any_nan(slope)) marks[g] = 0;
  }
}

// Planar: the groups that have a window.
template <class Element, int K, int D>
STN_SHARED void grad_windows(const SampleParams& p, const Groups<Accumulate<Element>, D>& groups,
                             BatchRange images, WindowTile<Accumulate<Element>, D>& windows,
                             const Box<D>& next, const Accumulate<Element> (&direction)[D][kRoom],
                             Accumulate<Element> (&grad)[D][kRoom]) {
  const auto all = [&](auto reach) {
    took(reach.value == Reach::wide     ? Path::grad_wide
         : reach.value == Reach::narrow ? Path::grad_narrow
                                        : Path::grad_windows);
    const int together = planes_together<Element>(p, windows, kLinesOfSlopes);
    for (int64_t n = images.begin; n < images.end; ++n) {
      for_each_channel_block<kWideBlock<K, D>>(together, p.channels, [&](auto channels, int64_t c) {
        const Element* plane = plane_of<const Element>(p.input, n, c);
        announce<Element>(p, next, n, c, channels.value);
        const bool first = n == images.begin && c == 0;
        const WindowViews<reach.value, Element, K, D> view(p, windows, plane);
        if constexpr (channels.value == 1) {
          if (p.keeps) return keep_marked<Element, K>(p, groups, n, windows.used, view, grad);
        }
        grad_marked<false, Element, K, channels.value>(p, groups, first, n, c, windows.used, view,
                                                       direction, grad);
      });
    }
  };
  with_reach<K>(p, windows, all);
}

// Planar: the groups that have no window yet.
template <bool Along, class Element, int K, int D>
STN_SHARED void grad_runs(const SampleParams& p, const Plan& plan,
                          const RunStarts<Accumulate<Element>, K, D>& starts,
                          const Groups<Accumulate<Element>, D>& groups, BatchRange images,
                          WindowTile<Accumulate<Element>, D>& windows, const Box<D>& next,
                          const Accumulate<Element> (&direction)[D][kRoom],
                          Accumulate<Element> (&grad)[D][kRoom]) {
  took(Path::grad_runs);
  look_at_runs<Element, Along ? kBendBlock : kChannelBlock>(
      p, plan, starts, groups.count, images, windows,
      [&](auto channels, int64_t n, int64_t c, int32_t* marks, auto&& view) {
        announce<Element>(p, next, n, c, channels.value);
        if constexpr (channels.value == 1 && !Along) {
          if (p.keeps) return keep_marked<Element, K>(p, groups, n, marks, view, grad);
        }
        const bool first = n == images.begin && c == 0;
        grad_marked<Along, Element, K, channels.value>(p, groups, first, n, c, marks, view,
                                                       direction, grad);
      });
}

// The gradients of the coordinates of a tile, or what they do along the
// direction. Whether there are any but 0.
template <bool Along, class Element, int K, class T, int D>
bool grad_warp_tile(const SampleParams& p, const Plan& plan, Layout layout, int64_t warp,
                    BatchRange images, const Tile<D>& tile, const Looks<T, D>& looks,
                    const Box<D>& next, Accumulate<Element> (&grad)[D][kRoom]) {
  using A = Accumulate<Element>;
  if (look_outside<K>(looks)) {
    took(Path::grad_nothing);
    if (!p.keeps) return false;
    sample_nothing<Element>(p, tile, images);
    for (auto& axis : grad) std::fill_n(axis, tile.slots(), A(0));
    return true;
  }
  const int slots = tile.slots();
  alignas(64) A direction[D][kRoom];
  WindowTile<A, D> windows;
  if (layout == Layout::planar) {
    const Groups<A, D> groups(tile, p.output.stride);
    if (Along) {
      find_directions(p, warp, tile, looks, direction);
      through_boundary<K>(looks, has_nan(looks, slots), slots, direction);
    }
    bool any_nan = false;
    if constexpr (kWindows<D> && !Along) {  // what windows gain is small beside so much arithmetic
      if (find_windows<K>(p, plan, tile, looks, windows)) {
        any_nan = has_nan(looks, slots);
        grad_windows<Element, K>(p, groups, images, windows, next, direction, grad);
      }
    }
    if (!windows.complete(groups.count) && has_runs<K, D>(p)) {
      RunStarts<A, K, D> starts;
      any_nan |= find_runs<false>(p, looks, slots, starts);
      grad_runs<Along, Element>(p, plan, starts, groups, images, windows, next, direction, grad);
    }
    through_boundary<K>(looks, any_nan, slots, grad);
    if (windows.complete(groups.count)) return true;
  }
  TileTaps<A, K, D> taps;
  TapNumbers<A, K, D> dots;
  fill_taps<Along ? 2 : 1>(looks.frame, looks.x, slots, taps);
  if (Along) find_directions(p, warp, tile, looks, direction);
  make_dots<Element>(p, layout, tile, taps, images, windows, dots);
  for_each_gap(windows, slots, [&](int first, int last) {
    combine<Along>(taps, dots, first, last, direction, grad);
  });
  if (p.keeps) {
    const bool wraps = looks.frame.axis[0].padding == Padding::wrap;
    const Surroundings<Element> nothing;
    sample_gaps<Element>(p, layout, wraps, tile, taps, nothing, images, windows);
  }
  return true;
}

// Tasks: (warp, group of consecutive tiles), group by group where warps share their basis
// functions. The gradient of nearest is 0: ops.cpp returns zeros.
template <bool Along>
void grad_warp_as(const SampleParams& p, const Plan& plan, int64_t begin, int64_t end) {
  with_types(p, p.input.type, [&](auto element, auto interpolation, auto dims) {
    constexpr int K = TapCount<decltype(interpolation)::value>::value;
    constexpr int D = decltype(dims)::value;
    if constexpr (K > 1) {
      const Layout layout = layout_of<K, D>(p);
      const bool bends = p.direction == Direction::tangent && !facts_of<D>(p.map).linear;
      const int64_t groups = (plan.tiles + plan.tiles_per_task - 1) / plan.tiles_per_task;
      Basis basis(plan, true);
      const auto work = [&](int64_t n, int64_t first, int64_t last) {
        const BatchRange images = images_of_warp(p, n);
        const int64_t sums = n * groups + first / plan.tiles_per_task;
        LaneSums total{plan.partial ? plan.partial + sums * p.warp.count : nullptr};
        alignas(64) Accumulate<decltype(element)> grad[D][kRoom], still[D][kRoom];
        for_each_tile<D>(p, plan, basis, n, first, last, [&](const auto& tiles) {
          const auto& tile = tiles.tile();
          const auto& looks = tiles.looks();
          if (grad_warp_tile<Along, decltype(element), K>(p, plan, layout, n, images, tile, looks,
                                                          tiles.next(), grad)) {
            hand_to_map(tiles.map(), p, plan.add, n, tile, basis, grad, total);
          }
          if (Along && bends &&
              grad_warp_tile<false, decltype(element), K>(p, plan, layout, n, images, tile, looks,
                                                          tiles.next(), still)) {
            bend_map(tiles.map(), tangent_of(p), looks.frame, n, tile, still, total);
          }
        });
        if (plan.partial) add_lanes(total, p.warp.count);
      };
      if (plan.basis_shared) return for_each_stretch(plan, p.warp.batch, begin, end, work);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t n = task / groups, first = task % groups * plan.tiles_per_task;
        if (plan.scattered && (task == begin || first == 0)) {
          const int64_t tasks = std::min(end - task, groups - task % groups);
          announce_plane<decltype(element)>(p, images_of_warp(p, n), tasks * plan.tiles_per_task);
        }
        work(n, first, std::min(plan.tiles, first + plan.tiles_per_task));
      }
    }
  });
}

inline void grad_warp(const SampleParams& p, const Plan& plan, int64_t begin, int64_t end) {
  p.direction != Direction::none ? grad_warp_as<true>(p, plan, begin, end)
                                 : grad_warp_as<false>(p, plan, begin, end);
}

template <int D>
void finish_grad_warp_as(const SampleParams& p, const Plan& plan, int64_t begin, int64_t end) {
  finish(p.map, p.warp, p.grad_warp, pixel_frame<double, D>(p), p.output_size, p.align_corners,
         plan, begin, end);
}

inline void finish_grad_warp(const SampleParams& p, const Plan& plan, int64_t begin, int64_t end) {
  p.dims == 2 ? finish_grad_warp_as<2>(p, plan, begin, end)
              : finish_grad_warp_as<3>(p, plan, begin, end);
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
