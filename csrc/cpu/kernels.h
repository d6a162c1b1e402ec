// The CPU kernels as the launcher sees them: one table of functions per instruction set. Work is
// cut into tasks whose borders do not depend on the number of threads, and every sum is made
// inside one task or over tasks in a fixed order; so neither do the results.
#pragma once

#include "cpu/paths.h"
#include "cpu/standard_headers.h"
#include "math/qualifiers.h"
#include "params.h"

namespace stn_cuda {
namespace cpu {

// Output points that are processed together, a rectangle of up to so many: enough for what a tile
// waits for before its first point (where it looks, what windows it has) to be little beside the
// rest, few enough for all of that to stay in the L1 cache.
constexpr int kTile = 512;

// The same where each point's taps (up to 56 bytes) are kept while the channels pass by, and for
// splat, which adds in the order of tiles: what a tile adds to is to be in the L1 cache, too.
constexpr int kSmallTile = 256;

// Room for an array over a tile's points whose last vector is not full.
constexpr int kRoom = kTile + 16;

// In a padded tile, rows begin at multiples of this, so that no vector of any instruction set holds
// points of two rows.
constexpr int kRowAlign = 16;

// Bytes of an image from which on its pages are too many for the processor to know where they are.
constexpr int64_t kKnownPages = int64_t(8) << 20;

// Columns of the blocks of points, or of pixels, that a vector may hold (cpu/blocks.h).
constexpr int kBlockColumns = 4;

// Channels whose sums lie next to each other in a patch, or woven (cpu/splat_woven.h).
constexpr int kPatchChannels = 4;

// Whether splat's tiles may be summed in patches (cpu/patch.h): measured, benchmarks/README.md. And
// the rows of tiles that see little more pixels than they have points, of which a row takes two
// vectors.
STN_HD bool has_patches(const SampleParams& p) {
  const int64_t fewest = p.input.type == ElementType::f64 ? 8 : 3;
  return p.dims == 2 && p.channels >= fewest && p.input_size[1] > 1;
}
constexpr int64_t kPatchedRows = 9;

// The channels from which on pixels may collect (cpu/collect.h), from long rows of points.
constexpr int64_t kFewestCollected = 4;

// The tiles whose basis functions (cpu/basis.h) a thread keeps, at most.
constexpr int kMostBasisTiles = 16;

// Whether channels, not pixels, lie next to each other and are computed as vectors.
STN_HD bool has_channels_inside(const SampleParams& p) {
  return p.input.stride_c == 1 && p.output.stride_c == 1 && p.channels > 1;
}

// How the work of a call is cut. The plan may depend on the number of threads only where a task's
// result does not depend on the cut (splat's slabs: each element sees the same additions in the
// same order however the image is cut).
struct Plan {
  int64_t tasks;
  int64_t size[3];       // of what tiles are cut from: the output, or its rows laid end to end
  int32_t fold;          // the length of such rows; 0 if they are not
  int64_t tiles;         // per warp
  int64_t across, down;  // tiles next to each other, and one above the other
  int64_t band;          // so many rows of tiles are gone through column by column; 0: row by row
  int32_t tile_width, tile_rows;
  int block;            // all but splat: rows of the blocks that vectors hold; 0: of none
  bool padded;          // the tiles' rows, for vectors of points of one row
  bool gather;          // sample, grad_warp: whether runs are gathered (cpu/gathers.h)
  bool inserts;         // float32: pair by pair, without the instruction
  const float* woven;   // all but splat: the images in turn (cpu/woven.h); null: read as they are
  bool scattered;       // sample, grad_warp: whether neighbouring points look far apart
  bool windows;         // sample, grad_warp: whether windows (cpu/window.h) may be
  int window_rows;      // of pixels along an axis, above which runs cost less
  bool streams;         // sample, splat: whether results may be written past the caches
  bool plane_by_plane;  // whether planes that are computed together would not fit into the cache
  int64_t tiles_per_task;  // grad_warp, warp_grid_backward: consecutive tiles summed in one task
  int64_t slabs;           // splat: cuts of the image's outermost axis
  const int32_t* cuts;     // splat: (images, slabs + 1) where they begin; null: equal ones
  bool by_channel;         // splat: cuts of that axis of all channels, one behind the other
  int64_t together;        // splat: channels that are computed together
  bool turned;             // splat: whether cpu/turned.h may be
  bool weaves;             // splat: whether it is onto woven planes (cpu/splat_woven.h)
  bool scaled;             // splat: whether cpu/scaled.h may be
  bool add;                // grad_warp, of a free map: to what stands there
  int basis_tiles;         // of how many the basis functions are kept; 0: of none
  bool basis_shared;       // by all warps, which then come to so many tiles one after the other
  double* partial;         // parametric maps: (tasks, parameters) sums; null where none are made
};

// The slots for which a row of basis functions has room: a tile's, and so many more that rows do
// not all meet in the same places of a cache.
STN_HD int32_t basis_row(const Plan& plan) {
  return (plan.tile_width * plan.tile_rows + kRowAlign - 1) / kRowAlign * kRowAlign + kRowAlign;
}

// The planes that the kernels look at together where images are woven (cpu/woven.h); 1: never. Of
// sample; of sample_derivative, in images and in volumes; of grad_warp, also along a direction.
struct PlanesWoven {
  int values, derivatives[2], gradients, bends;
};

struct Kernels {
  const char* name;
  int vector_bytes;  // of one register
  int window_dims;   // up to how many dimensions cpu/window.h is of use
  PlanesWoven woven;
  double (*gather_cost)();                                  // cpu/gathers.h
  bool (*sees_columns)(const SampleParams&, int64_t warp);  // hints, for how work is cut
  bool (*is_scattered)(const SampleParams&, int64_t warp);
  bool (*is_sparse)(const SampleParams&, int64_t warp);
  void (*cut_slabs)(const SampleParams&, int64_t image, int64_t slabs, int32_t* first);
  // cpu/woven.h: writes the pixels [begin, end) of all images in turn.
  void (*weave)(const SampleParams&, int64_t together, int64_t begin, int64_t end, float* to);
  // Each processes the tasks [begin, end).
  void (*sample)(const SampleParams&, const Plan&, int64_t begin, int64_t end);
  void (*sample_derivative)(const SampleParams&, const Plan&, int64_t begin, int64_t end);
  void (*cover)(const SampleParams&, const Plan&, int64_t begin, int64_t end);
  void (*splat)(const SampleParams&, const Plan&, int64_t begin, int64_t end);
  void (*grad_warp)(const SampleParams&, const Plan&, int64_t begin, int64_t end);
  void (*sum_slopes)(const SampleParams&, const Plan&, int64_t begin, int64_t end);
  void (*warp_grid)(const GridParams&, const Plan&, int64_t begin, int64_t end);
  void (*warp_grid_backward)(const GridParams&, const Plan&, int64_t begin, int64_t end);
  // Parametric maps: the partial sums -> the parameters' gradient of the warps [begin, end).
  void (*finish_grad_warp)(const SampleParams&, const Plan&, int64_t begin, int64_t end);
  void (*finish_warp_grid_backward)(const GridParams&, const Plan&, int64_t begin, int64_t end);
};

extern const Kernels baseline_kernels;
#if defined(STN_EXTENSIONS)
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
#endif

// The table in use, chosen once: the fastest that the processor has, or STN_CUDA_ISA.
const Kernels& kernels();

// How far pixels are gathered into vectors, and how STN_CUDA_GATHER says so: not at all; for
// float32 images in 2-D, or for all that they can do, where windows (cpu/window.h) do not hold the
// points; the latter, but linear looks at images of float32 or float64 in 2-D at once; or, wherever
// there are few planes or dimensions to share a window, in their place.
enum class Gathers { none, planes, rest, pairs, all };
constexpr const char* kGatherNames[] = {"0", "2d", "rest", "pairs", "1"};

// STN_CUDA_GATHER, or what suits the processor.
Gathers gathers_in_use();

// Whether pairs of float32 pixels are gathered without the instruction: STN_CUDA_INSERT, or what
// suits the processor.
bool inserts_in_use();

}  // namespace cpu
}  // namespace stn_cuda
