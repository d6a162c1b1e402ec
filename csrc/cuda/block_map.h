// A warp's map as the threads of a block see it.
#pragma once

#include <new>
#include <type_traits>

#include "cuda/dispatch.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// A parametric map costs loads and divisions: one thread makes it, in the block's memory, for all.
template <class Map>
class BlockMap;

template <class T, int D>
class BlockMap<AffineMap<T, D>> {
 public:
  using Map = AffineMap<T, D>;

  template <class Block, class Params>
  STN_HD const Map& make(const Block& block, const Params& p, const Frame<T, D>& frame, int64_t n) {
    block.once([&] { new (bytes_) Map(p.warp, n, frame, p.output_size, p.align_corners); });
    return *reinterpret_cast<const Map*>(bytes_);
  }

 private:
  alignas(Map) unsigned char bytes_[sizeof(Map)];
};

template <class T, int D>
class BlockMap<AnyGrid<T, D>> {
 public:
  template <class Block, class Params>
  STN_HD AnyGrid<T, D> make(const Block&, const Params& p, const Frame<T, D>& frame, int64_t n) {
    return {&p.warp, &frame, n};
  }
};

// How the points' looks move (params.h), as the threads of a block see it: of(p, x), in pixels,
// along each axis by 1 where there is no direction.
template <class Map>
class BlockDirection;

template <class T, int D>
class BlockDirection<AffineMap<T, D>> {
 public:
  using Map = AffineMap<T, D>;

  template <class Block>
  STN_HD void make(const Block& block, const SampleParams& p, const Frame<T, D>& frame, int64_t n) {
    if (p.direction != Direction::tangent) return;
    block.once([&] {
      new (bytes_) Map(p.tangent, n, tangent_frame(frame), p.output_size, p.align_corners);
    });
  }

  STN_HD void along_tangent(const SampleParams&, const Frame<T, D>&, int64_t, const int32_t (&p)[D],
                            T (&x)[D]) const {
    look(*reinterpret_cast<const Map*>(bytes_), p, x);
  }

 private:
  alignas(Map) unsigned char bytes_[sizeof(Map)];
};

template <class T, int D>
class BlockDirection<AnyGrid<T, D>> {
 public:
  template <class Block>
  STN_HD void make(const Block&, const SampleParams&, const Frame<T, D>&, int64_t) {}

  STN_HD void along_tangent(const SampleParams& params, const Frame<T, D>& frame, int64_t n,
                            const int32_t (&p)[D], T (&x)[D]) const {
    const AnyGrid<T, D> tangent{&params.tangent, &frame, n};
    tangent.with_grid([&](const auto& grid) {
      grid.value(p, x);
      grid.gradient(x);
    });
  }
};

// No direction.
struct Unmoved {
  template <class... Arguments>
  STN_HD void make(const Arguments&...) {}
};

template <class Chosen>
using MovesOf = std::conditional_t<Chosen::along, BlockDirection<typename Chosen::Map>, Unmoved>;

template <class A, class Moves, class T, int D>
STN_HD void direction_of(const Moves& moves, const SampleParams& params, const Frame<T, D>& frame,
                         int64_t n, const int32_t (&p)[D], A (&direction)[D]) {
  T x[D];
  if (params.direction == Direction::tangent) {
    moves.along_tangent(params, frame, n, p, x);
  } else {
    STN_UNROLL
    for (int d = 0; d < D; ++d) {
      x[d] = params.direction == Direction::none || params.axis == d ? T(1) : T(0);
    }
  }
  STN_UNROLL
  for (int d = 0; d < D; ++d) direction[d] = static_cast<A>(x[d]);
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
