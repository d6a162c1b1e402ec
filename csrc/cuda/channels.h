// How a point's channels are moved, several in one access, and shared by neighbouring threads.
#pragma once

#include "cuda/element.h"
#include "cuda/point.h"
#include "math/chain.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// N consecutive channels, moved as one.
template <class Element, int N>
struct alignas(sizeof(Element) * N) Pack {
  Element of[N];
};

// What a thread holds of N elements: themselves, or what they are as float32.
template <class Element>
using HeldAs = std::conditional_t<std::is_same<Element, AnyFloat>::value, float, Element>;
template <class Element, int N>
using Held = Pack<HeldAs<Element>, N>;

template <class Element, class As, int N>
STN_HD void read(const Element* from, Pack<As, N>& held) {
  if constexpr (std::is_same<Element, As>::value) {
    held = *reinterpret_cast<const Pack<Element, N>*>(from);
  } else {
    static_assert(N == 1, "the types of packs are known");
    held.of[0] = widen(*from);
  }
}
template <class Element, class As, int N>
STN_HD void write(Element* to, const Pack<As, N>& held) {
  if constexpr (std::is_same<Element, As>::value) {
    *reinterpret_cast<Pack<Element, N>*>(to) = held;
  } else {
    static_assert(N == 1, "the types of packs are known");
    *to = Narrow<Element>::from(held.of[0]);
  }
}

// The most of them that one access of 16 bytes moves.
template <class Element>
constexpr int kPack = 16 / sizeof(Element);

// Whether every access to the image may move N consecutive channels: all aligned.
template <class Element, int N>
bool packable(const SampleParams& p, const Image& image) {
  constexpr int64_t size = sizeof(Element), bytes = N * size;
  if (image.stride_c != 1 || p.channels % N != 0) return false;
  int64_t bits = reinterpret_cast<intptr_t>(image.data) | image.stride_n * size;
  for (int d = 0; d < p.dims; ++d) bits |= image.stride[d] * size;
  return bits % bytes == 0;
}
template <class Element, int N>
bool packed(const SampleParams& p) {
  return packable<Element, N>(p, p.input) && packable<Element, N>(p, p.output);
}

inline bool channels_inside(const SampleParams& p) {
  return p.input.stride_c == 1 && p.output.stride_c == 1 && p.channels > 1;
}

// Threads (2^n) that share a point: with consecutive channels as many as those keep busy, in steps
// of `pack` channels, so that the accesses of a group are consecutive too.
inline int share_of_channels(const SampleParams& p, int pack) {
  const int log = channels_inside(p) ? ceil_log2(p.channels / pack) : 0;
  return log < 5 ? log : 5;
}

// As few channels as an RGBA pixel has are read by one thread: several would each compute the
// same coordinates and weights.
inline int share_of_reads(const SampleParams& p, int pack) {
  return pack == 1 && p.channels <= 4 ? 0 : share_of_channels(p, pack);
}

// What the kernels of sample, splat and grad_warp are told.
template <class T, int D>
struct SampleLaunch {
  SampleParams p;
  Frame<T, D> frame;
  Work work;
  Reading<T, D> reading;  // of a free map's values
  Chain chain;            // of a chain
  Meeting<T, D> meeting;
};

template <class T, int D>
SampleLaunch<T, D> make_launch_over(const SampleParams& p, const Work& work) {
  const auto frame = pixel_frame<T, D>(p);
  const Chain chain = p.warp.chain ? *p.warp.chain : Chain{};
  return {p,     frame,
          work,  Reading<T, D>(p.map, frame, p.output_size, p.align_corners),
          chain, Meeting<T, D>(chain, frame, p.output_size, p.align_corners)};
}

inline int64_t images_per_warp(const SampleParams& p) { return p.warp.batch == 1 ? p.batch : 1; }

// A launch over the output in which all images and channels of a point fall to one block.
template <class T, int D>
SampleLaunch<T, D> make_launch(const SampleParams& p, int log_share) {
  return make_launch_over<T, D>(
      p, make_work(p.output_size, D, p.warp.batch, images_per_warp(p), p.channels, log_share));
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
