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

// What is computed together.
struct Share {
  int64_t images, channels;
  bool woven;  // cpu/woven.h

  bool operator==(const Share&) const = default;
};

// f(part, first, woven) for images that have the same share(n), and their channels: as many of both
// as it says. first: of those that look by the same warp.
template <class ShareOf, class F>
void for_shares(const SampleParams& p, ShareOf&& share, F&& f) {
  const bool one_warp = p.warp.batch != p.batch;
  for (int64_t n = 0, last; n < p.batch; n = last) {
    const Share of = share(n);
    const int64_t most = std::min(p.batch, n + of.images);
    for (last = n + 1; last < most && (one_warp || share(last) == of);) ++last;
    for_channels(some_images(p, n, last - n), of.channels,
                 [&](const SampleParams& part, bool first) {
                   f(part, first && (n == 0 || !one_warp), of.woven);
                 });
  }
}

}  // namespace cpu
}  // namespace stn_cuda
