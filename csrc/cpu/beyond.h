// What a boundary rule adds to a splat through zeros: the points that look beyond the image give
// its pixels more than they would if there were zeros, those that look inside give them the same.
#pragma once

#include "cpu/parts.h"
#include "cpu/tiles.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// A tile's points that look beyond the image.
template <class A, int D>
struct alignas(64) Beyond {
  Looks<A, D> looks;
  int64_t offset[kRoom];  // of their values in a plane
  int count, slots;       // slots: with what fills the last vector

  STN_HD Beyond(const SampleParams& p, const Tile<D>& tile, const Looks<A, D>& all) : count(0) {
    looks.frame = all.frame;
    looks.monotonic = looks.ranged = false;
    tile.for_each_row([&](int slot, const int32_t (&at)[D]) {
      const int64_t row = offset_of<D>(at, p.output.stride);
      for (int j = 0; j < tile.width; ++j) {
        bool inside = true;
        for (int d = 0; d < D; ++d) {
          const A x = all.x[d][slot + j];
          looks.x[d][count] = x;
          inside &= (x >= 0) & (x <= all.frame.axis[d].last);
        }
        offset[count] = row + j * p.output.stride[0];
        count += !inside;
      }
    });
    slots = (count + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
    for (int i = count; i < slots; ++i) {
      for (int d = 0; d < D; ++d) looks.x[d][i] = looks.x[d][count - 1];
    }
  }

  STN_HD void load_values(const A* plane, A (&values)[kRoom]) const {
    for (int i = 0; i < count; ++i) values[i] = plane[offset[i]];
    for (int i = count; i < slots; ++i) values[i] = 0;
  }

  // Where they look without the rule, seen from the first tap that they have with it.
  STN_HD void find_unruled(const RunStarts<A, 2, D>& runs, A (&distance)[D][kRoom]) const {
    using V = Native<A>;
    for (int d = 0; d < D; ++d) {
      for (int i = 0; i < slots; i += kLanes<A>) {
        const V x = load<V>(&looks.x[d][i]);
        const V first = bound_number(looks.frame.axis[d], x) - load<V>(&runs.distance[d][i]);
        store<kLanes<A>>(&distance[d][i], V(x - first));
      }
    }
  }
};

// Whether the whole tile is known to look inside.
template <class A, int D>
STN_HD bool known_inside(const Looks<A, D>& looks) {
  bool inside = looks.ranged;
  for (int d = 0; d < D; ++d) {
    inside &= looks.least[d] >= 0 && looks.greatest[d] <= looks.frame.axis[d].last;
  }
  return inside;
}

// One tile's share, added to the channels of output n.
template <class A, int D>
STN_SHARED void splat_tile_beyond(const SampleParams& p, const Slab<A>& slab, const Tile<D>& tile,
                                  const Looks<A, D>& looks, Order& order, int64_t n) {
  const Beyond<A, D> beyond(p, tile, looks);
  if (beyond.count == 0) return;
  RunStarts<A, 2, D> runs;
  find_runs<true>(p, beyond.looks, beyond.slots, runs);
  Touched touched;
  touched.add(runs.outermost, p.input_size[D - 1] > 1 ? 1 : 0, beyond.slots);
  if (!touched.any_in(slab)) return;
  took(Path::splat_beyond);
  const bool inside = touched.all_in(slab);
  alignas(64) A unruled[D][kRoom];
  beyond.find_unruled(runs, unruled);
  order.fit(false, beyond.count, 1, beyond.count);
  constexpr std::integral_constant<Weigh, Weigh::beyond> weigh;
  for_each_channel_block(p.channels, [&](auto block, int64_t c) {
    constexpr int C = decltype(block)::value;
    alignas(64) A values[C][kRoom];
    bool finite = true;
    for (int k = 0; k < C; ++k) {
      beyond.load_values(plane_of<const A>(p.output, n, c + k), values[k]);
      finite &= all_finite(values[k], beyond.slots);
    }
    A* plane = slab.data + c * slab.stride_c;
    if (finite) {
      const Parts<A, C, D> parts(weigh, runs, beyond.slots, unruled, values);
      inside ? add_parts<true, false, C, D>(slab, plane, order, runs, parts)
             : add_parts<false, false, C, D>(slab, plane, order, runs, parts);
      return;
    }
    // Infinity times a weight of 0 must not reach a pixel.
    took(Path::splat_beyond_points);
    for (int k = 0; k < C; ++k) {
      add_points(weigh, slab, plane + k * slab.stride_c, runs, beyond.count, unruled, values[k]);
    }
  });
}

// What the rule adds to image `image`, on top of the splat through zeros.
template <class A>
void splat_beyond(const SampleParams& p, const Plan& plan, Slab<A> slab, int64_t image,
                  Order& order) {
  if (only_zeros(p)) return;
  slab.data = plane_of<A>(p.input, image, 0);
  slab.stride_c = p.input.stride_c;
  std::copy(p.input.stride, p.input.stride + 3, slab.stride);
  const int64_t images = p.input.batch == 1 ? p.batch : 1;
  Basis none;  // no map that is turned round has one
  for (int64_t n = image; n < image + images; ++n) {
    const int64_t warp = p.warp.batch == 1 ? 0 : n;
    for_each_tile<2>(p, plan, none, warp, 0, plan.tiles, [&](const auto& tiles) {
      const auto& looks = tiles.looks();
      using T = typename std::decay<decltype(looks.x[0][0])>::type;
      // Only maps of the sums' type are turned round.
      if constexpr (std::is_same<T, A>::value) {
        if (!known_inside(looks)) {
          splat_tile_beyond(p, slab, tiles.tile(), looks, order, n);
        }
      }
    });
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
