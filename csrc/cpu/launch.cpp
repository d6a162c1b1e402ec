// Cuts the work into tasks and hands them to torch's thread pool.
#include <ATen/Parallel.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "backend.h"
#include "cpu/apart.h"
#include "cpu/plan.h"
#include "math/parametric.h"

namespace stn_cuda {
namespace cpu {
namespace {

// Elements of work below which a task is not worth a thread of its own.
constexpr int64_t kGrain = 16384;

template <class Params>
void run(void (*kernel)(const Params&, const Plan&, int64_t, int64_t), const Params& p,
         const Plan& plan, int64_t work_per_task) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work_per_task));
  at::parallel_for(0, plan.tasks, grain,
                   [&](int64_t begin, int64_t end) { kernel(p, plan, begin, end); });
}

// Whether tiles should be as high as wide: what sees columns of the image wants that.
bool wants_high_tiles(const SampleParams& p) {
  return p.output_size[0] >= 64 && kernels().sees_columns(p);
}

// Rows of a tile where the output is wide: more of them share more of the image's rows, longer ones
// suit the prefetcher when a tile visits many planes. (A grid is itself read row by row, and
// scattered points share nothing.)
int64_t rows_per_tile(const SampleParams& p, bool high, bool scattered = false) {
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
bool columns_collide(const Image& image, int64_t parts) {
  constexpr int64_t kAll = 4096;
  const int64_t bytes = image.stride[1] * (image.type == ElementType::f64 ? 8 : 4);
  return std::gcd(bytes, kAll) * parts >= kAll;
}

// The control points of a spline, or 0 of other maps.
int64_t control_points(const SampleParams& p) {
  return is_parametric(p.map) ? points_of(facts_of(p.map, p.dims), p.warp.count) : 0;
}

// Whether several warps have the same control points, which come after the other parameters; to the
// bit.
bool share_points(const SampleParams& p) {
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
void share_basis(const SampleParams& p, int arrays, Plan& plan) {
  constexpr int64_t kCache = int64_t(3) << 16;
  took(Path::basis_shared);
  const int64_t tile = control_points(p) * basis_row(plan) * element_size(p.warp.type) * arrays;
  const int64_t tiles = std::clamp<int64_t>(kCache / tile, 1, kMostBasisTiles);
  plan.basis_shared = true;
  plan.basis_tiles = static_cast<int>(tiles > plan.across ? tiles - tiles % plan.across : tiles);
}

// Whether an output's rows hold too few points for full vectors.
bool can_fold(const SampleParams& p) {
  return p.output_size[0] < 128 && p.output_size[0] % kRowAlign != 0;
}

// Whether the looks at the image are gathered where they find runs of pixels.
bool use_gather(const SampleParams& p) {
  const bool narrow = p.input.type == ElementType::f16 || p.input.type == ElementType::bf16;
  const bool linear = p.interpolation == Interpolation::bilinear;
  const bool nearest = p.interpolation == Interpolation::nearest;
  const bool can = p.input.type == ElementType::f32 ? linear || nearest : narrow && linear;
  const Gathers gathers = gathers_in_use();
  if (gathers == Gathers::planes) return can && p.dims == 2 && !narrow;
  return can && gathers != Gathers::none;
}

// Whether points are scattered over an image whose planes take more than so many bytes.
bool is_scattered(const SampleParams& p, int64_t bytes) {
  const int64_t plane = points(p.input_size, p.dims) * element_size(p.input.type);
  return is_free(p.map) && plane > bytes && kernels().is_scattered(p);
}

// From where on that matters to looks at the image, which then find little in the L1 cache.
constexpr int64_t kSmall = int64_t(1) << 18;

// Whether the result is so large that what comes next gains by not finding it in a cache, where it
// is in the way of what is read: measured, benchmarks/README.md. As many values of 16 bits as of
// float32. (What lies around the image is added to it at once.)
bool is_too_large(const SampleParams& p) {
  constexpr int64_t kPlanar = int64_t(16) << 20, kInside = int64_t(12) << 20;
  const int64_t values = points(p.output_size, p.dims) * p.channels * p.batch;
  const int64_t element = element_size(p.output.type);
  const int64_t bytes = values * std::max<int64_t>(4, element);
  const bool streams = kernels().vector_bytes == 64 && element > 1;
  return streams && bytes > (has_channels_inside(p) ? kInside : kPlanar) && !p.around;
}

// Whether windows may win against runs: measured, benchmarks/README.md. A grid's points may look
// anywhere, and few channels of a plane do not pay for finding out, but for two or three where
// windows come first. Derivatives weigh every row of a window for each axis, which is too much for
// the many rows of a volume's. high: looks go along columns.
bool use_windows(const SampleParams& p, bool high) {
  const bool grid = !is_parametric(p.map), long_vectors = kernels().vector_bytes == 64;
  const Gathers gathers = gathers_in_use();
  const bool first = gathers == Gathers::planes || gathers == Gathers::rest;
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
int window_rows(const SampleParams& p) {
  if (use_gather(p) && gathers_in_use() != Gathers::rest) return 5;
  return p.dims > 2 || kernels().vector_bytes < 64 || p.channels < 4 ? 8 : 14;
}

// How sample and grad_warp come to the pixels.
void choose_ways(const SampleParams& p, bool high, bool scattered, bool windows, Plan& plan) {
  plan.plane_by_plane = high && columns_collide(p.input, 2);
  plan.gather = use_gather(p);
  plan.inserts = inserts_in_use();
  plan.scattered = scattered;
  plan.windows = windows;
  plan.window_rows = window_rows(p);
}

// Whether splat may be turned round (cpu/turned.h): measured, benchmarks/README.md. Vectors of 32
// bytes gain from three channels on, and only where lanes are permuted quickly: on the processors
// that gather slowly.
bool use_turned(const SampleParams& p) {
  if (kernels().vector_bytes == 64) return true;
  return p.channels >= 3 && gathers_in_use() != Gathers::all;
}

int64_t images_per_warp(const SampleParams& p) { return p.warp.batch == 1 ? p.batch : 1; }

bool have_rows_in_one(const int64_t (&size)[3], const int64_t (&stride)[3], int dims) {
  bool all = true;
  for (int d = 1; d < dims; ++d) all &= stride[d] == stride[d - 1] * size[d - 1];
  return all;
}

// A narrow output's rows laid end to end, where points are found so: full vectors, where its rows
// would leave many lanes empty.
Points points_of(const SampleParams& p, bool high_tiles, bool windows) {
  constexpr int64_t kMostFolded = int64_t(1) << 20;  // for positions(), cpu/tile.h
  const Points rows = rows_of(p.output_size, p.dims);
  const int64_t width = p.output_size[0], all = points(p.output_size, p.dims);
  if (!can_fold(p) || all >= INT32_MAX || p.map == MapKind::chain) return rows;
  if (windows) return rows;
  if (!have_rows_in_one(p.output_size, p.output.stride, p.dims)) return rows;
  const bool placed = needs_position(p.map);
  if (placed && (p.dims > 2 || high_tiles || all > kMostFolded)) return rows;
  for (const Warp* values : {&p.warp, &p.tangent, &p.grad_warp}) {
    if (!is_free(p.map) || !values->data) continue;
    if (!have_rows_in_one(p.output_size, values->stride, p.dims)) return rows;
  }
  took(placed ? Path::folded : Path::flattened);
  return {{all, 1, 1}, placed ? static_cast<int32_t>(width) : 0};
}

// A chain's field is looked at as a planar image, whatever the layout of the other one.
bool wants_padding(const SampleParams& p) {
  return !has_channels_inside(p) || p.map == MapKind::chain;
}

// The points of a tile for looks at the image. (Bicubic ones keep four taps along each axis
// wherever points are too far apart for windows.)
int64_t points_together(const SampleParams& p) {
  const bool keeps_taps = has_channels_inside(p) || p.interpolation == Interpolation::bicubic;
  return keeps_taps ? kSmallTile : kTile;
}

void sample_together(const SampleParams& p, decltype(Kernels::sample) kernel) {
  const bool high = wants_high_tiles(p), scattered = is_scattered(p, kSmall);
  const bool windows = !scattered && use_windows(p, high);
  const Points points = points_of(p, high, windows);
  const int64_t rows = rows_per_tile(p, high, scattered);
  Plan plan = tile_plan(points, p.warp.batch, rows, wants_padding(p), points_together(p));
  choose_ways(p, high, scattered, windows, plan);
  plan.streams = kernel == kernels().sample && is_too_large(p);
  int64_t work = tile_points(plan) * p.channels * images_per_warp(p);
  if (kernel == kernels().sample && control_points(p) > 0) {
    plan.basis_tiles = 2;  // a tile's looks are found while the one before it is worked on
    if (share_points(p)) {
      share_basis(p, 1, plan);
      plan.tiles_per_task = plan.basis_tiles;
      plan.tasks = p.warp.batch * ceil_div(plan.tiles, plan.tiles_per_task);
      work *= plan.tiles_per_task;
    }
  }
  run(kernel, p, plan, work);
}

// Whether splat's work goes with the image's pixels, not with the points.
bool may_be_turned(const SampleParams& p, const Plan& plan) {
  const bool linear = p.interpolation == Interpolation::bilinear;
  return plan.turned && p.map == MapKind::affine && p.dims == 2 && linear && p.input.stride_c != 1;
}

std::vector<int32_t> cut_slabs(const SampleParams& p, int64_t slabs) {
  std::vector<int32_t> cuts(p.input.batch * (slabs + 1));
  for (int64_t n = 0; n < p.input.batch; ++n) {
    kernels().cut_slabs(p, n, slabs, cuts.data() + n * (slabs + 1));
  }
  return cuts;
}

// Whether splat's tiles may be summed in patches, and are not likely to be collected.
bool may_patch(const SampleParams& p) {
  const bool linear = p.interpolation == Interpolation::bilinear;
  const bool collects = kernels().vector_bytes == 64 && p.channels >= kFewestCollected &&
                        p.input.type != ElementType::f64;
  return has_patches(p) && linear && p.input.stride_c != 1 && p.direction == Direction::none &&
         !collects;
}

void splat_together(const SampleParams& p, int64_t together) {
  const int64_t outermost = p.input_size[p.dims - 1];
  const bool high = wants_high_tiles(p);
  const bool padded = p.map == MapKind::chain;
  const bool patched = may_patch(p) && !high;
  const int64_t rows = patched ? kPatchedRows : rows_per_tile(p, high);
  // A free map's points are added one by one, in whatever rows; of wide ones patches see less where
  // they are a rectangle's.
  const bool rectangles = patched && p.output_size[0] * kPatchedRows > kSmallTile;
  const Points cut = rectangles ? rows_of(p.output_size, p.dims)
                                : points_of(p, high, is_parametric(p.map) && use_windows(p, high));
  Plan plan = tile_plan(cut, p.warp.batch, rows, padded);
  plan.plane_by_plane = high && columns_collide(p.input, 8);  // writing suffers more
  constexpr int64_t kZeros = 32;  // pixels are zeroed in the time of one addition
  const int64_t added = points(p.output_size, p.dims) * (p.batch / p.input.batch);
  const int64_t work = (added + points(p.input_size, p.dims) / kZeros) * p.channels;
  // Every slab looks at all output points, so no more of them than there are threads to feed.
  const int64_t useful = std::max<int64_t>(1, work * p.input.batch / kGrain);
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), useful);
  plan.slabs = p.input.batch % threads == 0 ? 1 : std::min(outermost, threads);
  plan.turned = use_turned(p);
  plan.together = together;
  // Each slab would see points of every tile.
  plan.by_channel = plan.slabs > 1 && p.input.stride_c != 1 && is_scattered(p, 0);
  if (plan.by_channel) took(Path::slabs_by_channel);
  if (plan.slabs > 1) took(Path::slabs);
  plan.tasks = p.input.batch * plan.slabs;
  std::vector<int32_t> cuts;
  if (plan.slabs > 1 && !plan.by_channel && !may_be_turned(p, plan)) {
    took(Path::slabs_by_points);
    cuts = cut_slabs(p, plan.slabs);
    plan.cuts = cuts.data();
  }
  if (control_points(p) > 0) {
    plan.basis_tiles = 2;
    const bool direct = p.input.type == ElementType::f32 || p.input.type == ElementType::f64;
    if (p.direction == Direction::none && direct && share_points(p)) share_basis(p, 1, plan);
  }
  run(kernels().splat, p, plan, work / plan.slabs);
}

// With what the sums of the tasks make of a map's parameters, if there are any.
void run_sums(decltype(Kernels::grad_warp) kernel, const SampleParams& p, bool sums, Plan plan) {
  if (control_points(p) > 0) {
    plan.basis_tiles = 2;  // a tile's are wanted twice; the next tile's come in between
    const bool fixed = are_fixed(facts_of(p.map, p.dims), p.warp.count);
    if (share_points(p)) share_basis(p, fixed ? 1 : 2, plan);
  }
  std::vector<double> partial(sums ? plan.tasks * p.warp.count : 0);
  plan.partial = sums ? partial.data() : nullptr;
  run(kernel, p, plan, tile_points(plan) * plan.tiles_per_task * p.channels * images_per_warp(p));
  if (sums) kernels().finish_grad_warp(p, plan);
}

void grad_warp_together(const SampleParams& p, bool add) {
  const bool sums = !is_free(p.map) && !p.keeps, padded = wants_padding(p);
  const bool high = wants_high_tiles(p), scattered = is_scattered(p, kSmall);
  const bool windows = !scattered && use_windows(p, high);
  const int64_t rows = rows_per_tile(p, high, scattered);
  const Points points = points_of(p, high, windows);
  const int64_t most = points_together(p);
  Plan plan = sums ? group_plan(points, p.warp.batch, rows, padded, most)
                   : tile_plan(points, p.warp.batch, rows, padded, most);
  choose_ways(p, high, scattered, windows, plan);
  plan.add = add;
  if (p.keeps) took(Path::grad_kept);
  run_sums(kernels().grad_warp, p, sums, plan);
}

void sum_slopes(const SampleParams& p) {
  took(Path::slopes_summed);
  run_sums(kernels().sum_slopes, p, true,
           group_plan(points_of(p, false, false), p.warp.batch, 4, wants_padding(p)));
}

// The channels that are computed together: where points are scattered over the image and each pixel
// is seen often, no more planes than stay in the L2 cache, if one does.
int64_t channels_together(const SampleParams& p) {
  constexpr int64_t kCache = int64_t(1) << 20;
  const int64_t pixels = points(p.input_size, p.dims);
  const int64_t plane = pixels * element_size(p.input.type);
  if (!is_free(p.map) || has_channels_inside(p)) return p.channels;
  if (plane * p.channels <= kCache || plane > 2 * kCache) return p.channels;
  if (16 * points(p.output_size, p.dims) < pixels || !kernels().is_scattered(p)) return p.channels;
  took(Path::channels_apart);
  return std::max<int64_t>(1, kCache / plane);
}

void sample(const SampleParams& p) {
  for_images_and_channels(p, channels_together(p), [](const auto& part, bool first) {
    SampleParams q = part;
    if (!first) q.mask.data = nullptr;  // it is written
    sample_together(q, kernels().sample);
  });
}

// Where the kernels look for the points of the values, the derivatives' lie, too.
void sample_derivative(const SampleParams& p) {
  SampleParams placed = p;
  if (!p.output.data) {
    placed.output = p.derivative;
    placed.output.data = nullptr;
  }
  for_images_and_channels(placed, channels_together(placed), [](const auto& part, bool) {
    sample_together(part, kernels().sample_derivative);
  });
}

void cover(const SampleParams& p) {
  const Plan plan = tile_plan(rows_of(p.output_size, p.dims), p.warp.batch, 4, true);
  run(kernels().cover, p, plan, tile_points(plan) * images_per_warp(p));
}

void splat(const SampleParams& p) { splat_together(p, channels_together(p)); }

void grad_warp(const SampleParams& p) {
  if (p.slopes.data) return sum_slopes(p);
  // Sums of parts are not to be rounded to 16 bits.
  const int64_t together = element_size(p.warp.type) == 2 ? p.channels : channels_together(p);
  for_images_and_channels(p, together,
                          [](const auto& part, bool first) { grad_warp_together(part, !first); });
}

void warp_grid(const GridParams& p) {
  const Plan plan = tile_plan(rows_of(p.output_size, p.dims), p.batch);
  run(kernels().warp_grid, p, plan, tile_points(plan));
}

void warp_grid_backward(const GridParams& p) {
  Plan plan = group_plan(rows_of(p.output_size, p.dims), p.batch);
  std::vector<double> partial(plan.tasks * p.warp.count);
  plan.partial = partial.data();
  run(kernels().warp_grid_backward, p, plan, tile_points(plan) * plan.tiles_per_task);
  kernels().finish_warp_grid_backward(p, plan);
}

[[maybe_unused]] const bool registered = register_backend(
    c10::DeviceType::CPU, Backend{sample, sample_derivative, cover, splat, grad_warp, warp_grid,
                                  warp_grid_backward, true, true});

}  // namespace

}  // namespace cpu
}  // namespace stn_cuda
