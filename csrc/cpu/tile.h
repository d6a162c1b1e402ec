// A tile: up to kTile neighbouring output points of one warp, their coordinates, and the taps that
// those make, as arrays over the points.
#pragma once

#include <algorithm>
#include <new>
#include <type_traits>

#include "cpu/blocks.h"
#include "cpu/chain_map.h"
#include "math/free_map.h"
#include "math/interpolation.h"
#include "math/parametric.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// A rectangle of output points. Its arrays hold a slot per point, row by row; if it is padded, each
// row goes on to a multiple of kRowAlign with slots whose values are computed and dropped. Or block
// by block (cpu/blocks.h), where those at the edges have such slots, too.
template <int D>
struct Tile {
  int64_t index;     // among those of its warp
  int32_t first[D];  // the position of its first point
  int32_t width, rows, pitch;
  int32_t fold, block;  // as Plan's
  int32_t next[D];      // how far on the next tile begins
  bool down;            // whether that is below this one, mostly (Plan::band)

  STN_HD Tile(const Plan& plan, int64_t tile)
      : index(tile), fold(plan.fold), block(plan.block), down(D == 2 && plan.band > 0) {
    place(plan);
    settle(plan);
  }

  // Goes on to the next tile. (Counting tiles takes divisions.)
  STN_HD void step(const Plan& plan) {
    ++index;
    if (down) {
      place(plan);
    } else {
      for (int d = 0; d < D; ++d) first[d] += next[d];
    }
    settle(plan);
  }

  STN_HD int slots() const { return slots_; }

  // How far on the next tile begins in a tensor with these strides, mostly: for prefetches.
  STN_HD int64_t ahead(const int64_t (&stride)[3]) const {
    return down ? rows * stride[1] : width * stride[0];
  }

  // Of a point of the rectangle.
  STN_HD int slot_of(int column, int row) const {
    if (block == 0) return row * pitch + column;
    const int before = row / block * blocks_across() + column / kBlockColumns;
    return (before * block + row % block) * kBlockColumns + column % kBlockColumns;
  }

  // f(slot, p) for each row: the slot and the position of its first point.
  template <class F>
  STN_HD void for_each_row(F&& f) const {
    int32_t p[D];
    for (int d = 0; d < D; ++d) p[d] = first[d];
    for (int row = 0; row < rows; ++row) {
      f(row * pitch, p);
      ++p[1];
    }
  }

  // f(slot, p, columns, rows) for each block: the same of its first point, and how many columns and
  // rows of it are points.
  template <class F>
  STN_HD void for_each_block(F&& f) const {
    int slot = 0;
    for (int y = 0; y < rows; y += block) {
      for (int x = 0; x < width; x += kBlockColumns, slot += block * kBlockColumns) {
        const int32_t p[2] = {first[0] + x, first[1] + y};
        f(slot, p, std::min(kBlockColumns, width - x), std::min(block, rows - y));
      }
    }
  }

 private:
  int slots_;

  STN_HD int blocks_across() const { return (width + kBlockColumns - 1) / kBlockColumns; }

  STN_HD void place(const Plan& plan) {
    int64_t row = index / plan.across, column = index - row * plan.across;
    if (down) {
      const int64_t above = row / plan.band * plan.band;
      const int64_t in_band = index - above * plan.across;
      const int64_t height = std::max<int64_t>(1, std::min(plan.band, plan.down - above));
      column = in_band / height;
      row = above + in_band - column * height;
    }
    first[0] = static_cast<int32_t>(column * plan.tile_width);
    first[1] = static_cast<int32_t>((D == 3 ? row % plan.down : row) * plan.tile_rows);
    if (D == 3) first[D - 1] = static_cast<int32_t>(row / plan.down);
  }

  STN_HD void settle(const Plan& plan) {
    width = static_cast<int32_t>(std::min<int64_t>(plan.tile_width, plan.size[0] - first[0]));
    rows = static_cast<int32_t>(std::min<int64_t>(plan.tile_rows, plan.size[1] - first[1]));
    pitch = plan.padded ? (width + kRowAlign - 1) / kRowAlign * kRowAlign : width;
    slots_ = block > 0 ? (rows + block - 1) / block * block * blocks_across() * kBlockColumns
                       : rows * pitch;
    next[0] = width;
    for (int d = 1; d < D; ++d) {
      const bool last = first[d - 1] + next[d - 1] == plan.size[d - 1];
      if (last) next[d - 1] = -first[d - 1];
      next[d] = last ? (d == 1 ? rows : 1) : 0;
    }
  }
};

// The offset of position p in a tensor with these strides.
template <int D>
STN_HD int64_t offset_of(const int32_t (&p)[D], const int64_t (&stride)[3]) {
  int64_t offset = 0;
  for (int d = 0; d < D; ++d) offset += p[d] * stride[d];
  return offset;
}

// The map of one warp, of a type that is known at run time.
template <class T, int D>
class AnyMap {
 public:
  // (One copy for all kernels, as of what else depends on all maps.)
  STN_SHARED AnyMap(MapKind kind, const Warp& warp, int64_t n, const Frame<T, D>& frame,
                    const int64_t (&output_size)[3], bool align_corners)
      : kind_(kind), type_(warp.type), packed_(warp.stride_k == 1 && warp.stride[0] == D) {
    with_type([&](auto type) {
      using Map = typename decltype(type)::type;
      static_assert(std::is_trivially_copyable<Map>::value && sizeof(Map) <= sizeof bytes_, "");
      monotonic_ = Map::monotonic;
      if constexpr (Map::parametric || kIsChain<Map>) {
        new (bytes_) Map(warp, n, frame, output_size, align_corners);
      } else {
        new (bytes_) Map(warp, n, Reading<T, D>(kind, frame, output_size, align_corners));
      }
    });
  }

  // f(map)
  template <class F>
  STN_HD void visit(F&& f) const {
    with_type(
        [&](auto type) { f(*reinterpret_cast<const typename decltype(type)::type*>(bytes_)); });
  }

  STN_HD bool monotonic() const { return monotonic_; }

 private:
  template <class Map>
  struct Type {
    using type = Map;
  };

  template <class F>
  STN_HD void with_type(F&& f) const {
#define STN_CASE(name, Functor)                                  \
  if constexpr (D <= Functor<T, D>::most_dims) {                 \
    if (kind_ == MapKind::name) return f(Type<Functor<T, D>>{}); \
  }
    STN_PARAMETRIC_MAPS(STN_CASE)
#undef STN_CASE
    if (kind_ == MapKind::chain) return f(Type<ChainMap<T, D>>{});
    const auto grid = [&](auto element) {
      using Element = decltype(element);
      packed_ ? f(Type<GridMap<T, D, Element, true>>{}) : f(Type<GridMap<T, D, Element, false>>{});
    };
    if constexpr (sizeof(T) == sizeof(double)) {
      grid(double{});
    } else if (type_ == ElementType::f32) {
      grid(float{});
    } else if (type_ == ElementType::f16) {
      grid(Half{});
    } else {
      grid(BFloat16{});
    }
  }

  MapKind kind_;
  ElementType type_;
  bool packed_, monotonic_ = false;
  alignas(16) unsigned char bytes_[192 + 128 * sizeof(T)];
};

// The positions in the output of a row's points as vectors: x runs, the rest is the same in all
// lanes, unless the row is many laid end to end. (Then there are few enough points for the product
// to be on the right side of a whole number: launch.cpp.)
template <bool Folded, class V, int D>
STN_HD void positions(const Tile<D>& tile, const int32_t (&p)[D], int j, V (&at)[D]) {
  at[0] = counting<V>() + static_cast<Scalar<V>>(p[0] + j);
  for (int d = 1; d < D; ++d) at[d] = all<V>(static_cast<Scalar<V>>(p[d]));
  if (Folded) {
    const Scalar<V> length = static_cast<Scalar<V>>(tile.fold);
    at[1] = floor_of(V((at[0] + Scalar<V>(0.5)) * (1 / length)));
    at[0] -= at[1] * length;
  }
}

template <class V, int D>
STN_HD void positions(const Tile<D>& tile, const int32_t (&p)[D], int j, V (&at)[D]) {
  tile.fold > 0 ? positions<true>(tile, p, j, at) : positions<false>(tile, p, j, at);
}

// The positions of a block's points: beside the last column and below the last row, theirs.
template <class V>
STN_HD void positions_in_block(const int32_t (&p)[2], int columns, int rows, V (&at)[2]) {
  using T = Scalar<V>;
  at[0] = smaller(block_columns<V>(), all<V>(static_cast<T>(columns - 1))) + static_cast<T>(p[0]);
  at[1] = smaller(block_rows<V>(), all<V>(static_cast<T>(rows - 1))) + static_cast<T>(p[1]);
}

// The taps of a tile. A: the type in which the image's values accumulate.
template <class A, int K, int D>
struct alignas(64) TileTaps {
  int32_t index[D][K][kRoom];
  A weight[D][K][kRoom];
  A slope[D][K][kRoom], curve[D][K][kRoom];  // filled on request
};

// Whether the boundary rule along all axes is this one.
template <class T, int D>
STN_HD bool only(Padding padding, const Frame<T, D>& frame) {
  bool all = true;
  for (int d = 0; d < D; ++d) all &= frame.axis[d].padding == padding;
  return all;
}

// Calls f(rule) such that rule(axis) is an axis of the frame with its boundary rule: the usual
// ones, the same along all axes, as compile-time constants, so that each of their loops is compiled
// without the others' work.
template <Padding P>
struct SameRule {
  template <class T>
  STN_HD AxisUnder<P, T> operator()(const Axis<T>& axis) const {
    return {axis};
  }
};
struct RuleOfAxis {
  template <class T>
  STN_HD const Axis<T>& operator()(const Axis<T>& axis) const {
    return axis;
  }
};
template <class T, int D, class F>
STN_HD void with_rule(const Frame<T, D>& frame, F&& f) {
  if (only(Padding::zeros, frame)) {
    f(SameRule<Padding::zeros>{});
  } else if (only(Padding::border, frame)) {
    f(SameRule<Padding::border>{});
  } else if (only(Padding::reflection, frame)) {
    f(SameRule<Padding::reflection>{});
  } else {
    f(RuleOfAxis{});
  }
}

// Whether a linear look at each of these coordinates is one inside the image.
template <class T, int D>
STN_HD bool all_inside(const Frame<T, D>& frame, const T (&x)[D][kRoom], int count) {
  using V = Native<T>;
  auto inside = is_inside(frame.axis[0], load<V>(x[0]));
  for (int d = 0; d < D; ++d) {
    for (int i = 0; i < count; i += kLanes<T>)
      inside &= is_inside(frame.axis[d], load<V>(x[d] + i));
  }
  return all_lanes(inside);
}

// Derivatives: of the weights, how many are filled as well.
template <int Derivatives, class T, class A, int K, int D>
void fill_taps(const Frame<T, D>& frame, const T (&x)[D][kRoom], int count,
               TileTaps<A, K, D>& taps) {
  using V = Native<T>;
  const auto fill = [&](auto&& rule, auto&& taps_of) __attribute__((always_inline)) {
    for (int d = 0; d < D; ++d) {
      const auto axis = rule(frame.axis[d]);  // a copy, which the stores cannot touch
      for (int i = 0; i < count; i += kLanes<T>) {
        Taps<V, K> one;
        taps_of(axis, load<V>(x[d] + i), one);
        for (int k = 0; k < K; ++k) {
          store<kLanes<T>>(&taps.index[d][k][i], one.index[k]);
          store<kLanes<T>>(&taps.weight[d][k][i], one.weight[k]);
          if (Derivatives > 0) store<kLanes<T>>(&taps.slope[d][k][i], one.slope[k]);
          if (Derivatives > 1) store<kLanes<T>>(&taps.curve[d][k][i], one.curve[k]);
        }
      }
    }
  };
  const auto bounded = [&](auto rule) __attribute__((always_inline)) {
    fill(rule, [](const auto& axis, V at, Taps<V, K>& one)
                   __attribute__((always_inline)) { axis_taps(axis, at, one); });
  };
  if constexpr (K == 2) {
    if (all_inside(frame, x, count)) {
      took(Path::taps_inside);
      fill(RuleOfAxis{}, [](const Axis<T>&, V at, Taps<V, K>& one)
                             __attribute__((always_inline)) { axis_taps_inside(at, one); });
      return;
    }
  }
  took(Path::taps_bounded);
  with_rule(frame, bounded);
}

// Calls f(element, interpolation, dims) with the compile-time forms of what p says.
template <Interpolation I>
struct InterpolationTag {
  static constexpr Interpolation value = I;
};
template <int D>
struct DimsTag {
  static constexpr int value = D;
};

template <class F>
STN_HD void with_element(ElementType type, F&& f) {
  switch (type) {
    case ElementType::f32:
      return f(float{});
    case ElementType::f64:
      return f(double{});
    case ElementType::f16:
      return f(Half{});
    case ElementType::bf16:
      return f(BFloat16{});
    case ElementType::u8:  // for sample alone
      return;
  }
}

template <class Element, class F>
STN_HD void with_interpolation(const SampleParams& p, Element element, F&& f) {
  switch (p.interpolation) {
    case Interpolation::bilinear:
      if (p.dims == 2) return f(element, InterpolationTag<Interpolation::bilinear>{}, DimsTag<2>{});
      return f(element, InterpolationTag<Interpolation::bilinear>{}, DimsTag<3>{});
    case Interpolation::nearest:
      if (p.dims == 2) return f(element, InterpolationTag<Interpolation::nearest>{}, DimsTag<2>{});
      return f(element, InterpolationTag<Interpolation::nearest>{}, DimsTag<3>{});
    case Interpolation::bicubic:  // 2-D only: ops.cpp refuses the rest
      return f(element, InterpolationTag<Interpolation::bicubic>{}, DimsTag<2>{});
  }
}

template <class F>
STN_HD void with_types(const SampleParams& p, ElementType type, F&& f) {
  with_element(type, [&](auto element) { with_interpolation(p, element, f); });
}

// The images that look through warp n: one, or all where the warp is broadcast.
struct BatchRange {
  int64_t begin, end;
};
STN_HD BatchRange images_of_warp(const SampleParams& p, int64_t n) {
  return p.warp.batch == 1 ? BatchRange{0, p.batch} : BatchRange{n, n + 1};
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
