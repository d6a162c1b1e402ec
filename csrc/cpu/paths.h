// Counters of the ways through the CPU kernels, by which tests prove that a case takes the one it
// is there for. Switched off, a count is a load and a branch, for each block of a tile's channels
// at most.
#pragma once

#include <atomic>
#include <cstdint>

#include "math/qualifiers.h"

// What a call, a tile or (where noted) an image or a block of a tile's channels went through.
#define STN_CPU_PATHS(F)                                                                       \
  /* calls */                                                                                  \
  F(flattened)          /* a grid's points as a single row */                                  \
  F(folded)             /* another map's, likewise, each with its place */                     \
  F(warps_as_rows)      /* a batch's grids as the rows of one */                               \
  F(warps_in_one_row)   /* splat: end to end */                                                \
  F(sees_columns)       /* tiles as high as wide */                                            \
  F(cut_apart)          /* a batch's warps do not all look alike */                            \
  F(in_blocks)          /* vectors hold blocks of points, not rows */                          \
  F(tiles_in_groups)    /* several tiles are summed in one task */                             \
  F(channels_apart)     /* not all channels at once */                                         \
  F(woven_apart)        /* each thread weaves for itself */                                    \
  F(basis_shared)       /* basis functions: warp after warp comes to a tile */                 \
  F(slabs)              /* splat: an image is cut */                                           \
  F(slabs_by_channel)   /* splat: it is cut channel after channel */                           \
  F(slabs_by_points)    /* splat: it is cut where the points are */                            \
  F(splat_sparse)       /* points too few for tiles of patches */                              \
  F(slopes_summed)      /* grad_warp: of what another call kept */                             \
  F(gradients_in_turns) /* grad_warp and splat: image after image */                           \
  /* tiles of any op */                                                                        \
  F(basis_found)                                                                               \
  F(basis_kept)  /* from another pass, or another warp */                                      \
  F(grid_packed) /* grids read as vectors */                                                   \
  F(grid_planar) /* the same, each component by itself */                                      \
  F(grid_strided)                                                                              \
  F(taps_inside) /* no tap is outside the image: cheaper, linear only */                       \
  F(taps_bounded)                                                                              \
  F(inside)          /* no point looks outside: as with zeros there */                         \
  F(announced)       /* what is next of a large image (cpu/ahead.h) */                         \
  F(plane_announced) /* images: before scattered points see them */                            \
  F(runs_copied)                                                                               \
  F(runs_of_nan)                                                                               \
  F(runs_by_plane)  /* one channel after another */                                            \
  F(runs_announced) /* some way ahead, of points scattered over a large image */               \
  F(runs_gathered)  /* into vectors */                                                         \
  F(runs_woven)     /* of channels next to each other */                                       \
  F(runs_inserted)  /* pair by pair */                                                         \
  F(windows_apart)  /* tiles: few planes at once, whose rows would be in each other's way */   \
  /* sample */                                                                                 \
  F(sample_streams) /* tasks: values past the caches */                                        \
  F(sample_staged)  /* calls: the same, of blocks */                                           \
  F(sample_nothing) /* all points look outside */                                              \
  F(sample_narrow)  /* windows that are wider than the image */                                \
  F(sample_wide)    /* windows of four vectors */                                              \
  F(sample_windows)                                                                            \
  F(sample_runs)                                                                               \
  F(sample_taps) /* planar, tap by tap: what windows and runs have left */                     \
  F(sample_strided)                                                                            \
  F(sample_channels) /* vectors of channels */                                                 \
  F(sample_pairs)    /* images: few channels of bytes, two pixels at once */                   \
  /* sample_derivative */                                                                      \
  F(derive_windows)                                                                            \
  F(derive_runs)                                                                               \
  F(derive_taps)                                                                               \
  F(derive_strided)                                                                            \
  F(derive_channels)                                                                           \
  /* grad_warp */                                                                              \
  F(grad_kept) /* calls: of slopes, with the values */                                         \
  F(grad_nothing)                                                                              \
  F(grad_narrow)                                                                               \
  F(grad_wide)                                                                                 \
  F(grad_windows)                                                                              \
  F(grad_runs)                                                                                 \
  F(grad_taps)                                                                                 \
  F(grad_strided)                                                                              \
  F(grad_channels)                                                                             \
  /* splat */                                                                                  \
  F(scaled)           /* images: through a map that keeps the axes apart */                    \
  F(scaled_onto)      /* images: on top of what another output has added */                    \
  F(scaled_windows)   /* images: of which vectors of pixels take sums by permutations */       \
  F(scaled_carefully) /* rows: of values that are not finite, where a weight of 0 may be */    \
  F(turned_2)         /* images: by gathering, from 2 candidates of a row of points */         \
  F(turned_3)                                                                                  \
  F(turned_4)                                                                                  \
  F(turned_by_y)         /* images: candidates found by the row that they see */               \
  F(turned_in_blocks)    /* images: vectors hold blocks of pixels, not rows */                 \
  F(turned_narrow)       /* images: windows of values that are wider than the output */        \
  F(turned_onto)         /* images: on top of what another output has added */                 \
  F(turned_streams)      /* images: past the caches */                                         \
  F(turned_channels)     /* slabs: pixel by pixel, all channels of each */                     \
  F(splat_beyond)        /* tiles: what a boundary rule adds to an image that was gathered */  \
  F(splat_beyond_points) /* blocks of their channels: values that are not finite */            \
  F(zeros_on_the_way)    /* slabs: zeroed where tiles come to them, not before */              \
  F(splat_nothing)                                                                             \
  F(splat_passed_over)    /* what sees other slabs, told before it is known where it looks */  \
  F(splat_seen_elsewhere) /* the same, told from where it looks */                             \
  F(splat_scattered)      /* points in their own order */                                      \
  F(splat_announced)      /* what they see, of a large plane */                                \
  F(splat_alone)          /* blocks of a tile: no pixel is seen by two points */               \
  F(splat_by_plane)       /* one channel after another */                                      \
  F(splat_elsewhere)      /* all taps are in other slabs */                                    \
  F(splat_collected)      /* blocks of a tile: pixels collect, from points in order */         \
  F(splat_patched)        /* blocks of a tile: summed in a patch */                            \
  F(splat_woven)          /* four channels of a pixel next to each other */                    \
  F(splat_inside)         /* blocks of a tile: pairs of pixels, all of them in the slab */     \
  F(splat_across)         /* blocks of a tile: pairs of pixels, some of them in other slabs */ \
  F(splat_points)         /* blocks of a tile: values that are not finite */                   \
  F(splat_taps)                                                                                \
  F(splat_channels)                                                                            \
  F(splat_held) /* vectors of channels: pixels in registers */                                 \
  /* calls, again */                                                                           \
  F(in_bands) /* tiles of a large plane, column by column */

namespace stn_cuda {
namespace cpu {

#define STN_PATH_NAME(NAME) NAME,
enum class Path : int { STN_CPU_PATHS(STN_PATH_NAME) count };
#undef STN_PATH_NAME

extern std::atomic<bool> counting_paths;
extern std::atomic<int64_t> path_counts[static_cast<int>(Path::count)];

STN_HD void took(Path path) {
  if (!counting_paths.load(std::memory_order_relaxed)) return;
  path_counts[static_cast<int>(path)].fetch_add(1, std::memory_order_relaxed);
}

}  // namespace cpu
}  // namespace stn_cuda
