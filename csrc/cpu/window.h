// Looks of a vector of neighbouring points (a group) at a planar image. They see few rows of
// pixels, and a short stretch of each: a window. Two vectors of pixels (four, where points are far
// apart) hold a row of it, from which permutations take every point's taps; a pixel's weight
// follows from its distance, so that the boundary needs no case of its own. The loads are shared by
// the points, where runs of pixels (cpu/runs.h) take one for each point and row; the weights are
// shared by the channels.
#pragma once

#include "cpu/groups.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Up to how many dimensions windows win against runs (measured, benchmarks/README.md). AVX-512
// permutes two registers by lanes in one instruction; AVX2 needs three.
constexpr int kWindowDims = STN_VECTOR_BYTES == 64 ? 3 : (STN_VECTOR_BYTES == 32 ? 2 : 0);

template <int D>
constexpr bool kWindows = D <= kWindowDims;

// Whether four vectors are tried where points are too far apart for two.
template <int K, int D>
constexpr bool kWide = STN_VECTOR_BYTES == 64 && K == 2 && D == 2;
constexpr int kWideVectors = 4;

// The rows of pixels, along one axis of four vectors' windows, and in all of a volume's, above
// which runs cost less. (Of two vectors': Plan::window_rows.)
constexpr int kMaxWideRows = 4;
constexpr int kMaxRowsOfVolume = 24;

// Keeps a vector in its register: GCC would load it anew for every use, and unaligned loads are
// what limits this.
template <class V>
STN_HD void keep([[maybe_unused]] V& v) {
#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
  __asm__("" : "+v"(v));
#endif
}

// The windows of a tile: where each group's begins, for points that look at x (after the boundary
// rule and, for nearest, rounding). A: the type of coordinates, weights and sums.
template <class A, int D>
struct alignas(64) WindowTile {
  static constexpr int kGroups = kRoom / kLanes<A>;
  static constexpr int kSlots = (kGroups + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
  int vectors;                // that hold a row of a window
  int32_t used[kSlots] = {};  // whether a group has one; later, whether its values stand
  int32_t start[kSlots];      // offset of its first pixel in a plane
  A column[kSlots];           // its first pixel's
  A last[kSlots];             // the last column that has room for all taps
  A row[D - 1][kSlots];       // its first row: y, z
  int32_t rows[D - 1];        // of every window: y's, z's
  const A (*x)[kRoom];        // where the points look
  alignas(64) A bounded[D][kRoom];
  // Along x: the column in its window of a point's first tap, and the distance from that pixel.
  alignas(64) Scalar<Integer<Native<A>>> left[kRoom];
  alignas(64) A across[kRoom];

  STN_SHARED bool complete(int groups) const {
    return std::find(used, used + groups, 0) == used + groups;
  }
};

// The looks after the boundary rule and, for nearest, rounding.
template <int K, class T, int D>
STN_SHARED void bound_looks(const Frame<T, D>& frame, const Looks<T, D>& looks, int slots,
                            T (&x)[D][kRoom]) {
  using V = Native<T>;
  with_rule(frame, [&](auto rule) {
    for (int d = 0; d < D; ++d) {
      const auto axis = rule(frame.axis[d]);
      for (int i = 0; i < slots; i += kLanes<T>) {
        const V at = load<V>(&looks.x[d][i]);
        const V bounded = K == 1 ? nearest_pixel(axis, at) : bound(axis, make_finite(axis, at));
        store<kLanes<T>>(&x[d][i], bounded);
      }
    }
  });
}

// Whether a group's first and last point are near enough for a window: a cheap answer for grids
// whose points are scattered.
template <class A, int D>
STN_HD bool is_plausible(const A (*x)[kRoom], int columns, int rows, int g) {
  constexpr int L = kLanes<A>;
  bool near = true;
  for (int d = 0; d < D; ++d) {
    const A distance = x[d][g * L + L - 1] - x[d][g * L];
    near &= std::abs(distance) <= (d == 0 ? columns : rows);
  }
  return near;
}

// The least and the greatest coordinate of each group along each axis. Those of a monotonic map are
// at its ends (a NaN, too), of blocks at their corners.
template <class A, int D, int N>
STN_HD void coordinate_ranges(const A (*x)[kRoom], bool monotonic, bool blocks, int columns,
                              int rows, int groups, A (&low)[D][N], A (&high)[D][N]) {
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  if (!monotonic) {
    for (int g = 0; g < groups; ++g) {
      const bool plausible = is_plausible<A, D>(x, columns, rows, g);
      for (int d = 0; d < D; ++d) {
        const V at = load<V>(x[d] + g * L);
        low[d][g] = plausible ? least_lane(at) : A(0);
        high[d][g] = plausible ? -least_lane(V(-at)) : coordinate_limit<A>();
      }
    }
    return;
  }
  for (int d = 0; d < D; ++d) {
    for (int g = 0; g < groups; ++g) {
      low[d][g] = x[d][g * L];
      high[d][g] = x[d][g * L + L - 1];
    }
    const auto sort = [&](A* least, A* greatest) __attribute__((always_inline)) {
      for (int g = 0; g < groups; g += L) {
        const V first = load<V>(least + g), last = load<V>(greatest + g);
        store<L>(least + g, smaller(first, last));
        store<L>(greatest + g, larger(first, last));
      }
    };
    sort(low[d], high[d]);
    if (!blocks) continue;
    alignas(64) A left[N], right[N];  // the other two corners
    for (int g = 0; g < groups; ++g) {
      left[g] = x[d][g * L + L - kBlockColumns];
      right[g] = x[d][g * L + kBlockColumns - 1];
    }
    sort(left, right);
    for (int g = 0; g < groups; g += L) {
      store<L>(low[d] + g, smaller(load<V>(low[d] + g), load<V>(left + g)));
      store<L>(high[d] + g, larger(load<V>(high[d] + g), load<V>(right + g)));
    }
  }
}

// Places the windows. Whether any group has one.
template <int K, class A, int D>
bool place_windows(const SampleParams& p, const Frame<A, D>& frame, int row_limit, bool monotonic,
                   bool blocks, int slots, WindowTile<A, D>& windows) {
  using V = Native<A>;
  using I = Integer<V>;
  constexpr int L = kLanes<A>;
  constexpr int N = WindowTile<A, D>::kSlots;
  constexpr A kBefore = (K - 1) / 2, kAfter = K / 2;
  const int groups = slots / L, columns = windows.vectors * L;

  alignas(64) A low[D][N], high[D][N];
  coordinate_ranges(windows.x, monotonic, blocks, columns, row_limit, groups, low, high);
  V most[D - 1];
  for (int d = 1; d < D; ++d) most[d - 1] = all<V>(1);
  I any{};
  const auto valid_group = [&](int g) { return counting<V>() < static_cast<A>(groups - g); };
  for (int g = 0; g < groups; g += L) {
    I used = valid_group(g);
    V rows[D - 1];
    for (int d = 0; d < D; ++d) {
      const Axis<A> axis = frame.axis[d];
      const V from = load<V>(&low[d][g]), to = load<V>(&high[d][g]);
      used &= to - from <= static_cast<A>(columns);  // not so for NaN
      if (needs_room<K>(axis)) used &= (from >= kBefore) & (floor_of(to) + kAfter <= axis.last);
      const V first = clip(axis, V(floor_of(clip(axis, from)) - kBefore));
      const V last = clip(axis, V(floor_of(clip(axis, to)) + kAfter));
      const V count = last - first + 1;
      store<L>(&low[d][g], first);
      store<L>(&high[d][g], last);
      if (d == 0) {
        used &= count <= static_cast<A>(columns);
      } else {
        used &= count <= static_cast<A>(row_limit);
        rows[d - 1] = count;
      }
    }
    for (int d = 1; d < D; ++d) most[d - 1] = larger(most[d - 1], used ? rows[d - 1] : V{});
    any |= used;
    store<L>(windows.used + g, used);
  }
  for (int d = 1; d < D; ++d) {
    windows.rows[d - 1] = static_cast<int32_t>(-least_lane(V(-most[d - 1])));
  }
  if (D == 3 && windows.rows[0] * windows.rows[D - 2] > kMaxRowsOfVolume) {
    std::fill(windows.used, windows.used + groups, 0);
    return false;
  }
  const A width = static_cast<A>(frame.axis[0].size);
  const V rightmost = all<V>(std::max(A(0), width - static_cast<A>(columns)));
  for (int g = 0; g < groups; g += L) {
    // Where it has room, a window begins at a multiple of a vector, whose loads cost half as much.
    const V left = load<V>(&low[0][g]);
    const V aligned = floor_of(V(left * (A(1) / L))) * A(L);
    const V begin = load<V>(&high[0][g]) - aligned < A(columns) ? aligned : left;
    const V column = smaller(begin, rightmost);
    store<L>(windows.column + g, column);
    store<L>(windows.last + g, V(smaller(V(column + static_cast<A>(columns)), all<V>(width)) - K));
    I start = truncate(column);
    for (int d = 1; d < D; ++d) {
      const A lowest = static_cast<A>(frame.axis[d].size - windows.rows[d - 1]);
      const V row = smaller(load<V>(&low[d][g]), all<V>(lowest));
      store<L>(windows.row[d - 1] + g, row);
      start += truncate(row) * static_cast<int32_t>(p.input.stride[d]);
    }
    store<L>(windows.start + g, start);
  }
  return !all_lanes(any == 0);
}

// Finds the first taps of the points of each window.
template <int K, class A, int D>
STN_HD void place_points(int groups, WindowTile<A, D>& windows) {
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  for (int g = 0; g < groups; ++g) {
    const V at = load<V>(&windows.x[0][g * L]);
    // A tap that the boundary puts outside the image is not among those in the window, and its
    // neighbours there are too far away to count.
    V base = floor_of(at) - A((K - 1) / 2);
    base = larger(smaller(base, all<V>(windows.last[g])), all<V>(windows.column[g]));
    const Integer<V> left = truncate(V(base - windows.column[g]));
    std::memcpy(&windows.left[g * L], &left, sizeof left);
    store<L>(&windows.across[g * L], V(at - base));
  }
}

// Finds the windows of a tile. Whether there are any.
template <int K, class T, class A, int D>
STN_SHARED bool find_windows(const SampleParams& p, const Plan& plan, const Tile<D>& tile,
                             const Looks<T, D>& looks, WindowTile<A, D>& windows) {
  if constexpr (std::is_same<T, A>::value) {
    if (!plan.windows) return false;
    const Frame<T, D> frame = frame_of_looks<K>(looks.frame);
    const bool as_is = looks.monotonic && K > 1 && only(Padding::zeros, frame);
    if (!as_is) bound_looks<K>(frame, looks, tile.slots(), windows.bounded);
    windows.x = as_is ? looks.x : windows.bounded;
    bool monotonic = looks.monotonic;
    for (const Axis<T>& axis : frame.axis) {
      monotonic &= axis.padding == Padding::zeros || axis.padding == Padding::border;
    }
    const auto place = [&](int vectors) {
      windows.vectors = vectors;
      const int rows = vectors == kWideVectors ? kMaxWideRows : plan.window_rows;
      const bool any =
          place_windows<K>(p, looks.frame, rows, monotonic, tile.block > 0, tile.slots(), windows);
      if (any) place_points<K>(tile.slots() / kLanes<A>, windows);
      return any;
    };
    // A first look at a group tells whether two vectors will do.
    const bool wide =
        monotonic && std::abs(windows.x[0][kLanes<A> - 1] - windows.x[0][0]) > 2 * kLanes<A>;
    if (!wide && place(2)) return true;
    return kWide<K, D> && p.input_size[0] >= kWideVectors * kLanes<A> && place(kWideVectors);
  }
  return false;
}

// Calls f(first, last) for each run of slots without a window.
template <class A, int D, class F>
STN_HD void for_each_gap(const WindowTile<A, D>& windows, int slots, F&& f) {
  constexpr int L = kLanes<A>;
  for (int first = 0; first < slots; first += L) {
    if (windows.used[first / L]) continue;
    int last = first;
    while (last < slots && !windows.used[last / L]) last += L;
    f(first, std::min(last, slots));
    first = last;
  }
}

// How the rows of windows are read: as two vectors, as those of which some pixels are beyond the
// end of a row of the image, or as four that may be.
enum class Reach { plain, narrow, wide };

template <Reach R>
struct ReachTag {
  static constexpr Reach value = R;
};

// Calls f with how the windows' rows are read.
template <int K, class A, int D, class F>
STN_HD void with_reach(const SampleParams& p, const WindowTile<A, D>& windows, F&& f) {
  if constexpr (kWide<K, D>) {
    if (windows.vectors == kWideVectors) return f(ReachTag<Reach::wide>{});
  }
  p.input_size[0] < 2 * kLanes<A> ? f(ReachTag<Reach::narrow>{}) : f(ReachTag<Reach::plain>{});
}

// Where the rows of a tile's windows are in memory.
template <int D>
struct WindowRows {
  int64_t stride_c, stride[D];
  int32_t width;         // of the image
  int32_t count[D - 1];  // of rows: along y, z

  template <class A>
  STN_HD WindowRows(const SampleParams& p, const WindowTile<A, D>& windows)
      : stride_c(p.input.stride_c), width(static_cast<int32_t>(p.input_size[0])) {
    std::copy(p.input.stride, p.input.stride + D, stride);
    std::copy(windows.rows, windows.rows + D - 1, count);
  }
};

// What group g's points see through their window, in planes that begin at `plane`. A view has the
// distances from the first of the pixels that count, none of them -0, and rows(row, end), which
// calls
//   row(channel, distance)  for each row, with the points' distance from it along y, where
//                           channel(c, use) calls use(tap) with the pixels tap(k) under each
//                           point's k-th tap there, c planes on;
//   end(distance)           after each slice of a volume, with the distance along z.
template <Reach R, class Element, int K, int D>
struct WindowView {
  using A = Accumulate<Element>;
  using V = Native<A>;
  static constexpr int L = kLanes<A>;

  WindowRows<D> in;
  const Element* slice;
  Integer<V> left;  // the column in the window of the first tap along x
  V across;         // the distance from that pixel
  V down[D - 1];    // the distance from the window's first row: y, z

  STN_HD WindowView(const WindowRows<D>& rows, const WindowTile<A, D>& windows, int g,
                    const Element* plane)
      : in(rows), slice(plane + windows.start[g]) {
    const int i = g * L;
    left = load<Integer<V>>(&windows.left[i]);
    across = load<V>(&windows.across[i]) + 0;
    for (int d = 1; d < D; ++d) down[d - 1] = load<V>(&windows.x[d][i]) - windows.row[d - 1][g] + 0;
  }

  template <class Row, class End>
  STN_HD void rows(Row&& row, End&& end) const {
    const int first = std::min<int>(in.width, L), second = in.width - first;
    const int depth = D == 3 ? in.count[D - 2] : 1;
    const Element* begin = slice;
    V behind = down[D - 2];
    for (int z = 0; z < depth; ++z) {
      const Element* at = begin;
      V distance = down[0];
      for (int y = 0; y < in.count[0]; ++y) {
        const auto channel = [&](int c, auto&& use) __attribute__((always_inline)) {
          const Element* from = at + c * in.stride_c;
          constexpr bool kNarrow = R == Reach::narrow;
          V low = kNarrow ? load_pixels<V>(from, first) : load_pixels<V>(from);
          V high = kNarrow ? load_pixels<V>(from + first, second) : load_pixels<V>(from + L);
          keep(low);
          keep(high);
          if constexpr (R == Reach::wide) {
            V further = load_pixels<V>(from + 2 * L), last = load_pixels<V>(from + 3 * L);
            keep(further);
            keep(last);
            use([&](int k) __attribute__((always_inline)) {
              // (A selection takes as much of the index as says which of its lanes.)
              const Integer<V> index = left + k;
              return index < 2 * L ? select_lanes(low, high, index)
                                   : select_lanes(further, last, index);
            });
          } else {
            use([&](int k) __attribute__((always_inline)) {
              return select_lanes(low, high, Integer<V>(left + k));
            });
          }
        };
        row(channel, distance);
        if (D == 2 && y + 1 == in.count[0]) __builtin_prefetch(at + 4 * in.stride[1] + L);
        at += in.stride[1];
        distance -= 1;
      }
      end(behind);
      behind -= 1;
      if (D == 3) begin += in.stride[D - 1];
    }
  }
};

// Each group's view of the same planes.
template <Reach R, class Element, int K, int D>
struct WindowViews {
  using Windows = WindowTile<Accumulate<Element>, D>;
  WindowRows<D> rows;
  const Windows& windows;
  const Element* plane;

  STN_HD WindowViews(const SampleParams& p, const Windows& tile, const Element* from)
      : rows(p, tile), windows(tile), plane(from) {}

  STN_HD WindowView<R, Element, K, D> operator()(int g) const { return {rows, windows, g, plane}; }
};

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
