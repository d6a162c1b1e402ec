// How a call is cut into blocks and threads: which warp, images and channels a block works on, and
// which output point is a thread's. Host and device, so that a launch can be walked on the CPU.
#pragma once

#include "math/qualifiers.h"
#include "params.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

constexpr int kThreads = 256;  // of a block
constexpr int kLogThreads = 8;
constexpr int64_t kLargestGrid = (int64_t(1) << 31) - 1;  // blocks that one launch can have

// Enough blocks to keep the largest GPUs busy (132 multiprocessors with 8 blocks each): a call with
// fewer blocks of points is also cut along its images and channels.
constexpr int64_t kBusyBlocks = 1024;

// Unsigned division by a number known on the host, for n < 2^31: a multiplication and a shift
// (Granlund and Montgomery 1994).
struct Divisor {
  uint32_t value, magic, shift;

  STN_HD uint32_t divide(uint32_t n) const {
    const uint32_t high = static_cast<uint32_t>((static_cast<uint64_t>(n) * magic) >> 32);
    return (high + n) >> shift;
  }
};

inline Divisor make_divisor(int64_t value) {
  Divisor d{};
  d.value = static_cast<uint32_t>(value);
  while ((int64_t(1) << d.shift) < value) ++d.shift;
  const uint64_t excess = (uint64_t(1) << d.shift) - d.value;
  d.magic = static_cast<uint32_t>((excess << 32) / d.value + 1);
  return d;
}

// A block: one warp, a tile of its output points, a group of the images that look through the warp
// and a group of channels. 2^log_share threads share each point, along the channels.
struct Work {
  int32_t log_share;
  int32_t log_tile[3];
  Divisor tiles[3];
  Divisor tiles_per_warp, image_groups, channel_groups;
  int64_t images, images_per_group;  // images: that look through one warp
  int64_t channels, channels_per_group;
  int64_t warps;
  int64_t blocks;
};

inline int ceil_log2(int64_t n) {
  int log = 0;
  while ((int64_t(1) << log) < n) ++log;
  return log;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One group of all images and channels.
inline Work make_work(const int64_t (&size)[3], int dims, int64_t warps, int64_t images,
                      int64_t channels, int log_share) {
  Work work{};
  work.log_share = log_share;
  // Tiles rather than rows: under a rotation the points of a tile look at fewer cache lines. Rows
  // of 32 points keep the output's accesses whole; axes too short for that leave room to others.
  int room = kLogThreads - log_share;
  const int preferred[3] = {5, 3, kLogThreads};
  for (const bool all : {false, true}) {
    for (int d = 0; d < dims; ++d) {
      const int wanted = ceil_log2(size[d]);
      const int limit = all || wanted < preferred[d] ? wanted : preferred[d];
      while (room > 0 && work.log_tile[d] < limit) ++work.log_tile[d], --room;
    }
  }
  // What is left lies outside the image.
  work.log_tile[0] += room;
  int64_t tiles = 1;
  for (int d = 0; d < 3; ++d) {
    const int64_t count = d < dims ? ceil_div(size[d], int64_t(1) << work.log_tile[d]) : 1;
    work.tiles[d] = make_divisor(count);
    tiles *= count;
  }
  work.tiles_per_warp = make_divisor(tiles);
  work.image_groups = work.channel_groups = make_divisor(1);
  work.images = work.images_per_group = images;
  work.channels = work.channels_per_group = channels;
  work.warps = warps;
  work.blocks = tiles * warps;
  return work;
}

// Cuts images, then channels (in multiples of `step`), until the device is busy.
inline void split(Work& work, int64_t step) {
  const int64_t images = ceil_div(kBusyBlocks, work.blocks);
  work.images_per_group = ceil_div(work.images, images < work.images ? images : work.images);
  const int64_t image_groups = ceil_div(work.images, work.images_per_group);
  work.image_groups = make_divisor(image_groups);
  work.blocks *= image_groups;
  const int64_t channels = ceil_div(kBusyBlocks, work.blocks);
  const int64_t steps = ceil_div(work.channels, step);
  work.channels_per_group = step * ceil_div(steps, channels < steps ? channels : steps);
  const int64_t channel_groups = ceil_div(work.channels, work.channels_per_group);
  work.channel_groups = make_divisor(channel_groups);
  work.blocks *= channel_groups;
}

// What a block works on.
struct Place {
  uint32_t tile;
  int64_t warp;
  int64_t image_begin, image_end;
  int64_t channel_begin, channel_end;
};

STN_HD Place place_of(const Work& work, uint32_t block) {
  Place place;
  uint32_t rest = work.tiles_per_warp.divide(block);
  place.tile = block - rest * work.tiles_per_warp.value;
  const uint32_t next = work.channel_groups.divide(rest);
  place.channel_begin = (rest - next * work.channel_groups.value) * work.channels_per_group;
  const int64_t channel_end = place.channel_begin + work.channels_per_group;
  place.channel_end = channel_end < work.channels ? channel_end : work.channels;
  const uint32_t warp = work.image_groups.divide(next);
  place.warp = warp;
  const int64_t first = (next - warp * work.image_groups.value) * work.images_per_group;
  const int64_t last = first + work.images_per_group;
  place.image_begin = place.warp + first;  // more than one image only if there is one warp
  place.image_end = place.warp + (last < work.images ? last : work.images);
  return place;
}

// A thread's output point, and which of the threads that share it this is.
template <int D>
struct Spot {
  int32_t p[D];
  int32_t share;
  bool inside;
};

template <int D>
STN_HD Spot<D> spot_of(const Work& work, const int64_t (&size)[3], uint32_t tile, int thread) {
  Spot<D> spot;
  spot.share = thread & ((1 << work.log_share) - 1);
  spot.inside = true;
  int32_t rest = thread >> work.log_share;
  for (int d = 0; d < D; ++d) {
    const uint32_t next = work.tiles[d].divide(tile);
    const uint32_t begin = (tile - next * work.tiles[d].value) << work.log_tile[d];
    tile = next;
    spot.p[d] = static_cast<int32_t>(begin) + (rest & ((1 << work.log_tile[d]) - 1));
    rest >>= work.log_tile[d];
    spot.inside = spot.inside && spot.p[d] < size[d];
  }
  return spot;
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
