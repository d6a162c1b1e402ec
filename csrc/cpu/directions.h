// Derivatives along a direction: how each point's look moves, in pixels.
#pragma once

#include "cpu/looks.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// What a map's derivatives along a tangent follow from.
struct Tangent {
  MapKind map;
  const Warp &warp, &tangent;
  const int64_t (&output_size)[3];
  bool align_corners;
};
template <class Params>
STN_HD Tangent tangent_of(const Params& p) {
  return {p.map, p.warp, p.tangent, p.output_size, p.align_corners};
}

// Along the tangent. (One copy for all kernels: there are many maps.)
template <class T, int D>
STN_SHARED void find_tangents(const Tangent& p, int64_t n, const Tile<D>& tile,
                              const Frame<T, D>& frame, T (&x)[D][kRoom]) {
  const AnyMap<T, D> any(map_of_tangent(p.map), p.tangent, n, tangent_frame(frame), p.output_size,
                         p.align_corners);
  any.visit([&](const auto& tangent) {
    using Map = typename std::decay<decltype(tangent)>::type;
    if constexpr (Map::linear) {
      coordinates(tangent, tile, x);
    } else {
      const Map map(p.warp, n, frame, p.output_size, p.align_corners);
      coordinates(Moving<Map>{map, tangent}, tile, x);
    }
  });
}

// Before the boundary rule. Without a direction, 1 along each axis. A: the type of weights and
// sums.
template <class A, class T, int D>
STN_SHARED void find_directions(const SampleParams& p, int64_t n, const Tile<D>& tile,
                                const Looks<T, D>& looks, A (&direction)[D][kRoom]) {
  const int slots = tile.slots();
  if (p.direction != Direction::tangent) {
    for (int d = 0; d < D; ++d) {
      const bool moves = p.direction == Direction::none || p.axis == d;
      std::fill(direction[d], direction[d] + slots, A(moves));
    }
  } else if constexpr (std::is_same<T, A>::value) {
    find_tangents(tangent_of(p), n, tile, looks.frame, direction);
  } else {
    T x[D][kRoom];
    find_tangents(tangent_of(p), n, tile, looks.frame, x);
    for (int d = 0; d < D; ++d) std::copy(x[d], x[d] + slots, direction[d]);
  }
}

// The boundary rule's part in what belongs to the coordinates, their gradients or directions (of
// bicubic it is one of the taps); that of a NaN is 0.
template <class T, class A, int D>
__attribute__((noinline)) void through_rule(const Frame<T, D>& frame, const Looks<T, D>& looks,
                                            int slots, A (&grad)[D][kRoom]) {
  using V = Native<T>;
  for (int d = 0; d < D; ++d) {
    for (int i = 0; i < slots; i += kLanes<T>) {
      const V x = load<V>(&looks.x[d][i]);
      const V slope = bound_slope(frame.axis[d], make_finite(frame.axis[d], x));
      const V through = load_converted<V>(&grad[d][i]) * slope;
      store<kLanes<T>>(&grad[d][i], x == x ? through : V{});
    }
  }
}

template <int K, class T, class A, int D>
STN_HD void through_boundary(const Looks<T, D>& looks, bool any_nan, int slots,
                             A (&grad)[D][kRoom]) {
  const Frame<T, D> frame = frame_of_looks<K>(looks.frame);
  if (any_nan || !only(Padding::zeros, frame)) through_rule(frame, looks, slots, grad);
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
