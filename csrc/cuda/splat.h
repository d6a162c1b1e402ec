// The adjoint of sample: the work of one thread, which adds a point's values to the pixels that
// sample would have read. Sums are atomic: in the image itself, in a float32 scratch image where
// the image has 16 bits, or in fixed point where the result must be repeatable.
#pragma once

#include "cuda/fixed_point.h"
#include "cuda/sample.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// Sums in floating point, in the order in which they come.
template <class A>
struct FloatSums {
  A* data;

  struct Adder {
    A* data;
    STN_HD void add(int64_t i, A weight, A value) const { atomic_add(data + i, weight * value); }
  };
  STN_HD Adder adder() const { return {data}; }
};

template <class A>
struct RepeatableSums {
  FixedSums<A> fixed;

  struct Adder {
    FixedSums<A> fixed;
    FixedScale<A> scale;
    STN_HD void add(int64_t i, A weight, A value) const {
      fixed_add(fixed, scale, i, weight, value);
    }
  };
  STN_HD Adder adder() const { return {fixed, FixedScale<A>(fixed)}; }
};

template <class Element, int K, class Index, class Sums, class Map, class T, int D>
STN_HD void splat_thread(const SampleLaunch<T, D>& launch, const Sums& sums, const Map& map,
                         const Place& place, int thread) {
  using A = Accumulate<Element>;
  const SampleParams& p = launch.p;
  const Spot<D> spot = spot_of<D>(launch.work, p.output_size, place.tile, thread);
  if (!spot.inside) return;
  T x[D];
  look(map, spot.p, x);
  PointTaps<Index, A, K, D> taps;
  make_taps(launch.frame, p.padding, x, p.input.stride, taps);
  const auto adder = sums.adder();
  const int64_t point = offset_of(spot.p, p.output.stride);
  const int64_t step = int64_t(1) << launch.work.log_share;
  for (int64_t n = place.image_begin; n < place.image_end; ++n) {
    const Element* values =
        static_cast<const Element*>(p.output.data) + n * p.output.stride_n + point;
    const int64_t image = n * p.input.stride_n;
    for (int64_t c = place.channel_begin + spot.share; c < place.channel_end; c += step) {
      const A value = widen(values[c * p.output.stride_c]);
      const int64_t plane = image + c * p.input.stride_c;
      for_each_tap(taps, [&](int, Index offset, A weight) {
        if (weight != 0) adder.add(plane + offset, weight, value);
      });
    }
  }
}

template <class T, int D>
SampleLaunch<T, D> make_splat_launch(const SampleParams& p) {
  const int log_share = share_of_channels(p, 1);
  auto launch = make_launch<T, D>(p, log_share);
  split(launch.work, int64_t(1) << log_share);
  return launch;
}

// The image's elements. It is dense (ops.cpp allocates it), so that they are those of the scratch
// images too, at the same offsets.
inline int64_t image_elements(const SampleParams& p) {
  return p.input.batch * p.channels * points(p.input_size, p.dims);
}

// The points that may add to one pixel, as a power of two.
inline int log_points(const SampleParams& p) {
  return ceil_log2(points(p.output_size, p.dims) * (p.input.batch == 1 ? p.batch : 1));
}

// The values as up to three axes (size, stride), the smallest stride first; axes that continue
// each other are one.
struct Axes {
  int64_t size[3], stride[3];
};

inline Axes axes_of_values(const SampleParams& p) {
  Axes axes{{points(p.output_size, p.dims), p.channels, p.batch},
            {p.output.stride[0], p.output.stride_c, p.output.stride_n}};
  const auto exchange = [&](int a, int b) {
    if (axes.stride[a] <= axes.stride[b]) return;
    const int64_t size = axes.size[a], stride = axes.stride[a];
    axes.size[a] = axes.size[b], axes.stride[a] = axes.stride[b];
    axes.size[b] = size, axes.stride[b] = stride;
  };
  exchange(0, 1), exchange(1, 2), exchange(0, 1);
  for (int to = 0, from = 1; from < 3; ++from) {
    const bool whole = axes.size[from] == 1 || axes.size[to] == 1 ||
                       axes.stride[from] == axes.size[to] * axes.stride[to];
    if (whole && axes.size[to] == 1) axes.stride[to] = axes.stride[from];
    if (whole) axes.size[to] *= axes.size[from], axes.size[from] = 1;
    if (!whole) to = from;
  }
  return axes;
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
