// A warp's map as the threads of a block see it.
#pragma once

#include <new>

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

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
