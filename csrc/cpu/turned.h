// The adjoint of a bilinear sample through an affine map, turned round: each pixel gathers the
// values that look at it,
//   image[n, c, q] = sum over p of tent(x(p) - q) * tent(y(p) - q) * values[n, c, p],
// where few p count: those around the inverse map of q. No pixel waits for another, where splat's
// additions do. As in cpu/window.h the values are read as stretches of rows, shared by a vector of
// neighbouring pixels, of a row or of a block (cpu/blocks.h), whichever is seen by fewer rows of
// points; weights are shared by the channels.
#pragma once

#include "cpu/blocks.h"
#include "cpu/inverse.h"
#include "cpu/window.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Whether vectors are long enough, and registers many enough, to gain on adding point by point;
// where they do, the plan says (cpu/launch.cpp).
template <class Element>
constexpr bool kTurned =
    STN_VECTOR_BYTES == 64 || (STN_VECTOR_BYTES == 32 && std::is_same<Element, float>::value);

// The channels from which on it pays to find the points that look beyond the image.
constexpr int kTurnedBeyond = 3;

constexpr int kMaxCandidates = 4;

constexpr int kMaxTurnedRows = 8;

// The inverse of an affine map, for vectors of pixels.
template <class A>
struct Turned {
  static constexpr int L = kLanes<A>;
  AffineMap<A, 2> map;
  int width, height;  // of a vector
  bool usable;        // whether a vector of pixels is seen by few enough points
  int rows;           // of output points that see a vector of pixels
  int candidates;     // points of one row that may see a pixel
  bool by_y;          // whether they are found by the row of pixels they see, not by the column
  A back[2][2];       // d point / d pixel
  A first;  // of a vector's rows of points: distance from the inverse map of its first pixel
  A half;   // width of the candidates' interval, halved
  A lead;   // d point / d look of the axis that they are found by
  A least;  // where the interval of one of a vector's pixels is, from the first's
  alignas(64) A column[L], row[L], along[L];  // of each pixel, and where its interval is

  Turned(const AffineMap<A, 2>& m, int64_t channels, const int64_t (&input_size)[3],
         const int64_t (&output_size)[3])
      : map(m) {
    const Inverse inverse(m.matrix);
    const auto& by = inverse.matrix;
    const double reach = inverse.reach(1);
    const auto rows_seen = [&](int columns, int rows_of_pixels) {
      return whole_above<A>(2 * reach + (columns - 1) * std::abs(by[1][0]) +
                            (rows_of_pixels - 1) * std::abs(by[1][1]));
    };
    // What a vector of pixels costs against the additions of the points that see it, one by one:
    // measured, benchmarks/README.md.
    const bool long_vectors = STN_VECTOR_BYTES == 64;
    const int64_t most_of_row = long_vectors ? std::min<int64_t>(4 + channels, 8) : 4;
    const int64_t most_of_block = long_vectors ? (channels < 3 ? 5 : 6) : 4;
    const double of_row = rows_seen(L, 1), of_block = rows_seen(kBlockColumns, kBlockRows<A>);
    const bool blocks = of_block < of_row && of_block <= most_of_block;
    const double count = blocks ? of_block : of_row;
    width = blocks ? kBlockColumns : L;
    height = blocks ? kBlockRows<A> : 1;
    by_y = std::abs(m.matrix[1][0]) > std::abs(m.matrix[0][0]);
    const double steep = m.matrix[by_y][0];
    const double candidates_width = 2 / std::abs(steep);
    const int apart = (by_y ? height : width) - 1;
    const double spread = apart / std::abs(steep);
    usable = inverse.suits(m, input_size, output_size) && candidates_width < kMaxCandidates &&
             spread + candidates_width + 2 <= 2 * L &&
             count <= (blocks ? most_of_block : most_of_row);
    if (!usable) return;
    rows = static_cast<int>(count);
    candidates = std::max(2, static_cast<int>(whole_above<A>(candidates_width)));
    usable = rows <= output_size[1] && candidates <= output_size[0];
    for (int r = 0; r < 2; ++r) {
      for (int k = 0; k < 2; ++k) back[r][k] = static_cast<A>(by[r][k]);
    }
    first = static_cast<A>(std::min((width - 1) * by[1][0], 0.0) +
                           std::min((height - 1) * by[1][1], 0.0) - reach);
    half = static_cast<A>(candidates_width / 2);
    lead = static_cast<A>(1 / steep);
    least = std::min(A(0), lead * apart);
    for (int k = 0; k < L; ++k) {
      column[k] = static_cast<A>(k % width);
      row[k] = static_cast<A>(k / width);
      along[k] = lead * (by_y ? row[k] : column[k]);
    }
  }
};

// The rows of output points that see vectors of pixels, and where in each of them the candidates
// are sought: of as many vectors as a vector has lanes.
template <class A>
struct alignas(64) TurnedRows {
  static constexpr int L = kLanes<A>;
  A x[L], y[L];                 // of each vector's first pixel
  A column[kMaxTurnedRows][L];  // the first that is read
  A last[kMaxTurnedRows][L];    // the last one with room for all candidates
  A start[kMaxTurnedRows][L];   // of the first pixel's candidates
  A across[kMaxTurnedRows][L];  // from the first pixel to where the row's point 0 looks
  A down[kMaxTurnedRows][L];
  int32_t first[L];  // row

  STN_HD void find(const Turned<A>& turned, const SampleParams& p, int candidates) {
    using V = Native<A>;
    const AffineMap<A, 2>& map = turned.map;
    const V dx = load<V>(x) - map.offset[0], dy = load<V>(y) - map.offset[1];
    const V beginning =
        turned.first + map.centre[1] + turned.back[1][0] * dx + turned.back[1][1] * dy;
    const A lowest = static_cast<A>(p.output_size[1] - turned.rows);
    const V row = smaller(larger(V(floor_of(beginning) + 1), V{}), all<V>(lowest));
    store<L>(first, truncate(row));
    V u = map.matrix[0][1] * (row - map.centre[1]) - dx;  // of the row's central point
    V v = map.matrix[1][1] * (row - map.centre[1]) - dy;
    const A width = static_cast<A>(p.output_size[0]);
    const V rightmost = all<V>(std::max(A(0), width - 2 * L));
    for (int r = 0; r < turned.rows; ++r) {
      // The candidates are above an interval's open end: the integer part of what is one beyond.
      const V end = map.centre[0] + 1 - turned.half - (turned.by_y ? v : u) * turned.lead;
      const V leftmost = floor_of(V(end + turned.least));
      const V from = smaller(larger(leftmost, V{}), rightmost);
      store<L>(column[r], from);
      store<L>(last[r], V(smaller(V(from + 2 * L), all<V>(width)) - A(candidates)));
      store<L>(start[r], end);
      store<L>(across[r], V(u - map.matrix[0][0] * map.centre[0]));
      store<L>(down[r], V(v - map.matrix[1][0] * map.centre[0]));
      u += map.matrix[0][1];
      v += map.matrix[1][1];
    }
  }
};

// The values of an output, and the map that they were seen through: what a loop over pixels keeps
// at hand, which its own stores cannot touch.
template <class Element>
struct TurnedValues {
  const Element* plane;
  int64_t stride_c, stride_y;
  int width;
  Turned<Accumulate<Element>> turned;
};

// What a vector of pixels gathers in `Channels` planes of values. With Careful, a weight of 0
// counts 0 whatever the value.
template <bool Narrow, bool Careful, int Candidates, int Channels, class Element>
STN_HD void gather_turned(const TurnedValues<Element>& values,
                          const TurnedRows<Accumulate<Element>>& rows, int g,
                          Native<Accumulate<Element>> (&total)[Channels]) {
  using A = Accumulate<Element>;
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  const auto& m = values.turned.map.matrix;
  const int low_lanes = std::min(values.width, L), high_lanes = values.width - low_lanes;
  const V column = load<V>(values.turned.column), row = load<V>(values.turned.row);
  const V offset = load<V>(values.turned.along);
  for (int c = 0; c < Channels; ++c) total[c] = V{};
  const Element* at = values.plane + rows.first[g] * values.stride_y;
  for (int r = 0; r < values.turned.rows; ++r) {
    V candidate = floor_of(V(offset + rows.start[r][g]));
    candidate = larger(smaller(candidate, all<V>(rows.last[r][g])), all<V>(rows.column[r][g]));
    const Integer<V> index = truncate(V(candidate - rows.column[r][g]));
    V u = (rows.across[r][g] - column) + m[0][0] * candidate,
      v = (rows.down[r][g] - row) + m[1][0] * candidate;
    V weight[Candidates];
    for (int k = 0; k < Candidates; ++k) {
      weight[k] = kernel<2>(u) * kernel<2>(v);
      u += m[0][0];
      v += m[1][0];
    }
    const Element* from = at + static_cast<int32_t>(rows.column[r][g]);
    for (int c = 0; c < Channels; ++c) {
      V low = Narrow ? load_pixels<V>(from, low_lanes) : load_pixels<V>(from);
      V high = Narrow ? load_pixels<V>(from + low_lanes, high_lanes) : load_pixels<V>(from + L);
      keep(low);
      keep(high);
      for (int k = 0; k < Candidates; ++k) {
        const V term = weight[k] * select_lanes(low, high, Integer<V>(index + k));
        total[c] += Careful ? (weight[k] != 0 ? term : V{}) : term;
      }
      // What the pixels of later rows see: along a row of pixels that is aslant, nothing announces
      // it. (Reading past the end is no error of a prefetch.)
      if (r + 1 == values.turned.rows) __builtin_prefetch(from + 4 * values.stride_y + L);
      from += values.stride_c;
    }
    at += values.stride_y;
  }
}

template <bool Narrow, int Candidates, int Channels, class Element>
STN_SHARED void gather_carefully(const TurnedValues<Element>& values,
                                 const TurnedRows<Accumulate<Element>>& rows, int g,
                                 Native<Accumulate<Element>> (&total)[Channels]) {
  gather_turned<Narrow, true, Candidates>(values, rows, g, total);
}

// Where a vector of pixels is, and how many columns and rows of it are in the slab.
template <class To>
struct TurnedPixels {
  To* first;
  int columns, rows;
};

// Writes a vector, or adds it to what is there, in each plane.
template <class V, int Channels, class To>
STN_SHARED void put_vectors(bool add, bool blocks, const TurnedPixels<To>& pixels,
                            const V (&total)[Channels], int64_t stride_c, int64_t stride_y) {
  To* to = pixels.first;
  for (int c = 0; c < Channels; ++c, to += stride_c) {
    V sum = total[c];
    if (blocks) {
      if (add) sum += load_block<V>(to, stride_y, pixels.columns, pixels.rows);
      store_block(to, stride_y, sum, pixels.columns, pixels.rows);
    } else {
      if (add) sum += load_pixels<V>(to, pixels.columns);
      store_pixels(to, sum, pixels.columns);
    }
  }
}

// The rows [low, high) of `Channels` planes of an image, from an output's values. With `add`, on
// top of what is there.
template <bool Narrow, int Candidates, int Channels, class Element, class To>
void splat_turned(const SampleParams& p, const TurnedValues<Element>& all_values, bool add, int low,
                  int high, To* image, int64_t stride_c, int64_t stride_y) {
  using A = Accumulate<Element>;
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  const TurnedValues<Element> values = all_values;
  const int width = static_cast<int>(p.input_size[0]);
  const int columns = values.turned.width, height = values.turned.height;
  const int64_t down = (high - low + height - 1) / height;
  const int64_t count = down * ((width + columns - 1) / columns);
  TurnedRows<A> rows;
  // Blocks are gone through in bands of rows, column by column: where the map is steep, the values
  // that a column sees lie in few rows. High bands where the image takes many pages of memory.
  const int64_t bytes = static_cast<int64_t>(width) * p.input_size[1] * p.channels * sizeof(To);
  const int steep = bytes > kKnownPages ? 128 : 16;
  const int band = height > 1 && values.turned.by_y ? steep : height;
  int x = 0, y = low;  // of the next vector of pixels
  int top = low, bottom = std::min(high, low + band);
  for (int64_t begin = 0; begin < count; begin += L) {
    const int groups = static_cast<int>(std::min<int64_t>(L, count - begin));
    TurnedPixels<To> pixels[L];
    for (int g = 0; g < L; ++g) {
      rows.x[g] = static_cast<A>(x);
      rows.y[g] = static_cast<A>(y);
      pixels[g] = {image + y * stride_y + x, std::min(columns, width - x),
                   std::min(height, high - y)};
      y += height;
      if (y < bottom) continue;
      y = top;
      x += columns;
      if (x < width) continue;
      x = 0;
      y = top = bottom;
      bottom = std::min(high, bottom + band);
    }
    rows.find(values.turned, p, Candidates);
    for (int g = 0; g < groups; ++g) {
      V total[Channels];
      gather_turned<Narrow, false, Candidates>(values, rows, g, total);
      if (__builtin_expect(any_nan(total), 0)) {
        V others[Channels];
        gather_carefully<Narrow, Candidates>(all_values, rows, g, others);
        for (int c = 0; c < Channels; ++c) total[c] = others[c];
      }
      To* to = pixels[g].first;
      if (__builtin_expect(!add && pixels[g].columns * pixels[g].rows == L, 1)) {
        if (height == 1) {
#pragma GCC unroll 8
          for (int c = 0; c < Channels; ++c) store_pixels(to + c * stride_c, total[c], L);
        } else {
#pragma GCC unroll 8
          for (int c = 0; c < Channels; ++c) {
            store_block(to + c * stride_c, stride_y, total[c], kBlockColumns, kBlockRows<A>);
          }
        }
        continue;
      }
      V others[Channels];  // a copy: the total itself is to stay in registers
      for (int c = 0; c < Channels; ++c) others[c] = total[c];
      put_vectors(add, height > 1, pixels[g], others, stride_c, stride_y);
    }
  }
}

// The rows [low, high) of image `image` by gathering, if all of its warps allow it; as if there
// were zeros beyond the image: then(n, c, count) may add what another rule adds to that
// (cpu/beyond.h), of output n to the channels [c, c + count).
template <class Element, class Then>
STN_HD bool splat_by_turning(const SampleParams& p, int64_t image, int low, int high, Then&& then) {
  using A = Accumulate<Element>;
  const int64_t images = p.input.batch == 1 ? p.batch : 1;
  if (!can_turn<Element>(p) || p.output.stride[0] != 1) return false;
  if (!only_zeros(p)) {
    if (p.channels < kTurnedBeyond || !std::is_same<A, Element>::value) return false;
    if (any_wraps(p)) return false;
  }
  const TurnedMaps<A, Turned<A>> maps(p, image, images);
  if (!maps.usable()) return false;
  const bool narrow = p.output_size[0] < 2 * kLanes<A>;
  for (int64_t n = image; n < image + images; ++n) {
    const Turned<A> turned = n == image ? maps.first() : maps.of(n);
    took(turned.candidates <= 2   ? Path::turned_2
         : turned.candidates == 3 ? Path::turned_3
                                  : Path::turned_4);
    if (turned.by_y) took(Path::turned_by_y);
    if (turned.height > 1) took(Path::turned_in_blocks);
    if (narrow) took(Path::turned_narrow);
    if (n > image) took(Path::turned_onto);
    for_each_channel_block<kWideBlock<2, 2>>(p.channels, [&](auto channels, int64_t c) {
      const auto run = [&](auto is_narrow, auto candidates) {
        splat_turned<is_narrow.value, candidates.value, channels.value>(
            p,
            TurnedValues<Element>{plane_of<const Element>(p.output, n, c), p.output.stride_c,
                                  p.output.stride[1], static_cast<int>(p.output_size[0]), turned},
            n > image, low, high, plane_of<Element>(p.input, image, c), p.input.stride_c,
            p.input.stride[1]);
      };
      const auto with_candidates = [&](auto is_narrow) {
        if (turned.candidates <= 2) return run(is_narrow, std::integral_constant<int, 2>{});
        if (turned.candidates == 3) return run(is_narrow, std::integral_constant<int, 3>{});
        run(is_narrow, std::integral_constant<int, kMaxCandidates>{});
      };
      narrow ? with_candidates(std::true_type{}) : with_candidates(std::false_type{});
      then(n, c, channels.value);
    });
  }
  return true;
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
