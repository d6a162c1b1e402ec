// The work of one thread of the forward kernel: a point's value in some images and channels.
#pragma once

#include "cuda/element.h"
#include "cuda/point.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

template <class T, int D>
struct SampleLaunch {
  SampleParams p;
  Frame<T, D> frame;
  Work work;
};

// N consecutive channels, moved as one.
template <class Element, int N>
struct alignas(sizeof(Element) * N) Pack {
  Element of[N];
};

// Steps of a thread whose loads are in flight together.
template <int K, int D, int N>
constexpr int unrolled_steps() {
  return N > 1 || kTaps<K, D> > 8 ? 1 : (kTaps<K, D> == 8 ? 2 : 4);
}

// N: channels per step, 1 or as many as 16 bytes hold (consecutive and aligned).
template <class Element, int K, int N, class Index, class Map, class T, int D>
STN_HD void sample_thread(const SampleLaunch<T, D>& launch, const Map& map, const Place& place,
                          int thread) {
  using A = Accumulate<Element>;
  using Values = Pack<Element, N>;
  constexpr int kSteps = unrolled_steps<K, D, N>();
  const SampleParams& p = launch.p;
  const Spot<D> spot = spot_of<D>(launch.work, p.output_size, place.tile, thread);
  if (!spot.inside) return;
  T x[D];
  look(map, spot.p, x);
  PointTaps<Index, A, K, D> taps;
  make_taps(launch.frame, p.padding, x, p.input.stride, taps);
  const int64_t point = offset_of(spot.p, p.output.stride);
  const int64_t step = int64_t(N) << launch.work.log_share;
  for (int64_t n = place.image_begin; n < place.image_end; ++n) {
    const Element* input = static_cast<const Element*>(p.input.data) + n * p.input.stride_n;
    Element* output = static_cast<Element*>(p.output.data) + n * p.output.stride_n + point;
    for (int64_t first = place.channel_begin + spot.share * N; first < place.channel_end;
         first += step * kSteps) {
      // First all loads, without branches between them, so that they overlap.
      Values pixel[kSteps][kTaps<K, D>] = {};
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        const int64_t c = first + s * step;
        const bool active = c < place.channel_end;
        const Element* plane = input + c * p.input.stride_c;
        for_each_tap(taps, [&](int k, Index offset, A weight) {
          if (active && weight != 0) {
            pixel[s][k] = *reinterpret_cast<const Values*>(plane + offset);
          }
        });
      }
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        const int64_t c = first + s * step;
        A sum[N] = {};
        for_each_tap(taps, [&](int k, Index, A weight) {
#pragma unroll
          for (int j = 0; j < N; ++j) sum[j] += weight * widen(pixel[s][k].of[j]);
        });
        Values value;
#pragma unroll
        for (int j = 0; j < N; ++j) value.of[j] = Narrow<Element>::from(sum[j]);
        if (c < place.channel_end) {
          *reinterpret_cast<Values*>(output + c * p.output.stride_c) = value;
        }
      }
    }
  }
}

// Whether every access to the image may move 16 bytes: consecutive channels, all aligned.
template <class Element>
bool packable(const SampleParams& p, const Image& image) {
  constexpr int64_t bytes = 16, size = sizeof(Element);
  if (image.stride_c != 1 || p.channels % (bytes / size) != 0) return false;
  int64_t bits = reinterpret_cast<intptr_t>(image.data) | image.stride_n * size;
  for (int d = 0; d < p.dims; ++d) bits |= image.stride[d] * size;
  return bits % bytes == 0;
}
template <class Element>
bool packed(const SampleParams& p) {
  return packable<Element>(p, p.input) && packable<Element>(p, p.output);
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

inline int64_t images_per_warp(const SampleParams& p) { return p.warp.batch == 1 ? p.batch : 1; }

// A launch in which all images and channels of a point fall to one block.
template <class T, int D>
SampleLaunch<T, D> make_launch(const SampleParams& p, int log_share) {
  return {p, pixel_frame<T, D>(p.input_size, p.align_corners),
          make_work(p.output_size, D, p.warp.batch, images_per_warp(p), p.channels, log_share)};
}

// The launch of sample, in steps of `pack` channels, `steps` of them at a time.
template <class T, int D>
SampleLaunch<T, D> make_sample_launch(const SampleParams& p, int pack, int steps) {
  const int log_share = share_of_reads(p, pack);
  auto launch = make_launch<T, D>(p, log_share);
  split(launch.work, (int64_t(pack) << log_share) * steps);
  return launch;
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
