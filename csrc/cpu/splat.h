// The adjoint of sample in its first argument: image[n, c, tap] += weight * values[n, c, p]; with a
// direction, that of its derivative, the weights' derivatives along it in their place.
//
// A task owns a slab of one image, cut along the outermost axis, or of some of its channels, and
// looks at all output points in order; each pixel has one writer, and sees the same additions in
// the same order however many slabs there are.
#pragma once

#include "cpu/scaled.h"
#include "cpu/splat_woven.h"
#include "cpu/tiles.h"
#include "cpu/turned_channels.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Pixels of one task's float scratch, into which 16-bit images accumulate (16 MiB).
constexpr int64_t kScratch = int64_t(1) << 22;

// Slabs of equal size begin at multiples of these, as blocks of pixels do: what is computed of one
// must not depend on the cut.
constexpr int64_t kSlabRows = 4;

// The pixels of rows [low, high) (planes, of a volume).
STN_HD int64_t pixels_of_rows(const SampleParams& p, int64_t low, int64_t high) {
  return (high - low) * points(p.input_size, p.dims) / p.input_size[p.dims - 1];
}

// The rows of a task's slab, of all channels.
struct SlabRows {
  int64_t low, high;
};
STN_HD SlabRows rows_of_slab(const SampleParams& p, const Plan& plan, int64_t task) {
  const int64_t part = task % plan.slabs, rows = p.input_size[p.dims - 1];
  if (!plan.cuts) {
    const auto cut = [&](int64_t k) {
      return k < plan.slabs ? rows * k / plan.slabs / kSlabRows * kSlabRows : rows;
    };
    return {cut(part), cut(part + 1)};
  }
  const int32_t* first = plan.cuts + task / plan.slabs * (plan.slabs + 1) + part;
  return {first[0], first[1]};
}

// Calls f(c, count, low, high) for what a task owns of its image: the rows [low, high) of `count`
// channels from c on, of at most so many channels together.
template <class F>
STN_HD void for_each_slab(const SampleParams& p, const Plan& plan, int64_t task, int64_t most,
                          F&& f) {
  const int64_t part = task % plan.slabs, rows = p.input_size[p.dims - 1];
  if (!plan.by_channel) {
    const SlabRows own = rows_of_slab(p, plan, task);
    for (int64_t c = 0; c < p.channels && own.low < own.high; c += most) {
      f(c, std::min(most, p.channels - c), own.low, own.high);
    }
    return;
  }
  int64_t at = rows * p.channels * part / plan.slabs;
  const int64_t end = rows * p.channels * (part + 1) / plan.slabs;
  while (at < end) {
    const int64_t low = at % rows, whole = low > 0 ? 0 : std::min(most, (end - at) / rows);
    const int64_t high = whole > 0 ? rows : std::min(rows, low + end - at);
    f(at / rows, std::max<int64_t>(1, whole), low, high);
    at += std::max<int64_t>(1, whole) * (high - low);
  }
}

// Whether a plane is too large for the L1 cache to hold what scattered points see of it, if a map
// may scatter them. (What is asked of each warp must not cost much beside it.)
STN_HD bool may_scatter(const SampleParams& p) {
  constexpr int64_t kCache = int64_t(1) << 16;
  return is_free(p.map) && points(p.input_size, p.dims) * element_size(p.input.type) > kCache;
}

// Where a task accumulates some channels of its slab: in the image itself or, if that has 16 bits
// or the sums are woven, in a scratch. The image is contiguous or channels_last: ops.cpp allocates
// it so.
template <class Element, int D>
struct SlabSums {
  using A = Accumulate<Element>;
  static constexpr bool direct = std::is_same<Element, A>::value;
  int64_t image, first_channel, channels;
  bool woven;  // cpu/splat_woven.h
  Slab<A> slab;
  Zeros<A> zeros;
  SampleParams local;  // the offsets of the taps are those of where the sums are

  // Of channels [c, c + count).
  SlabSums(const SampleParams& p, bool weave, int64_t n, int64_t c, int64_t count, int64_t low,
           int64_t high, A* scratch)
      : image(n),
        first_channel(c),
        channels(count),
        woven(weave),
        slab(place(p, low, high, scratch)),
        zeros(slab, weave ? slab.stride[D - 1] : pixels_of_rows(p, 0, 1),
              weave ? woven_blocks(count) : count, channels_inside(p)),
        local(p) {
    for (int d = 0; d < 3; ++d) local.input.stride[d] = slab.stride[d] / slab.together;
  }

  // The numbers of a scratch for so many planes of so many rows (planes, of a volume).
  static int64_t room(const SampleParams& p, bool weave, int64_t rows, int64_t planes) {
    if (!weave) return pixels_of_rows(p, 0, rows) * planes;
    int64_t stride[3];
    woven_strides<D>(p.input_size, stride);
    return rows * stride[D - 1] * woven_blocks(planes) + kPatchChannels * kLanes<A>;
  }

  // Adds the tiles [first, last) of the warps through which the image is seen.
  template <bool Along, int K>
  void add(const SampleParams& p, const Plan& plan, Basis& basis, int64_t first, int64_t last,
           Order& order) {
    const Layout layout = layout_of<K, D>(p);
    const int64_t images = p.input.batch == 1 ? p.batch : 1;
    for (int64_t n = image; n < image + images; ++n) {
      const int64_t warp = p.warp.batch == 1 ? 0 : n;
      const Spread spread{K == 2 && may_scatter(p) && is_scattered<D>(p, warp),
                          K == 2 && are_alone<D>(p, warp)};
      const bool may_pass = !spread.scattered && (slab.low > 0 || slab.high < p.input_size[D - 1]);
      const Rows rows{slab.low, slab.high, K / 2};
      const auto work = [&](const auto& tiles) {
        const auto& tile = tiles.tile();
        const auto& looks = tiles.looks();
        if (look_outside<K>(looks)) return took(Path::splat_nothing);
        const Share share = share_of(rows, looks, tile.slots());
        if (share == Share::none) return took(Path::splat_seen_elsewhere);
        if constexpr (K == 2 && !Along) {
          if (woven && splat_woven(local, slab, spread, zeros, warp, tile, looks, order, n,
                                   first_channel, channels)) {
            return;
          }
        }
        if constexpr (K == 2) {
          if (layout == Layout::planar && !woven &&
              splat_runs<Along>(local, plan, slab, rows, share, spread, zeros, warp, tile, looks,
                                tiles.next(), order, n, first_channel, channels)) {
            return;
          }
        }
        splat_taps<Along, Element, K>(local, layout, slab, zeros, warp, tile, looks, n,
                                      first_channel, channels);
      };
      for_each_tile<D>(p, plan, basis, warp, first, last, work, may_pass ? &rows : nullptr);
    }
  }

  void finish(const SampleParams& p) {
    zeros.complete();
    if (woven) return unweave<Element, D>(p, slab, image, first_channel, channels);
    if constexpr (!direct) store_slab<Element, D>(p, slab, image, first_channel, channels);
  }

 private:
  static bool channels_inside(const SampleParams& p) {
    return p.input.stride_c == 1 && p.channels > 1;
  }

  Slab<A> place(const SampleParams& p, int64_t low, int64_t high, A* scratch) const {
    Slab<A> to{nullptr, 0, {}, static_cast<int32_t>(low), static_cast<int32_t>(high)};
    if (direct && !woven) {
      to.data = plane_of<A>(p.input, image, first_channel);
      to.stride_c = p.input.stride_c;
      std::copy(p.input.stride, p.input.stride + 3, to.stride);
      return to;
    }
    if (woven) {
      to.together = kPatchChannels;
      woven_strides<D>(p.input_size, to.stride);
      to.stride_c = (high - low) * to.stride[D - 1];
    } else {
      const int64_t pixel = channels_inside(p) ? channels : 1;
      to.stride_c = channels_inside(p) ? 1 : pixels_of_rows(p, low, high);
      to.stride[0] = pixel;
      to.stride[1] = p.input_size[0] * pixel;
      to.stride[2] = p.input_size[0] * p.input_size[1] * pixel;
    }
    to.data = scratch - low * to.stride[D - 1];
    return to;
  }
};

// A slab whose pixels gather what sees them. False, and nothing is done, where the maps do not
// allow it.
template <class Element>
bool splat_gathered(const SampleParams& p, const Plan& plan, Layout layout, int64_t task,
                    Order& order) {
  using A = Accumulate<Element>;
  const int64_t image = task / plan.slabs;
  bool done = false;
  for_each_slab(p, plan, task, p.channels, [&](int64_t, int64_t, int64_t low, int64_t high) {
    const Slab<A> slab{nullptr, 0, {}, static_cast<int32_t>(low), static_cast<int32_t>(high)};
    const auto beyond = [&](int64_t n, int64_t c, int64_t channels) {
      if constexpr (std::is_same<Element, A>::value) {
        if (!only_zeros(p)) splat_beyond(p, plan, slab, image, n, c, channels, order);
      }
    };
    if (layout == Layout::channels) {
      if constexpr (kTurnedChannels) {
        done =
            plan.turned && splat_channels_by_turning<Element>(p, plan, image, slab.low, slab.high);
      }
    } else if (layout == Layout::planar) {
      done = plan.scaled && splat_scaled<Element>(p, plan, image, slab.low, slab.high, beyond);
      if constexpr (kTurned<Element>) {
        if (!done && plan.turned) {
          done = splat_by_turning<Element>(p, image, slab.low, slab.high, beyond);
        }
      }
    }
  });
  return done;
}

// Tasks: (image, slab).
template <bool Along, class Element, int K, int D>
void splat_task(const SampleParams& p, const Plan& plan, int64_t task, Order& order) {
  using A = Accumulate<Element>;
  constexpr bool direct = std::is_same<Element, A>::value;
  const int64_t image = task / plan.slabs;
  if constexpr (K == 2 && D == 2 && !Along) {
    if (splat_gathered<Element>(p, plan, layout_of<K, D>(p), task, order)) return;
  }
  const SlabRows own = rows_of_slab(p, plan, task);
  const int64_t height = plan.by_channel ? p.input_size[D - 1] : own.high - own.low;
  const int64_t plane = pixels_of_rows(p, 0, height);
  const bool woven = plan.weaves && K == 2 && !Along;
  const bool in_place = direct && !woven;
  const int64_t room = in_place ? p.channels : kScratch / std::max<int64_t>(1, plane);
  const int64_t most = std::max<int64_t>(1, std::min({p.channels, plan.together, room}));
  const std::unique_ptr<A[]> scratch(
      in_place ? nullptr : new A[SlabSums<Element, D>::room(p, woven, height, most)]);
  Basis basis(plan, false);
  for_each_slab(p, plan, task, most, [&](int64_t c, int64_t count, int64_t low, int64_t high) {
    SlabSums<Element, D> sums(p, woven, image, c, count, low, high, scratch.get());
    sums.template add<Along, K>(p, plan, basis, 0, plan.tiles, order);
    sums.finish(p);
  });
}

// Several tasks together: one after the other comes to a few tiles.
template <class Element, int K, int D>
void splat_in_turns(const SampleParams& p, const Plan& plan, int64_t begin, int64_t end,
                    Order& order) {
  using Sums = SlabSums<Element, D>;
  if constexpr (Sums::direct) {
    Basis basis(plan, false);
    std::vector<std::unique_ptr<Sums>> all;
    for (int64_t task = begin; task < end; ++task) {
      for_each_slab(
          p, plan, task, p.channels, [&](int64_t c, int64_t count, int64_t low, int64_t high) {
            all.emplace_back(new Sums(p, false, task / plan.slabs, c, count, low, high, nullptr));
          });
    }
    for (int64_t first = 0; first < plan.tiles; first += plan.basis_tiles) {
      const int64_t last = std::min(plan.tiles, first + plan.basis_tiles);
      for (auto& sums : all) sums->template add<false, K>(p, plan, basis, first, last, order);
    }
    for (auto& sums : all) sums->finish(p);
  }
}

// The derivative of nearest is 0: ops.cpp returns zeros.
template <bool Along>
void splat_as(const SampleParams& p, const Plan& plan, int64_t begin, int64_t end) {
  with_types(p, p.input.type, [&](auto element, auto interpolation, auto dims) {
    using Element = decltype(element);
    constexpr int K = TapCount<decltype(interpolation)::value>::value;
    constexpr int D = decltype(dims)::value;
    if constexpr (K > 1 || !Along) {
      Order order;  // mostly the same for all tiles
      if constexpr (!Along && D == 2) {
        constexpr int64_t kTogether = 64;
        for (; plan.basis_shared && begin < end; begin += kTogether) {
          splat_in_turns<Element, K, D>(p, plan, begin, std::min(end, begin + kTogether), order);
        }
      }
      for (int64_t task = begin; task < end; ++task) {
        splat_task<Along, Element, K, D>(p, plan, task, order);
      }
    }
  });
}

inline void splat(const SampleParams& p, const Plan& plan, int64_t begin, int64_t end) {
  p.direction != Direction::none ? splat_as<true>(p, plan, begin, end)
                                 : splat_as<false>(p, plan, begin, end);
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
