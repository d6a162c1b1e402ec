// A call in parts: some channels at a time, or image by image.
#pragma once

#include <algorithm>
#include <vector>

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

// A part, which may be the first of those that look by the same warp.
struct Part {
  SampleParams params;
  bool first, woven;
};

// Images that have the same share(n), and their channels: as many of both as it says. What one
// thread has to do in order, if several are not to meet: the channels of the same images, or not.
template <class ShareOf>
std::vector<std::vector<Part>> parts_of(const SampleParams& p, bool in_order, ShareOf&& share) {
  const bool one_warp = p.warp.batch != p.batch;
  std::vector<std::vector<Part>> parts;
  for (int64_t n = 0, last; n < p.batch; n = last) {
    const Share of = share(n);
    const int64_t most = std::min(p.batch, n + of.images);
    for (last = n + 1; last < most && (one_warp || share(last) == of);) ++last;
    for_channels(some_images(p, n, last - n), of.channels,
                 [&](const SampleParams& part, bool first) {
                   const bool next = in_order && (one_warp ? n > 0 || !first : !first);
                   if (!next) parts.emplace_back();
                   parts.back().push_back({part, first && (n == 0 || !one_warp), of.woven});
                 });
  }
  return parts;
}

}  // namespace cpu
}  // namespace stn_cuda
