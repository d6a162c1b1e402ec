// What a boundary rule adds to a splat through zeros: the points that look beyond the image give
// its pixels more than they would if there were zeros, those that look inside give them the same.
#pragma once

#include "cpu/parts.h"
#include "cpu/tiles.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Points that look beyond the image, of as many tiles as there is room for.
template <class A, int D>
struct alignas(64) Beyond {
  static constexpr int L = kLanes<A>;
  Looks<A, D> looks;
  int64_t offset[kRoom];  // of their values in a plane
  int count, slots;       // slots: with what fills the last vector

  explicit Beyond(const Frame<A, D>& frame) : count(0) {
    looks.frame = frame;
    looks.monotonic = looks.ranged = false;
  }

  STN_HD bool has_room(const Tile<D>& tile) const { return count + tile.slots() <= kTile; }

  STN_SHARED void add(const SampleParams& p, const Tile<D>& tile, const Looks<A, D>& all) {
    constexpr int kTogether = 8;
    alignas(64) uint8_t marks[kRoom];
    for (int i = 0; i < tile.slots(); ++i) {
      bool inside = true;
      for (int d = 0; d < D; ++d) {
        inside &= (all.x[d][i] >= 0) & (all.x[d][i] <= all.frame.axis[d].last);
      }
      marks[i] = !inside;
    }
    int number = count;  // (a member would be written in every turn of the loop)
    tile.for_each_row([&](int slot, const int32_t (&at)[D]) {
      const int64_t row = offset_of<D>(at, p.output.stride);
      for (int j = 0; j < tile.width; j += kTogether) {
        uint64_t any = 0;
        const int end = std::min(kTogether, tile.width - j);
        std::memcpy(&any, marks + slot + j, end);
        for (int k = j; any != 0 && k < j + end; ++k) {
          for (int d = 0; d < D; ++d) looks.x[d][number] = all.x[d][slot + k];
          offset[number] = row + k * p.output.stride[0];
          number += marks[slot + k];
        }
      }
    });
    count = number;
  }

  // To be called when all are there.
  STN_HD void fill() {
    slots = (count + L - 1) / L * L;
    for (int d = 0; d < D && count > 0; ++d) {
      std::fill(looks.x[d] + count, looks.x[d] + slots, looks.x[d][count - 1]);
    }
  }

  STN_HD void load_values(const A* plane, A (&values)[kRoom]) const {
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i) {
      values[i] = plane[offset[i]];
      __asm__ volatile("");  // keeps the compiler from turning this loop into gathers
    }
    std::fill(values + count, values + slots, A(0));
  }

  // Where they look without the rule, seen from the first tap that they have with it.
  STN_HD void find_unruled(const RunStarts<A, 2, D>& runs, A (&distance)[D][kRoom]) const {
    using V = Native<A>;
    for (int d = 0; d < D; ++d) {
      for (int i = 0; i < slots; i += L) {
        const V x = load<V>(&looks.x[d][i]);
        const V first = bound_number(looks.frame.axis[d], x) - load<V>(&runs.distance[d][i]);
        store<L>(&distance[d][i], V(x - first));
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

// Their share of output n, added to the channels [first, first + channels).
template <class A, int D>
STN_SHARED void splat_points_beyond(const SampleParams& p, const Slab<A>& slab,
                                    const Beyond<A, D>& beyond, Order& order, int64_t n,
                                    int64_t first, int64_t channels) {
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
  for_each_channel_block(channels, [&](auto block, int64_t k) {
    const int64_t c = first + k;
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

// What the rule adds to channels of image `image`, seen as output n, on top of the splat through
// zeros. (Of all points, whatever the slab sees: no sum may depend on where an image is cut.)
template <class A>
void splat_beyond(const SampleParams& p, const Plan& plan, Slab<A> slab, int64_t image, int64_t n,
                  int64_t first, int64_t channels, Order& order) {
  slab.data = plane_of<A>(p.input, image, 0);
  slab.stride_c = p.input.stride_c;
  std::copy(p.input.stride, p.input.stride + 3, slab.stride);
  Basis none;  // no map that is turned round has one
  Beyond<A, 2> beyond(pixel_frame<A, 2>(p));
  const auto add_all = [&] {
    beyond.fill();
    splat_points_beyond(p, slab, beyond, order, n, first, channels);
    beyond.count = 0;
  };
  for_each_tile<2>(p, plan, none, p.warp.batch == 1 ? 0 : n, 0, plan.tiles, [&](const auto& tiles) {
    const auto& looks = tiles.looks();
    using T = typename std::decay<decltype(looks.x[0][0])>::type;
    // Only maps of the sums' type are turned round.
    if constexpr (std::is_same<T, A>::value) {
      if (known_inside(looks)) return;
      if (!beyond.has_room(tiles.tile())) add_all();
      beyond.add(p, tiles.tile(), looks);
    }
  });
  add_all();
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
