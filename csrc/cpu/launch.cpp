// Cuts the work into tasks and hands them to torch's thread pool.
#include <ATen/Parallel.h>

#include <vector>

#include "backend.h"
#include "cpu/apart.h"
#include "cpu/ways.h"

namespace stn_cuda {
namespace cpu {
namespace {

// Elements of work below which a task is not worth a thread of its own.
constexpr int64_t kGrain = 16384;

// How a kernel's work is cut, and what the plan points to.
struct Work {
  Plan plan;
  int64_t per_task;  // elements
  std::vector<int32_t> cuts;
  std::vector<double> partial;
};

template <class Params>
void run(void (*kernel)(const Params&, const Plan&, int64_t, int64_t), const Params& p,
         const Plan& plan, int64_t work_per_task) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work_per_task));
  at::parallel_for(0, plan.tasks, grain,
                   [&](int64_t begin, int64_t end) { kernel(p, plan, begin, end); });
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

std::vector<int32_t> cut_slabs(const SampleParams& p, int64_t slabs) {
  std::vector<int32_t> cuts(p.input.batch * (slabs + 1));
  for (int64_t n = 0; n < p.input.batch; ++n) {
    kernels().cut_slabs(p, n, slabs, cuts.data() + n * (slabs + 1));
  }
  return cuts;
}

Work splat_work(const SampleParams& p, int64_t together) {
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
  plan.scaled = may_be_scaled(p);
  plan.together = together;
  // Each slab would see points of every tile.
  plan.by_channel = plan.slabs > 1 && p.input.stride_c != 1 && is_scattered(p, 0);
  if (plan.by_channel) took(Path::slabs_by_channel);
  if (plan.slabs > 1) took(Path::slabs);
  plan.tasks = p.input.batch * plan.slabs;
  Work result{};
  if (plan.slabs > 1 && !plan.by_channel && !may_be_turned(p, plan)) {
    took(Path::slabs_by_points);
    result.cuts = cut_slabs(p, plan.slabs);
    plan.cuts = result.cuts.data();
  }
  if (control_points(p) > 0) {
    plan.basis_tiles = 2;
    const bool direct = p.input.type == ElementType::f32 || p.input.type == ElementType::f64;
    if (p.direction == Direction::none && direct && share_points(p)) share_basis(p, 1, plan);
  }
  result.plan = plan;
  result.per_task = work / plan.slabs;
  return result;
}

// With what is to be summed by tasks, if a map's parameters are.
Work sums_work(const SampleParams& p, bool sums, Plan plan) {
  if (control_points(p) > 0) {
    plan.basis_tiles = 2;  // a tile's are wanted twice; the next tile's come in between
    const bool fixed = are_fixed(facts_of(p.map, p.dims), p.warp.count);
    if (share_points(p)) share_basis(p, fixed ? 1 : 2, plan);
  }
  Work work{};
  work.partial.resize(sums ? plan.tasks * p.warp.count : 0);
  plan.partial = sums ? work.partial.data() : nullptr;
  work.plan = plan;
  work.per_task = tile_points(plan) * plan.tiles_per_task * p.channels * images_per_warp(p);
  return work;
}

Work grad_warp_work(const SampleParams& p, bool add) {
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
  return sums_work(p, sums, plan);
}

void finish_sums(const SampleParams& p, const Work& work) {
  if (work.plan.partial) kernels().finish_grad_warp(p, work.plan);
}

void sum_slopes(const SampleParams& p) {
  took(Path::slopes_summed);
  const Points points = points_of(p, false, false);
  const Work work = sums_work(p, true, group_plan(points, p.warp.batch, 4, wants_padding(p)));
  run(kernels().sum_slopes, p, work.plan, work.per_task);
  finish_sums(p, work);
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

void splat(const SampleParams& p) {
  const Work work = splat_work(p, channels_together(p));
  run(kernels().splat, p, work.plan, work.per_task);
}

// The channels whose shares of the warp's gradient are computed together. (Sums of parts are not to
// be rounded to 16 bits.)
int64_t summed_together(const SampleParams& p) {
  return element_size(p.warp.type) == 2 ? p.channels : channels_together(p);
}

void grad_warp(const SampleParams& p) {
  if (p.slopes.data) return sum_slopes(p);
  for_images_and_channels(p, summed_together(p), [](const auto& part, bool first) {
    const Work work = grad_warp_work(part, !first);
    run(kernels().grad_warp, part, work.plan, work.per_task);
    finish_sums(part, work);
  });
}

// Whether images and warps belong together one by one, and each image's channels.
bool are_pairs(const SampleParams& p) {
  return p.batch > 1 && p.warp.batch == p.batch && p.input.batch == p.batch &&
         summed_together(p) == p.channels;
}

// Image after image: what flows back to one is still in a cache when it is wanted again.
void gradients(const SampleParams& to_warp, const SampleParams& to_image) {
  const auto one_by_one = [&] {
    splat(to_image);
    grad_warp(to_warp);
  };
  if (!are_pairs(to_warp)) return one_by_one();
  const Work warps = grad_warp_work(to_warp, false);
  const Work images = splat_work(to_image, channels_together(to_image));
  // Whether each image has tasks of its own, and there are enough images for all threads.
  const bool shared = warps.plan.basis_shared || images.plan.basis_shared;
  if (shared || images.plan.slabs > 1) return one_by_one();
  took(Path::gradients_in_turns);
  constexpr int64_t kCache = int64_t(1) << 18;
  const int64_t tasks = warps.plan.tasks / to_warp.batch;  // of an image
  const int64_t values = points(to_warp.output_size, to_warp.dims) * to_warp.channels;
  const int64_t some = std::max<int64_t>(1, kCache / (values * element_size(to_warp.output.type)));
  const int64_t work = tasks * warps.per_task + images.per_task;
  at::parallel_for(0, to_warp.batch, std::max<int64_t>(1, kGrain / work),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t n = begin; n < end; n += some) {
                       const int64_t last = std::min(end, n + some);
                       kernels().grad_warp(to_warp, warps.plan, n * tasks, last * tasks);
                       kernels().splat(to_image, images.plan, n, last);
                     }
                   });
  finish_sums(to_warp, warps);
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
                                  warp_grid_backward, gradients, true, true});

}  // namespace

}  // namespace cpu
}  // namespace stn_cuda
