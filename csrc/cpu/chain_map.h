// A chain (params.h) as a map, of which cpu/chain.h says where it looks and what a gradient does.
#pragma once

#include <new>
#include <type_traits>

#include "math/chain.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// A map, or none. (std::optional's functions are of no instruction set, and could not inline ours.)
template <class Map>
class Maybe {
 public:
  template <class... Arguments>
  STN_HD void make(const Arguments&... arguments) {
    static_assert(std::is_trivially_copyable<Map>::value, "");
    new (bytes_) Map(arguments...);
    there_ = true;
  }
  STN_HD explicit operator bool() const { return there_; }
  STN_HD const Map& operator*() const { return *reinterpret_cast<const Map*>(bytes_); }
  STN_HD const Map* operator->() const { return &**this; }

 private:
  alignas(Map) unsigned char bytes_[sizeof(Map)];
  bool there_ = false;
};

template <class T, int D>
struct ChainMap {
  static constexpr bool parametric = false;
  static constexpr bool monotonic = false;
  static constexpr bool linear = true;  // nothing asks: a chain has no tangent here
  using coordinate_type = T;
  using Matrix = ProjectiveMap<T, D>;

  Maybe<Matrix> inner, outer;
  GridMap<T, D, T, false> field;
  Frame<T, D> lattice;  // of the field as an image
  int64_t size[3];

  ChainMap(const Warp& warp, int64_t n, const Frame<T, D>& frame, const int64_t (&output_size)[3],
           bool align_corners)
      : ChainMap(warp, n, frame, output_size, align_corners,
                 Meeting<T, D>(*warp.chain, frame, output_size, align_corners)) {}

 private:
  ChainMap(const Warp& warp, int64_t n, const Frame<T, D>& frame, const int64_t (&output_size)[3],
           bool align_corners, const Meeting<T, D>& meeting)
      : field(warp, n, meeting.reading), lattice(meeting.field) {
    const Chain& chain = *warp.chain;
    std::copy(chain.size, chain.size + 3, size);
    if (chain.inner.data) inner.make(chain.inner, n, meeting.frame, output_size, align_corners);
    if (chain.outer.data) outer.make(chain.outer, n, frame, meeting.size, align_corners);
  }
};

template <class Map>
constexpr bool kIsChain = false;
template <class T, int D>
constexpr bool kIsChain<ChainMap<T, D>> = true;

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
