// The gradient of a point's coordinates: the work of one thread of the backward kernel. First of
// each tap's pixel value, summed over images and channels,
//   dot[tap] = sum of grad[n, c, point] * input[n, c, tap],
// then of the coordinates, by the slopes of the weights.
#pragma once

#include "cuda/sample.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// A tap whose coefficient is 0 does not count, whatever its pixel holds.
template <class Index, class A, int K, int D>
STN_HD A slope_sum(const PointTaps<Index, A, K, D>& taps, const A (&dot)[kTaps<K, D>], int axis) {
  A sum = 0;
#pragma unroll
  for (int k = 0; k < kTaps<K, D>; ++k) {
    const int tap[3] = {k % K, k / K % K, k / (K * K)};
    A coefficient = 1;
#pragma unroll
    for (int d = 0; d < D; ++d) {
      coefficient *= d == axis ? taps.slope[d][tap[d]] : taps.weight[d][tap[d]];
    }
    if (coefficient != 0) sum += coefficient * dot[k];
  }
  return sum;
}

// This thread's part of the gradient of its point's pixel coordinates: over the images and channels
// of the block that fall to it. 0 outside the output.
template <class Element, int K, class Index, class Map, class T, int D>
STN_HD void coordinate_gradient(const SampleLaunch<T, D>& launch, const Map& map,
                                const Place& place, const Spot<D>& spot,
                                Accumulate<Element> (&grad)[D]) {
  using A = Accumulate<Element>;
  const SampleParams& p = launch.p;
  for (int d = 0; d < D; ++d) grad[d] = A(0);
  if (!spot.inside) return;
  T x[D];
  look(map, spot.p, x);
  PointTaps<Index, A, K, D> taps;
  make_taps(launch.frame, p.padding, x, p.input.stride, taps);
  A dot[kTaps<K, D>] = {};
  const int64_t point = offset_of(spot.p, p.output.stride);
  const int64_t step = int64_t(1) << launch.work.log_share;
  for (int64_t n = place.image_begin; n < place.image_end; ++n) {
    const Element* input = static_cast<const Element*>(p.input.data) + n * p.input.stride_n;
    const Element* output =
        static_cast<const Element*>(p.output.data) + n * p.output.stride_n + point;
#pragma unroll(kTaps<K, D> > 4 ? 1 : 2)
    for (int64_t c = place.channel_begin + spot.share; c < place.channel_end; c += step) {
      const A value = widen(output[c * p.output.stride_c]);
      const Element* plane = input + c * p.input.stride_c;
#pragma unroll
      for (int k = 0; k < kTaps<K, D>; ++k) {
        Index offset = taps.offset[0][k % K] + taps.offset[1][k / K % K];
        if (D == 3) offset += taps.offset[D - 1][k / (K * K)];
        dot[k] += value * widen(plane[offset]);
      }
    }
  }
#pragma unroll
  for (int d = 0; d < D; ++d) grad[d] = slope_sum(taps, dot, d);
}

// A grid's gradient at a point, written.
template <class T, int D>
STN_HD void write_gradient(const AnyGrid<T, D>& map, const Warp& out, const Spot<D>& spot,
                           T (&g)[D]) {
  map.with_grid([&](const auto& grid) { grid.gradient(g); });
  const int64_t at = map.n * out.stride_n + offset_of(spot.p, out.stride);
  for (int d = 0; d < D; ++d) store_as(out.data, out.type, at + d * out.stride_k, g[d]);
}

// Threads that share a point: along consecutive channels; else, where there are few points, along
// as many channels as keep the device busy.
inline int share_of_gradient(const SampleParams& p) {
  const int channels = share_of_reads(p, 1);
  if (channels > 0) return channels;
  if (p.map != MapKind::grid) return 0;  // its blocks share the channels: split
  const int64_t threads = points(p.output_size, p.dims) * p.warp.batch;
  int log = 0;
  while (log < 5 && (int64_t(2) << log) <= p.channels &&
         (threads << log) < kBusyBlocks * kThreads) {
    ++log;
  }
  return log;
}

template <class T, int D>
SampleLaunch<T, D> make_gradient_launch(const SampleParams& p) {
  const int log_share = share_of_gradient(p);
  auto launch = make_launch<T, D>(p, log_share);
  // Only sums can come from several blocks.
  if (p.map != MapKind::grid) split(launch.work, int64_t(1) << log_share);
  return launch;
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
