// How many of a tile's points see some rows of an image: what can be told before it is found where
// they look, and what from that.
#pragma once

#include "cpu/looks.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// The interval in which a tile looks along the outermost axis. False where a look is NaN.
template <class T, int D>
STN_HD bool outermost_range(const Looks<T, D>& looks, int slots, T& low, T& high) {
  using V = Native<T>;
  constexpr int L = kLanes<T>;
  if (looks.ranged) {
    low = looks.least[D - 1];
    high = looks.greatest[D - 1];
    return true;
  }
  const T* x = looks.x[D - 1];
  V least = all<V>(x[0]), greatest = least;
  bool nan = x[0] != x[0];
  int i = 0;
  for (; i + L <= slots; i += L) {
    const V at = load<V>(x + i);
    nan |= any_nan(at, at);
    least = smaller(least, at);
    greatest = larger(greatest, at);
  }
  low = least_lane(least);
  high = -least_lane(V(-greatest));
  for (; i < slots; ++i) {
    nan |= x[i] != x[i];
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  return !nan;
}

// The same of a tile of a free map, from one component of its values. False where a vector does not
// hold it, too.
template <class T, int D, class E, bool Packed>
STN_HD bool outermost_range(const GridMap<T, D, E, Packed>& map, const Tile<D>& tile, T& low,
                            T& high) {
  using V = Native<T>;
  if (!Packed && map.stride[0] != 1) return false;
  V least = all<V>(std::numeric_limits<T>::infinity()), greatest = -least;
  bool nan = false;
  look_by_vectors(map, tile, [&](int, const V(&look)[D]) __attribute__((always_inline)) {
    const V x = look[D - 1];
    nan |= any_nan(x, x);
    least = smaller(least, x);
    greatest = larger(greatest, x);
  });
  low = least_lane(least);
  high = -least_lane(V(-greatest));
  return !nan;
}

// The same of any tile. False where it is found no sooner than where all points look.
template <class T, int D>
STN_SHARED bool outermost_range(const AnyMap<T, D>& any, const Tile<D>& tile, T& low, T& high) {
  bool known = false;
  any.visit([&](const auto& map) {
    using Map = std::decay_t<decltype(map)>;
    if constexpr (Map::parametric && Map::monotonic) {
      T least[D], greatest[D];
      const auto corner = [&](int k, T(&x)[D]) { look_of_corner(map, tile, k, x); };
      known = range_of_corners(corner, least, greatest);
      low = least[D - 1];
      high = greatest[D - 1];
    } else if constexpr (!Map::parametric && !kIsChain<Map>) {
      known = outermost_range(map, tile, low, high);
    }
  });
  return known;
}

// The rows (planes, of a volume) low <= row < high, as looks see them whose taps reach so far.
struct Rows {
  int32_t low, high;
  int reach;
};

// How many of a tile's looks see one, as far as is known.
enum class Share { none, some, all };

// Whether the interval in which they lie can tell.
template <class T>
STN_HD bool tells_share(const Axis<T>& axis) {
  return axis.padding != Padding::reflection && axis.padding != Padding::wrap;
}

// Of looks in an interval along the outermost axis.
template <class T>
STN_HD Share share_of(const Rows& rows, const Axis<T>& axis, T low, T high) {
  const T reach = static_cast<T>(rows.reach);
  if (axis.padding == Padding::border) {
    low = std::clamp(low, T(0), axis.last);
    high = std::clamp(high, T(0), axis.last);
  }
  // (None must be true, all is a hint: what looks beyond the image sees its edge or nothing.)
  if (high + reach + 1 < rows.low || low - reach - 1 > rows.high) return Share::none;
  const bool below = rows.low > 0 && low < rows.low + reach;
  const bool above = rows.high < axis.size && high + reach >= rows.high;
  return below || above ? Share::some : Share::all;
}

template <class T, int D>
STN_SHARED Share share_of(const Rows& rows, const Looks<T, D>& looks, int slots) {
  const Axis<T>& axis = looks.frame.axis[D - 1];
  if (rows.low == 0 && rows.high == axis.size) return Share::all;
  T low, high;
  if (!tells_share(axis) || !outermost_range(looks, slots, low, high)) return Share::some;
  return share_of(rows, axis, low, high);
}

// Whether a tile may see one, where that is told without finding where its points look.
template <class T, int D>
STN_HD bool may_see(const Rows& rows, const Axis<T>& axis, const AnyMap<T, D>& map,
                    const Tile<D>& tile) {
  T low, high;
  if (!outermost_range(map, tile, low, high)) return true;
  return share_of(rows, axis, low, high) != Share::none;
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
