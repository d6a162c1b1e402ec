// A warp's map as the threads of a block see it.
#pragma once

#include <new>
#include <type_traits>

#include "cuda/channels.h"
#include "cuda/dispatch.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// A parametric map costs loads and divisions: one thread makes it, in the block's memory, for all.
template <class Map, bool = Map::parametric>
class BlockMap {
 public:
  template <class Block, class Launch>
  STN_HD const Map& make(const Block& block, const Launch& launch, int64_t n) {
    const auto& p = launch.p;
    block.once([&] {
      make_map<Map>(bytes_, p.map, p.warp, n, launch.frame, p.output_size, p.align_corners);
    });
    return *reinterpret_cast<const Map*>(bytes_);
  }

 private:
  alignas(Map) unsigned char bytes_[sizeof(Map)];
};

template <class T, int D>
class BlockMap<AnyGrid<T, D>, false> {
 public:
  template <class Block, class Launch>
  STN_HD AnyGrid<T, D> make(const Block&, const Launch& launch, int64_t n) {
    return {&launch.p.warp, &launch.reading, n};
  }
};

// How the points' looks move (params.h), as the threads of a block see it: of(p, x), in pixels,
// along each axis by 1 where there is no direction; and how a map's sums do.
template <class Map, bool = Map::parametric>
class BlockDirection {
 public:
  template <class Block, class Launch>
  STN_HD void make(const Block& block, const Launch& launch, int64_t n) {
    const auto& p = launch.p;
    if (p.direction != Direction::tangent) return;
    block.once([&] {
      const auto make = [&](void* there, const Warp& warp, const auto& frame) {
        make_map<Map>(there, p.map, warp, n, frame, p.output_size, p.align_corners);
      };
      make(tangent_, p.tangent, tangent_frame(launch.frame));
      if constexpr (!Map::linear) make(map_, p.warp, launch.frame);
    });
  }

  template <class Launch, class T, int D>
  STN_HD void along_tangent(const Launch&, int64_t, const int32_t (&p)[D], T (&x)[D]) const {
    T at[D];
    position(p, at);
    if constexpr (Map::linear) {
      tangent().coordinate(at, x);
    } else {
      map().move(at, tangent(), x);
    }
  }

  template <class T, int D, int N, class... Group>
  STN_HD void bend(const int32_t (&p)[D], const T (&g)[D], T (&s)[N], Group... group) const {
    if constexpr (!Map::linear) {
      T at[D];
      position(p, at);
      map().bend(at, tangent(), g, s, group...);
    }
  }

 private:
  STN_HD const Map& tangent() const { return *reinterpret_cast<const Map*>(tangent_); }
  STN_HD const Map& map() const { return *reinterpret_cast<const Map*>(map_); }

  alignas(Map) unsigned char tangent_[sizeof(Map)];
  alignas(Map) unsigned char map_[Map::linear ? 1 : sizeof(Map)];
};

template <class T, int D>
class BlockDirection<AnyGrid<T, D>, false> {
 public:
  template <class Block, class Launch>
  STN_HD void make(const Block&, const Launch&, int64_t) {}

  // The values move, the points' own positions do not.
  template <class Launch>
  STN_HD void along_tangent(const Launch& launch, int64_t n, const int32_t (&p)[D],
                            T (&x)[D]) const {
    const AnyGrid<T, D> tangent{&launch.p.tangent, &launch.reading, n};
    tangent.value(p, x);
    launch.reading.gradient(x);
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
STN_HD void direction_of(const Moves& moves, const SampleLaunch<T, D>& launch, int64_t n,
                         const int32_t (&p)[D], A (&direction)[D]) {
  const SampleParams& params = launch.p;
  T x[D];
  if (params.direction == Direction::tangent) {
    moves.along_tangent(launch, n, p, x);
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
