// Which of the kernels' ways suit a call: what was measured to be quicker (benchmarks/README.md).
#pragma once

#include <cstring>
#include <numeric>

#include "cpu/batch.h"
#include "math/parametric.h"

namespace stn_cuda {
namespace cpu {

// Whether tiles should be as high as wide: what sees columns of the image wants that.
inline bool wants_high_tiles(const SampleParams& p, int64_t warp) {
  return p.output_size[0] >= 64 && kernels().sees_columns(p, warp);
}

// Rows of a tile where the output is wide: more of them share more of the image's rows, longer ones
// suit the prefetcher when a tile visits many planes. (A grid is itself read row by row, and
// scattered points share nothing.)
inline int64_t rows_per_tile(const SampleParams& p, bool high, bool scattered = false) {
  if (scattered) return 1;
  if (high) {
    took(Path::sees_columns);
    return is_parametric(p.map) ? 16 : 8;
  }
  return p.channels < 16 ? 4 : 2;
}

// Whether the pixels of a column share so few parts of the L1 cache, whose sets come again every 4
// KiB, that those of other planes are in their way: rows (in the type that they are computed in)
// are a large power of two apart.
inline bool columns_collide(const Image& image, int64_t parts) {
  constexpr int64_t kAll = 4096;
  const int64_t bytes = image.stride[1] * (image.type == ElementType::f64 ? 8 : 4);
  return std::gcd(bytes, kAll) * parts >= kAll;
}

// The control points of a spline, or 0 of other maps.
inline int64_t control_points(const SampleParams& p) {
  return is_parametric(p.map) ? points_of(facts_of(p.map, p.dims), p.warp.count) : 0;
}

// Whether several warps have the same control points, which come after the other parameters; to the
// bit.
inline bool share_points(const SampleParams& p) {
  const int64_t element = element_size(p.warp.type), points = control_points(p);
  const int64_t others = (points + facts_of(p.map, p.dims).rows) * p.dims;
  const char* places = static_cast<const char*>(p.warp.data) + others * element;
  for (int64_t n = 1; n < p.warp.batch; ++n) {
    const char* of_other = places + n * p.warp.stride_n * element;
    if (std::memcmp(places, of_other, points * p.dims * element)) return false;
  }
  return true;
}

// Has warp after warp come to a few tiles, whose basis functions it finds in the L2 cache: `arrays`
// of them, 1 without slopes. Whole bands of tiles, which see whole rows of the image.
inline void share_basis(const SampleParams& p, int arrays, Plan& plan) {
  constexpr int64_t kCache = int64_t(3) << 16;
  took(Path::basis_shared);
  const int64_t tile = control_points(p) * basis_row(plan) * element_size(p.warp.type) * arrays;
  const int64_t tiles = std::clamp<int64_t>(kCache / tile, 1, kMostBasisTiles);
  plan.basis_shared = true;
  plan.basis_tiles = static_cast<int>(tiles > plan.across ? tiles - tiles % plan.across : tiles);
}

// Whether an output's rows hold too few points for full vectors.
inline bool can_fold(const SampleParams& p) {
  return p.output_size[0] < 128 && p.output_size[0] % kRowAlign != 0;
}

// Whether the looks at the image are gathered where they find runs of pixels.
inline bool use_gather(const SampleParams& p) {
  const bool narrow = p.input.type == ElementType::f16 || p.input.type == ElementType::bf16;
  const bool linear = p.interpolation == Interpolation::bilinear;
  const bool nearest = p.interpolation == Interpolation::nearest;
  if (p.input.type == ElementType::f64) {
    return linear && p.dims == 2 && kernels().vector_bytes == 32 &&
           gathers_in_use() == Gathers::pairs;
  }
  const bool can = p.input.type == ElementType::f32 ? linear || nearest : narrow && linear;
  const Gathers gathers = gathers_in_use();
  if (gathers == Gathers::planes) return can && p.dims == 2 && !narrow;
  return can && gathers != Gathers::none;
}

// Whether points are scattered over an image whose planes take more than so many bytes.
inline bool is_scattered(const SampleParams& p, int64_t bytes, int64_t warp) {
  const int64_t plane = points(p.input_size, p.dims) * element_size(p.input.type);
  return is_free(p.map) && plane > bytes && kernels().is_scattered(p, warp);
}

// From where on that matters to looks at the image, which then find little in the L1 cache.
constexpr int64_t kSmall = int64_t(1) << 18;

// Whether the result is so large that what comes next gains by not finding it in a cache, where it
// is in the way of what is read: measured, benchmarks/README.md. As many values of 16 bits as of
// float32. (What lies around the image is added to it at once.)
inline bool is_too_large(const Image& image, int64_t pixels, bool inside) {
  constexpr int64_t kPlanar = int64_t(16) << 20, kInside = int64_t(12) << 20;
  const int64_t element = element_size(image.type);
  const int64_t bytes = pixels * std::max<int64_t>(4, element);
  const bool streams = kernels().vector_bytes == 64 && element > 1;
  return streams && bytes > (inside ? kInside : kPlanar);
}
inline bool is_output_too_large(const SampleParams& p) {
  const int64_t pixels = points(p.output_size, p.dims) * p.channels * p.batch;
  return is_too_large(p.output, pixels, has_channels_inside(p)) && !p.around;
}
// (Splat's, where a pixel is written at once: not worth it in planes, of which each has few lines
// at a time.)
inline bool is_image_too_large(const SampleParams& p) {
  const int64_t pixels = points(p.input_size, p.dims) * p.channels * p.input.batch;
  return has_channels_inside(p) && is_too_large(p.input, pixels, true);
}

// Whether windows are sought before pixels are gathered.
inline bool are_windows_first(const SampleParams& p) {
  const Gathers gathers = gathers_in_use();
  const bool whole = p.input.type == ElementType::f32 || p.input.type == ElementType::f64;
  const bool pairs = whole && p.dims == 2 && p.interpolation == Interpolation::bilinear;
  return gathers == Gathers::planes || gathers == Gathers::rest ||
         (gathers == Gathers::pairs && !pairs);
}

// Whether windows may win against runs: measured, benchmarks/README.md. A grid's points may look
// anywhere, and few channels of a plane do not pay for finding out, but for two or three where
// windows come first. Derivatives weigh every row of a window for each axis, which is too much for
// the many rows of a volume's. high: looks go along columns.
inline bool use_windows(const SampleParams& p, bool high) {
  const bool grid = !is_parametric(p.map), long_vectors = kernels().vector_bytes == 64;
  const bool first = are_windows_first(p);
  if (p.dims > kernels().window_dims) return false;
  if (grid && p.dims == 2 && p.channels < 4) {
    return long_vectors && first && p.channels > 1 && !high && !can_fold(p);
  }
  if (!use_gather(p)) return true;
  if (p.dims > 2) return first && !grid && !p.derivative.data;
  if (first) return p.channels > 1 || !can_fold(p);
  return long_vectors && !grid && p.channels > 1 && p.input.type == ElementType::f32;
}

// The rows of pixels along an axis of a window, above which runs cost less: measured, as well.
inline int window_rows(const SampleParams& p) {
  const Gathers gathers = gathers_in_use();
  const bool rest = gathers == Gathers::rest || gathers == Gathers::pairs;
  if (use_gather(p) && !rest) return 5;
  return p.dims > 2 || kernels().vector_bytes < 64 || p.channels < 4 ? 8 : 14;
}

// The lanes of the vectors that an image's values are computed in.
inline int lanes_of(const Image& image) {
  return kernels().vector_bytes / (image.type == ElementType::f64 ? 8 : 4);
}

// The rows of the blocks of points that vectors hold, 0 if they hold points of a row: where these
// see columns of the image.
inline int rows_of_blocks(const SampleParams& p, const Hints& hints) {
  const bool wide = p.input.type == ElementType::f64;
  const int lanes = lanes_of(p.input);
  const bool suits = hints.columns && p.dims == 2 && is_parametric(p.map) &&
                     wide == (p.warp.type == ElementType::f64) && lanes > kBlockColumns;
  const bool planar = !has_channels_inside(p) && p.output.stride[0] == 1;
  if (!suits || !planar || p.output_size[1] < 16) return 0;
  took(Path::in_blocks);
  return lanes / kBlockColumns;
}

// The rows of tiles that are gone through column by column (Plan::band), where rows of points see
// columns of the image: the pixels of a column are in as many pages of memory, which the next tile
// below sees again.
inline int64_t rows_of_bands(const SampleParams& p, const Hints& hints) {
  constexpr int64_t kLarge = int64_t(4) << 20;
  const int64_t plane = points(p.input_size, p.dims) * element_size(p.input.type);
  if (!hints.columns || p.dims != 2 || plane <= kLarge) return 0;
  took(Path::in_bands);
  return 8;
}

// How sample and grad_warp come to the pixels.
inline void choose_ways(const SampleParams& p, const Hints& hints, bool windows, Plan& plan) {
  plan.plane_by_plane = hints.columns && columns_collide(p.input, 2);
  plan.block = rows_of_blocks(p, hints);
  plan.band = rows_of_bands(p, hints);
  plan.gather = use_gather(p);
  plan.inserts = inserts_in_use();
  plan.scattered = hints.scattered;
  plan.windows = windows;
  plan.window_rows = window_rows(p);
}

// Whether splat may be turned round (cpu/turned.h, cpu/turned_channels.h): measured,
// benchmarks/README.md. In planes, vectors of 32 bytes gain from three channels on, and only where
// lanes are permuted quickly: on the processors that gather slowly. Channels that are one vector
// are as quickly added to a pixel.
inline bool use_turned(const SampleParams& p) {
  const bool long_vectors = kernels().vector_bytes == 64;
  if (has_channels_inside(p)) return long_vectors && p.channels != lanes_of(p.input);
  if (long_vectors) return true;
  return p.channels >= 3 && gathers_in_use() != Gathers::all;
}

inline int64_t images_per_warp(const SampleParams& p) { return p.warp.batch == 1 ? p.batch : 1; }

inline bool have_rows_in_one(const int64_t (&size)[3], const int64_t (&stride)[3], int dims) {
  bool all = true;
  for (int d = 1; d < dims; ++d) all &= stride[d] == stride[d - 1] * size[d - 1];
  return all;
}

// A narrow output's rows laid end to end, where points are found so: full vectors, where its rows
// would leave many lanes empty.
inline Points points_of(const SampleParams& p, const Hints& hints, bool windows) {
  constexpr int64_t kMostFolded = int64_t(1) << 20;  // for positions(), cpu/tile.h
  const Points rows = rows_of(p.output_size, p.dims);
  const int64_t width = p.output_size[0], all = points(p.output_size, p.dims);
  if (!can_fold(p) || all >= INT32_MAX || p.map == MapKind::chain) return rows;
  if (windows || hints.of_rows) return rows;
  if (!have_rows_in_one(p.output_size, p.output.stride, p.dims)) return rows;
  const bool placed = needs_position(p.map);
  if (placed && (p.dims > 2 || hints.columns || all > kMostFolded)) return rows;
  for (const Warp* values : {&p.warp, &p.tangent, &p.grad_warp}) {
    if (!is_free(p.map) || !values->data) continue;
    if (!have_rows_in_one(p.output_size, values->stride, p.dims)) return rows;
  }
  took(placed ? Path::folded : Path::flattened);
  return {{all, 1, 1}, placed ? static_cast<int32_t>(width) : 0};
}

// A chain's field is looked at as a planar image, whatever the layout of the other one.
inline bool wants_padding(const SampleParams& p) {
  return !has_channels_inside(p) || p.map == MapKind::chain;
}

// The points of a tile for looks at the image. (Bicubic ones keep four taps along each axis
// wherever points are too far apart for windows.)
inline int64_t points_together(const SampleParams& p) {
  const bool keeps_taps = has_channels_inside(p) || p.interpolation == Interpolation::bicubic;
  return keeps_taps ? kSmallTile : kTile;
}

// For looks at the image. Of rows that are short and warps' own, as many as there is room for.
inline int64_t rows_per_tile(const SampleParams& p, const Hints& hints) {
  if (!hints.of_rows) return rows_per_tile(p, hints.columns, hints.scattered);
  return points_together(p) / (ceil_div(p.output_size[0], kRowAlign) * kRowAlign);
}

// Whether each warp has few points in one plane, for which little depends on how they look: where
// there are many warps, asking each takes a sixth of the time of all.
inline bool is_one_tile(const SampleParams& p) {
  constexpr int64_t kFew = 256;
  return is_free(p.map) && p.dims == 2 && p.channels == 1 && points(p.output_size, 2) <= kFew;
}

// Whether the warps of a batch look at one image and can be the rows of one output, which spares
// each of them a tile of its own. (The rows of tiles are padded: no vector holds points of two
// warps, so that none depends on another one.)
inline bool are_rows(const SampleParams& p) {
  if (p.warp.batch == 1 || p.input.batch > 1 || !is_one_tile(p)) return false;
  if (needs_position(p.map) || p.mask.data || p.around) return false;
  if (p.derivative.data && p.derivative.stride_n != p.output.stride_n) return false;
  bool all = have_rows_in_one(p.output_size, p.output.stride, p.dims);
  for (const Warp* values : {&p.warp, &p.tangent, &p.grad_warp}) {
    all &= !values->data || have_rows_in_one(p.output_size, values->stride, p.dims);
  }
  return all;
}
inline SampleParams as_rows(const SampleParams& p) {
  SampleParams rows = p;
  rows.output_size[0] = points(p.output_size, p.dims);
  rows.output_size[1] = p.batch;
  rows.batch = 1;
  for (Image* values : {&rows.output, &rows.derivative}) {
    values->batch = 1;
    values->stride[1] = values->stride_n;
  }
  for (Warp* values : {&rows.warp, &rows.tangent, &rows.grad_warp}) {
    values->batch = 1;
    values->stride[1] = values->stride_n;
  }
  return rows;
}

// Splat, which adds to the one image whatever the warp, may have them all in one row.
inline bool are_one_row(const SampleParams& p) {
  const int64_t all = points(p.output_size, p.dims);
  bool one = are_rows(p) && p.output.stride_n == all * p.output.stride[0];
  for (const Warp* values : {&p.warp, &p.tangent}) {
    one &= !values->data || values->stride_n == all * values->stride[0];
  }
  return one && all * p.batch < INT32_MAX;
}
inline SampleParams as_one_row(const SampleParams& p) {
  took(Path::warps_in_one_row);
  SampleParams row = as_rows(p);
  row.output_size[0] *= p.batch;
  row.output_size[1] = 1;
  return row;
}

// What matters of how a warp looks at what is read. (Splines' basis functions may be shared by all
// warps, which are then cut alike.)
inline Hints hints_of(const SampleParams& p, int64_t warp) {
  Hints hints;
  if (control_points(p) > 0 || is_one_tile(p)) return hints;
  hints.columns = wants_high_tiles(p, warp);
  hints.scattered = is_scattered(p, kSmall, warp);
  return hints;
}

// Calls f(p, hints) with hints(n) of each warp: of p as it is given, or of its warps as rows.
template <class F>
void with_hints(const SampleParams& p, F&& f) {
  if (!are_rows(p)) return f(p, [&](int64_t n) { return hints_of(p, n); });
  took(Path::warps_as_rows);
  f(as_rows(p), [](int64_t) {
    Hints hints;
    hints.of_rows = true;
    return hints;
  });
}

// Whether splat's tiles may be summed in patches, and are not likely to be collected.
inline bool may_patch(const SampleParams& p) {
  const bool linear = p.interpolation == Interpolation::bilinear;
  const bool collects = kernels().vector_bytes == 64 && p.channels >= kFewestCollected &&
                        p.input.type != ElementType::f64;
  return has_patches(p) && linear && p.input.stride_c != 1 && p.direction == Direction::none &&
         !collects;
}

// Whether f(warp) holds for the one that an image is seen through, or for most of the first few.
template <class F>
bool holds_for_most(const SampleParams& p, int64_t image, F&& f) {
  if (p.warp.batch == 1) return f(0);
  if (p.input.batch > 1) return f(image);
  const int64_t warps = std::min<int64_t>(p.warp.batch, 4);
  int count = 0;
  for (int64_t n = 0; n < warps; ++n) count += f(n);
  return 2 * count > warps;
}

// Whether a splat's map may keep the axes apart (cpu/scaled.h), which the kernel tells.
inline bool may_be_scaled(const SampleParams& p) {
  return p.map == MapKind::affine && p.dims == 2 && !any_wraps(p);
}

// Whether splat's work goes with the image's pixels, not with the points.
inline bool may_be_turned(const SampleParams& p, const Plan& plan) {
  const bool linear = p.interpolation == Interpolation::bilinear;
  const bool rule = !has_channels_inside(p) || only_zeros(p);
  return plan.turned && p.map == MapKind::affine && p.dims == 2 && linear && rule;
}

// The channels that are computed together: where points are scattered over the image and each pixel
// is seen often, no more planes than stay in the L2 cache, if one does.
inline int64_t channels_together(const SampleParams& p, int64_t image) {
  constexpr int64_t kCache = int64_t(1) << 20;
  const int64_t pixels = points(p.input_size, p.dims);
  const int64_t plane = pixels * element_size(p.input.type);
  if (!is_free(p.map) || has_channels_inside(p)) return p.channels;
  if (plane * p.channels <= kCache || plane > 2 * kCache) return p.channels;
  if (16 * points(p.output_size, p.dims) < pixels) return p.channels;
  const auto scattered = [&](int64_t warp) { return kernels().is_scattered(p, warp); };
  if (!holds_for_most(p, image, scattered)) return p.channels;
  took(Path::channels_apart);
  return std::max<int64_t>(1, kCache / plane);
}

// What matters of how an image is splatted onto. Points too few for patches are added one by one,
// which suits longer rows.
inline Hints splat_hints(const SampleParams& p, int64_t image) {
  const auto most = [&](auto&& f) { return holds_for_most(p, image, f); };
  Hints hints;
  if (control_points(p) > 0) return hints;
  hints.scattered = channels_together(p, image) < p.channels;
  hints.columns = most([&](int64_t warp) { return wants_high_tiles(p, warp); });
  hints.sparse = !hints.columns && may_patch(p) &&
                 most([&](int64_t warp) { return kernels().is_sparse(p, warp); });
  return hints;
}

}  // namespace cpu
}  // namespace stn_cuda
