// When images are woven (cpu/woven.h), and where to: measured, benchmarks/README.md. A few planes
// of a few images at a time, so that what is woven takes little room and stays in a cache.
#pragma once

#include <ATen/Parallel.h>

#include <memory>

#include "cpu/apart.h"
#include "cpu/ways.h"

namespace stn_cuda {
namespace cpu {

// Bytes woven at a time, and at most of an image; more would not be little beside large results.
constexpr int64_t kWoven = int64_t(1) << 20, kMostWoven = int64_t(1) << 22;

// The least of an image that scattered points see.
constexpr int64_t kLeastWoven = int64_t(1) << 16;

inline int64_t plane_bytes(const SampleParams& p) {
  return points(p.input_size, p.dims) * std::max<int64_t>(4, element_size(p.input.type));
}

// Whether a linear look at the planes of an image may find them woven, and there are enough points
// that gain.
inline bool may_weave(const SampleParams& p, int64_t together) {
  if (p.interpolation != Interpolation::bilinear || has_channels_inside(p)) return false;
  if (p.channels < 2 || p.input_size[0] < 2 || p.input.stride[0] != 1) return false;
  if (!have_rows_in_one(p.input_size, p.input.stride, p.dims)) return false;
  if (plane_bytes(p) * together > kMostWoven) return false;
  const int64_t looks = points(p.output_size, p.dims) * (p.batch / p.input.batch);
  return 4 * looks >= points(p.input_size, p.dims);
}

// Whether the points of a warp gain by looking at so many planes woven together: those that look at
// a volume, or are scattered over an image.
inline bool use_weaving(const SampleParams& p, int64_t together, int64_t warp) {
  if (p.input.type != ElementType::f32 || kernels().vector_bytes < 32 || together < 2) return false;
  const bool runs = p.grad_warp.data || p.output.stride[0] == 1;  // else they are taps
  if (!runs || !may_weave(p, std::min(together, p.channels))) return false;
  if (p.dims == 3) return true;
  return is_free(p.map) && plane_bytes(p) * p.channels > kLeastWoven &&
         kernels().is_scattered(p, warp);
}

// Whether splat gains by adding to four planes woven together: but for affine maps of images, whose
// pixels gather what they are seen by (cpu/turned.h), and splines, which take long to follow.
inline bool use_woven_sums(const SampleParams& p) {
  const bool gathered = p.dims == 2 && p.map == MapKind::affine;
  if (gathered || control_points(p) > 0 || p.direction != Direction::none) return false;
  return may_weave(p, kPatchChannels);
}

// The channels that are woven at a time: blocks of those that are together. As few as make parts
// for so many threads.
inline int64_t channels_woven(const SampleParams& p, int64_t together, int64_t threads = 1) {
  const int64_t all = ceil_div(p.channels, together);
  const int64_t most = std::max<int64_t>(1, kWoven / (plane_bytes(p) * together));
  const int64_t blocks = p.batch < threads ? ceil_div(all, threads) : all;
  return std::min(p.channels, std::min(most, blocks) * together);
}

// The images that are woven at a time, of which each of so many threads has its share; all, if the
// points look at one.
inline int64_t images_woven(const SampleParams& p, int64_t channels, int64_t threads) {
  if (p.input.batch == 1) return p.batch;
  const int64_t most = std::max<int64_t>(1, kWoven / (plane_bytes(p) * channels));
  return std::min(most, ceil_div(p.batch, threads));
}

// What is woven, part after part.
class Loom {
 public:
  // All images of p, of so many planes together.
  const float* weave(const SampleParams& p, int64_t together) {
    constexpr int64_t kGrain = 4096, kBehind = 16;
    const int64_t pixels = points(p.input_size, p.dims) * p.input.batch;
    if (const int64_t room = pixels * p.channels + kBehind; room > room_) {
      woven_.reset(new float[room]);
      room_ = room;
    }
    at::parallel_for(0, pixels, kGrain, [&](int64_t begin, int64_t end) {
      kernels().weave(p, together, begin, end, woven_.get());
    });
    return woven_.get();
  }

 private:
  std::unique_ptr<float[]> woven_;
  int64_t room_ = 0;
};

}  // namespace cpu
}  // namespace stn_cuda
