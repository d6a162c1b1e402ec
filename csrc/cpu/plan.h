// How an output is cut into tiles, and those into tasks.
#pragma once

#include <algorithm>

#include "cpu/kernels.h"

namespace stn_cuda {
namespace cpu {

// Groups of tiles whose sums are kept apart: enough for a machine's threads to share one image, few
// enough that the partial sums stay small. As many whatever the batch: a sum must not depend on it.
constexpr int64_t kMostGroups = 64;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The points that tiles are cut from.
struct Points {
  int64_t size[3];
  int32_t fold;
};

inline Points rows_of(const int64_t (&size)[3], int dims) {
  return {{size[0], size[1], dims == 3 ? size[2] : 1}, 0};
}

// Tasks of one tile each. A tile is cut from equal parts of a row; more rows where the output is
// narrow, fewer where it has no more.
inline Plan tile_plan(const Points& points, int64_t warps, int64_t most_rows = 4,
                      bool padded = false, int64_t most = kSmallTile) {
  Plan plan{};
  const auto& size = points.size;
  std::copy(size, size + 3, plan.size);
  plan.fold = points.fold;
  plan.padded = padded;
  const int64_t unit = padded ? kRowAlign : 1;
  const int64_t units = std::max<int64_t>(1, ceil_div(size[0], unit));
  const int64_t rows = std::max<int64_t>(1, std::min(size[1], most_rows));
  const int64_t across = ceil_div(units, most / unit / rows);
  plan.tile_width = static_cast<int32_t>(ceil_div(units, across) * unit);
  plan.tile_rows = static_cast<int32_t>(
      std::max<int64_t>(1, std::min<int64_t>(size[1], most / plan.tile_width)));
  plan.across = ceil_div(size[0], plan.tile_width);
  plan.down = ceil_div(size[1], plan.tile_rows);
  plan.tiles = plan.across * plan.down * size[2];
  plan.tiles_per_task = 1;
  plan.tasks = plan.tiles * warps;
  return plan;
}

inline int64_t tile_points(const Plan& plan) { return int64_t(plan.tile_width) * plan.tile_rows; }

// Tasks of several tiles, each with its own partial sums; of at least as many as have kFewest
// planes of points.
inline Plan group_plan(const Points& points, int64_t warps, int64_t channels, int64_t most_rows = 4,
                       bool padded = false, int64_t most = kSmallTile) {
  constexpr int64_t kFewest = 32;
  Plan plan = tile_plan(points, warps, most_rows, padded, most);
  plan.tiles_per_task = std::max(ceil_div(plan.tiles, kMostGroups),
                                 ceil_div(kFewest, std::max<int64_t>(1, channels)));
  if (plan.tiles_per_task > 1) took(Path::tiles_in_groups);
  plan.tasks = warps * ceil_div(plan.tiles, plan.tiles_per_task);
  return plan;
}

}  // namespace cpu
}  // namespace stn_cuda
