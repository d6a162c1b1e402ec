// A call in parts: some channels at a time, or image by image.
#pragma once

#include <algorithm>

#include "params.h"

namespace stn_cuda {
namespace cpu {

inline void skip_channels(Image& image, int64_t channels) {
  if (!image.data) return;
  const int64_t bytes = channels * image.stride_c * element_size(image.type);
  image.data = static_cast<char*>(image.data) + bytes;
}

// f(part, first) for the channels that are computed together, one after the other.
template <class F>
void for_channels(const SampleParams& p, int64_t together, F&& f) {
  for (int64_t c = 0; c < p.channels; c += together) {
    SampleParams part = p;
    part.channels = std::min(together, p.channels - c);
    skip_channels(part.input, c);
    skip_channels(part.output, c);
    skip_channels(part.derivative, c);
    skip_channels(part.fill, c);
    f(part, c == 0);
  }
}

template <class Tensor>
void take_one(Tensor& of, int64_t n) {
  if (!of.data) return;
  if (of.batch > 1) of.data = static_cast<char*>(of.data) + n * of.stride_n * element_size(of.type);
  of.batch = 1;
}

inline SampleParams image_alone(const SampleParams& p, int64_t n) {
  SampleParams one = p;
  one.batch = 1;
  for (Image* of : {&one.input, &one.output, &one.derivative, &one.fill, &one.mask}) {
    take_one(*of, n);
  }
  for (Warp* of : {&one.warp, &one.grad_warp, &one.tangent, &one.slopes}) take_one(*of, n);
  return one;
}

// The same, where channels come one after the other image by image: what the points look at is read
// for each of them, and still in a cache.
template <class F>
void for_images_and_channels(const SampleParams& p, int64_t together, F&& f) {
  if (together == p.channels || p.warp.batch != p.batch) return for_channels(p, together, f);
  for (int64_t n = 0; n < p.batch; ++n) for_channels(image_alone(p, n), together, f);
}

}  // namespace cpu
}  // namespace stn_cuda
