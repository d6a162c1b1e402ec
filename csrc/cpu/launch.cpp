// Cuts the work into tasks and hands them to torch's thread pool.
#include <ATen/Parallel.h>

#include <vector>

#include "backend.h"
#include "cpu/weaving.h"

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

void run(void (*kernel)(const SampleParams&, const Plan&, int64_t, int64_t), const SampleParams& p,
         const Batch& batch) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, batch.per_task()));
  at::parallel_for(0, batch.tasks(), grain, [&](int64_t begin, int64_t end) {
    batch.for_tasks(begin, end, [&](const Plan& plan, int64_t first, int64_t last) {
      kernel(p, plan, first, last);
    });
  });
}

// streams: whether the result, of which this may be a part, is written past the caches.
Work sample_work(const SampleParams& p, decltype(Kernels::sample) kernel, const Hints& hints,
                 bool streams, const float* woven) {
  const bool windows = !woven && !hints.scattered && use_windows(p, hints.columns);
  const Points points = points_of(p, hints, windows);
  const int64_t rows = rows_per_tile(p, hints);
  Plan plan = tile_plan(points, p.warp.batch, rows, wants_padding(p), points_together(p));
  choose_ways(p, hints, windows, plan);
  const bool values = kernel == kernels().sample;
  plan.streams = streams;
  plan.woven = woven;
  int64_t work = tile_points(plan) * p.channels * images_per_warp(p);
  if (values && control_points(p) > 0) {
    plan.basis_tiles = 2;  // a tile's looks are found while the one before it is worked on
    if (share_points(p)) {
      share_basis(p, 1, plan);
      plan.tiles_per_task = plan.basis_tiles;
      plan.tasks = p.warp.batch * ceil_div(plan.tiles, plan.tiles_per_task);
      work *= plan.tiles_per_task;
    }
  }
  return {plan, work, {}, {}};
}

void sample_together(const SampleParams& given, decltype(Kernels::sample) kernel, bool streams,
                     const float* woven) {
  with_hints(given, [&](const SampleParams& p, const auto& hints) {
    const Batch batch(p.warp.batch, hints, [&](const Hints& of, int64_t) {
      return sample_work(p, kernel, of, streams, woven);
    });
    run(kernel, p, batch);
  });
}

std::vector<int32_t> cut_slabs(const SampleParams& p, int64_t slabs) {
  std::vector<int32_t> cuts(p.input.batch * (slabs + 1));
  for (int64_t n = 0; n < p.input.batch; ++n) {
    kernels().cut_slabs(p, n, slabs, cuts.data() + n * (slabs + 1));
  }
  return cuts;
}

Work splat_work(const SampleParams& p, const Hints& hints, int64_t image) {
  const int64_t outermost = p.input_size[p.dims - 1];
  const bool high = hints.columns, padded = p.map == MapKind::chain;
  const bool patched = may_patch(p) && !high && !hints.sparse;
  if (hints.sparse) took(Path::splat_sparse);
  const int64_t rows = patched ? kPatchedRows : rows_per_tile(p, high);
  // A free map's points are added one by one, in whatever rows; of wide ones patches see less where
  // they are a rectangle's.
  const bool rectangles = patched && p.output_size[0] * kPatchedRows > kSmallTile;
  const Points cut = rectangles ? rows_of(p.output_size, p.dims)
                                : points_of(p, hints, is_parametric(p.map) && use_windows(p, high));
  Plan plan = tile_plan(cut, p.warp.batch, rows, padded);
  // Writing suffers more; a free map's rows of points may see many rows of pixels.
  plan.plane_by_plane =
      (high && columns_collide(p.input, 8)) || (is_free(p.map) && columns_collide(p.input, 1));
  plan.band = rows_of_bands(p, hints);
  constexpr int64_t kZeros = 32;  // pixels are zeroed in the time of one addition
  const int64_t added = points(p.output_size, p.dims) * (p.batch / p.input.batch);
  const int64_t work = (added + points(p.input_size, p.dims) / kZeros) * p.channels;
  // Every slab looks at all output points, so no more of them than there are threads to feed.
  const int64_t useful = std::max<int64_t>(1, work * p.input.batch / kGrain);
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), useful);
  plan.slabs = p.input.batch % threads == 0 ? 1 : std::min(outermost, threads);
  plan.turned = use_turned(p);
  plan.streams = is_image_too_large(p);
  plan.scaled = may_be_scaled(p);
  plan.weaves = use_woven_sums(p);
  plan.together = plan.weaves ? channels_woven(p, kPatchChannels) : channels_together(p, image);
  // Each slab would see points of every tile.
  plan.by_channel =
      plan.slabs > 1 && p.input.stride_c != 1 &&
      (!plan.weaves || p.channels >= kPatchChannels * plan.slabs) &&
      holds_for_most(p, image, [&](int64_t warp) { return is_scattered(p, 0, warp); });
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

Batch splat_batch(const SampleParams& p) {
  return Batch(
      p.input.batch, [&](int64_t n) { return splat_hints(p, n); },
      [&](const Hints& hints, int64_t first) { return splat_work(p, hints, first); });
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

Work grad_warp_work(const SampleParams& p, bool add, const Hints& hints, const float* woven) {
  const bool sums = !is_free(p.map) && !p.keeps, padded = wants_padding(p);
  const bool windows = !woven && !hints.scattered && use_windows(p, hints.columns);
  const int64_t rows = rows_per_tile(p, hints);
  const Points points = points_of(p, hints, windows);
  const int64_t most = points_together(p);
  Plan plan = sums ? group_plan(points, p.warp.batch, p.channels, rows, padded, most)
                   : tile_plan(points, p.warp.batch, rows, padded, most);
  choose_ways(p, hints, windows, plan);
  plan.add = add;
  plan.woven = woven;
  if (p.keeps) took(Path::grad_kept);
  return sums_work(p, sums, plan);
}

template <class HintsOf>
Batch grad_warp_batch(const SampleParams& p, bool add, const HintsOf& hints,
                      const float* woven = nullptr) {
  return Batch(p.warp.batch, hints,
               [&](const Hints& of, int64_t) { return grad_warp_work(p, add, of, woven); });
}

void finish_sums(const SampleParams& p, const Batch& batch) {
  batch.for_alike([&](const Plan& plan, int64_t first, int64_t last) {
    if (plan.partial) kernels().finish_grad_warp(p, plan, first, last);
  });
}

void sum_slopes(const SampleParams& p) {
  took(Path::slopes_summed);
  const Points points = points_of(p, Hints{}, false);
  const Work work =
      sums_work(p, true, group_plan(points, p.warp.batch, p.channels, 4, wants_padding(p)));
  run(kernels().sum_slopes, p, work.plan, work.per_task);
  kernels().finish_grad_warp(p, work.plan, 0, p.warp.batch);
}

// Whether a call is worth more than one thread.
bool can_share(const SampleParams& p) {
  const int64_t elements = points(p.output_size, p.dims) * p.channels * p.batch;
  return at::get_num_threads() > 1 && elements > 2 * kGrain;
}

// What is looked at together: so many planes woven, or as many channels as apart(n) says. Where
// these are not all, they come one after the other image by image: where the points look is read
// for each of them, and still in a cache. sums: whether these are summed, so that the parts of a
// sum must not depend on the threads, and of which all must be one part: whole.
template <class Apart>
Share share_of(const SampleParams& p, int64_t together, Apart&& apart, bool sums, bool whole,
               int64_t n) {
  if (use_weaving(p, together, n)) {
    const int64_t threads = can_share(p) ? at::get_num_threads() : 1;
    const bool one_sum = sums && p.warp.batch != p.batch;
    const int64_t channels = channels_woven(p, together, sums ? 1 : threads);
    const int64_t images = images_woven(p, channels, one_sum ? 1 : threads);
    const bool all = channels == p.channels && images >= images_per_warp(p);
    if (all || !whole) return {images, channels, true};
  }
  const int64_t channels = apart(n);
  const bool one = channels < p.channels && p.warp.batch == p.batch;
  return {one ? 1 : p.batch, channels, false};
}

// f(part, first, woven) for what is looked at together. Where enough of it is woven, each thread
// has parts of its own: what one wove, another would wait for.
template <class ShareOf, class F>
void for_looks(const SampleParams& p, int64_t together, bool in_order, ShareOf&& share, F&& f) {
  auto parts = parts_of(p, in_order, share);
  const auto past = std::stable_partition(parts.begin(), parts.end(),
                                          [](const auto& some) { return some[0].woven; });
  const auto work = [&](int64_t begin, int64_t end) {
    Loom loom;
    for (int64_t k = begin; k < end; ++k) {
      for (const Part& part : parts[k]) {
        const bool weaves = part.woven && part.params.channels > 1;
        f(part.params, part.first, weaves ? loom.weave(part.params, together) : nullptr);
      }
    }
  };
  const int64_t woven = past - parts.begin(), all = static_cast<int64_t>(parts.size());
  const bool apart = woven >= at::get_num_threads() && can_share(p);
  if (apart) {
    took(Path::woven_apart);
    at::parallel_for(0, woven, 1, work);
  }
  work(apart ? woven : 0, all);
}

void sample(const SampleParams& p) {
  const bool streams = is_output_too_large(p);
  const auto apart = [&](int64_t n) { return channels_together(p, n); };
  const int64_t together = kernels().woven.values;
  const auto share = [&](int64_t n) { return share_of(p, together, apart, false, false, n); };
  for_looks(p, together, false, share, [&](const auto& part, bool first, const float* woven) {
    SampleParams q = part;
    if (!first) q.mask.data = nullptr;  // it is written
    sample_together(q, kernels().sample, streams, woven);
  });
}

// Where the kernels look for the points of the values, the derivatives' lie, too.
void sample_derivative(const SampleParams& p) {
  SampleParams placed = p;
  if (!p.output.data) {
    placed.output = p.derivative;
    placed.output.data = nullptr;
  }
  const auto apart = [&](int64_t n) { return channels_together(placed, n); };
  const int64_t together = kernels().woven.derivatives[p.dims - 2];
  const auto share = [&](int64_t n) { return share_of(placed, together, apart, false, false, n); };
  for_looks(placed, together, false, share, [](const auto& part, bool, const float* woven) {
    sample_together(part, kernels().sample_derivative, false, woven);
  });
}

void cover(const SampleParams& p) {
  const Plan plan = tile_plan(rows_of(p.output_size, p.dims), p.warp.batch, 4, true);
  run(kernels().cover, p, plan, tile_points(plan) * images_per_warp(p));
}

void splat(const SampleParams& given) {
  const SampleParams p = are_one_row(given) ? as_one_row(given) : given;
  run(kernels().splat, p, splat_batch(p));
}

// The channels whose shares of the warp's gradient are computed together. (Sums of parts are not to
// be rounded to 16 bits.)
int64_t summed_together(const SampleParams& p, int64_t image) {
  return element_size(p.warp.type) == 2 ? p.channels : channels_together(p, image);
}

int64_t gradients_woven(const SampleParams& p) {
  return p.direction == Direction::none ? kernels().woven.gradients : kernels().woven.bends;
}
Share share_of_gradients(const SampleParams& p, int64_t n) {
  const auto apart = [&](int64_t image) { return summed_together(p, image); };
  const bool whole = !is_free(p.map) || element_size(p.warp.type) == 2;
  return share_of(p, gradients_woven(p), apart, true, whole, n);
}

void grad_warp(const SampleParams& p) {
  if (p.slopes.data) return sum_slopes(p);
  const auto share = [&](int64_t n) { return share_of_gradients(p, n); };
  for_looks(p, gradients_woven(p), true, share,
            [](const auto& part, bool first, const float* woven) {
              with_hints(part, [&](const SampleParams& q, const auto& hints) {
                const Batch batch = grad_warp_batch(q, !first, hints, woven);
                run(kernels().grad_warp, q, batch);
                finish_sums(q, batch);
              });
            });
}

// Whether images and warps belong together one by one, and each image's channels.
bool are_pairs(const SampleParams& p) {
  const Share all{p.batch, p.channels, false};
  bool pairs = p.batch > 1 && p.warp.batch == p.batch && p.input.batch == p.batch;
  for (int64_t n = 0; pairs && n < p.batch; ++n) pairs = share_of_gradients(p, n) == all;
  return pairs;
}

// Image after image: what flows back to one is still in a cache when it is wanted again.
void gradients(const SampleParams& to_warp, const SampleParams& to_image) {
  const auto one_by_one = [&] {
    splat(to_image);
    grad_warp(to_warp);
  };
  if (!are_pairs(to_warp)) return one_by_one();
  const auto hints = [&](int64_t n) { return hints_of(to_warp, n); };
  const Batch warps = grad_warp_batch(to_warp, false, hints), images = splat_batch(to_image);
  // Whether each image has tasks of its own, and there are enough images for all threads.
  const bool by_image = warps.all([](const Plan& plan) {
    return !plan.basis_shared;
  }) && images.all([](const Plan& plan) { return !plan.basis_shared && plan.slabs == 1; });
  if (!by_image) return one_by_one();
  took(Path::gradients_in_turns);
  constexpr int64_t kCache = int64_t(1) << 18;
  const int64_t values = points(to_warp.output_size, to_warp.dims) * to_warp.channels;
  const int64_t some = std::max<int64_t>(1, kCache / (values * element_size(to_warp.output.type)));
  const int64_t work = warps.tasks_before(1) * warps.per_task() + images.per_task();
  at::parallel_for(
      0, to_warp.batch, std::max<int64_t>(1, kGrain / work), [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; n += some) {
          const int64_t last = std::min(end, n + some);
          warps.for_tasks(warps.tasks_before(n), warps.tasks_before(last),
                          [&](const Plan& plan, int64_t first, int64_t past) {
                            kernels().grad_warp(to_warp, plan, first, past);
                          });
          images.for_tasks(n, last, [&](const Plan& plan, int64_t first, int64_t past) {
            kernels().splat(to_image, plan, first, past);
          });
        }
      });
  finish_sums(to_warp, warps);
}

void warp_grid(const GridParams& p) {
  const Plan plan = tile_plan(rows_of(p.output_size, p.dims), p.batch);
  run(kernels().warp_grid, p, plan, tile_points(plan));
}

void warp_grid_backward(const GridParams& p) {
  Plan plan = group_plan(rows_of(p.output_size, p.dims), p.batch, 1);
  std::vector<double> partial(plan.tasks * p.warp.count);
  plan.partial = partial.data();
  run(kernels().warp_grid_backward, p, plan, tile_points(plan) * plan.tiles_per_task);
  kernels().finish_warp_grid_backward(p, plan, 0, p.batch);
}

[[maybe_unused]] const bool registered = register_backend(
    c10::DeviceType::CPU, Backend{sample, sample_derivative, cover, splat, grad_warp, warp_grid,
                                  warp_grid_backward, gradients, true, true});

}  // namespace

}  // namespace cpu
}  // namespace stn_cuda
