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
void take_images(Tensor& of, int64_t first, int64_t count) {
  if (!of.data || of.batch == 1) return;
  of.data = static_cast<char*>(of.data) + first * of.stride_n * element_size(of.type);
  of.batch = count;
}

inline SampleParams some_images(const SampleParams& p, int64_t first, int64_t count) {
  SampleParams some = p;
  some.batch = count;
  for (Image* of : {&some.input, &some.output, &some.derivative, &some.fill, &some.mask}) {
    take_images(*of, first, count);
  }
  for (Warp* of : {&some.warp, &some.grad_warp, &some.tangent, &some.slopes}) {
    take_images(*of, first, count);
  }
  return some;
}

// The same, of each image as many as together(n) says. Where these are not all channels they come
// one after the other image by image: what the points look at is read for each of them, and still
// in a cache.
template <class Together, class F>
void for_images_and_channels(const SampleParams& p, Together&& together, F&& f) {
  if (p.warp.batch != p.batch) return for_channels(p, together(0), f);
  for (int64_t n = 0, last; n < p.batch; n = last) {
    const int64_t channels = together(n);
    last = n + 1;
    while (channels == p.channels && last < p.batch && together(last) == channels) ++last;
    for_channels(some_images(p, n, last - n), channels, f);
  }
}

}  // namespace cpu
}  // namespace stn_cuda
