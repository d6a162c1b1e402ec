// The adjoint of a linear sample through an affine map, turned round: each pixel gathers the values
// of the points that see it, so that it has one writer. The device decides for each warp whether
// its map allows that (few points see a pixel, and are found in spite of rounding).
//
// What looks outside the image (its boundary rule brings it back to pixels far away) is not
// gathered but added by splat's other kernel (splat.h), except under zeros, where what is outside
// does not count.
#pragma once

#include "cuda/block_map.h"
#include "cuda/channels.h"
#include "cuda/sums.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// Points that see a pixel are sought this much further away, in pixels: rounding must not hide one.
// Coordinates up to kLargestLook, in float32, with a few roundings each, are off by less than that.
constexpr double kTurnedSlack = 1.0 / 64;
constexpr double kLargestLook = 1 << 14;

// Points in the box around those that see a pixel, and how many of them per point that does.
constexpr double kMostSought = 4096;
constexpr double kMostSoughtPerSeer = 16;

// How far from a pixel the looks are that see it, of which it is sought that much further away.
constexpr double kReach = 1 + kTurnedSlack;

template <class T, int D>
struct TurnedMap {
  AffineMap<T, D> map;
  T back[D][D];   // d point / d pixel
  T per_look[D];  // d point / d look, along rows of points
  bool usable;

  STN_HD TurnedMap(const AffineMap<T, D>& m, const int64_t (&output_size)[3]) : map(m) {
    double inverse[D][D];
    const double determinant = invert(m.matrix, inverse);
    double sought = 1, seers = 1 / std::abs(determinant);
    bool near = true;  // to the image, all looks
    for (int d = 0; d < D; ++d) {
      double box = 0, across = std::abs(static_cast<double>(m.offset[d]));
      for (int r = 0; r < D; ++r) {
        back[d][r] = static_cast<T>(inverse[d][r]);
        box += 2 * std::abs(inverse[d][r]) * kReach;
        across +=
            std::abs(static_cast<double>(m.matrix[d][r])) * static_cast<double>(output_size[r]);
      }
      per_look[d] = 1 / m.matrix[d][0];
      sought *= box + 1;
      seers *= 2;
      near = near && across <= kLargestLook;
    }
    // None of which holds for NaN.
    usable = near && sought <= kMostSought && sought <= kMostSoughtPerSeer * (seers + 1);
  }

  // The inverse by cofactors; returns the determinant.
  STN_HD static double invert(const T (&m)[D][D], double (&inverse)[D][D]) {
    const auto cofactor = [&](int r, int c) {
      if constexpr (D == 2) {
        return (r == c ? 1.0 : -1.0) * m[1 - r][1 - c];
      } else {
        const int r1 = (r + 1) % D, r2 = (r + 2) % D, c1 = (c + 1) % D, c2 = (c + 2) % D;
        return static_cast<double>(m[r1][c1]) * m[r2][c2] -
               static_cast<double>(m[r1][c2]) * m[r2][c1];
      }
    };
    double determinant = 0;
    for (int c = 0; c < D; ++c) determinant += m[0][c] * cofactor(0, c);
    for (int r = 0; r < D; ++r) {
      for (int c = 0; c < D; ++c) inverse[c][r] = cofactor(r, c) / determinant;
    }
    return determinant;
  }
};

// Whether the look counts here: under zeros each one does, by its weights.
template <class T, int D>
STN_HD bool is_gathered(const Frame<T, D>& frame, const T (&x)[D]) {
  bool all = true;
  for (int d = 0; d < D; ++d) {
    all = all && (frame.axis[d].padding == Padding::zeros || is_inside(frame.axis[d], x[d]));
  }
  return all;
}

// What a look at x adds to the pixel at q.
template <class T, int D>
STN_HD T weight_at(const int32_t (&q)[D], const T (&x)[D]) {
  T weight = 1;
  for (int d = 0; d < D; ++d) {
    weight *= kernel<2>(x[d] - static_cast<T>(q[d]));
  }
  return weight;
}

// f(point, weight) for each output point that is gathered and sees the pixel q of the image.
template <class T, int D, class F>
STN_HD void for_each_seer(const TurnedMap<T, D>& turned, const SampleLaunch<T, D>& launch,
                          const int32_t (&q)[D], F&& f) {
  const AffineMap<T, D>& map = turned.map;
  const int64_t (&size)[3] = launch.p.output_size;
  const T reach = static_cast<T>(kReach);
  int32_t low[3] = {}, high[3] = {};
  for (int d = 0; d < D; ++d) {
    T at = map.centre[d], far = 0;
    for (int r = 0; r < D; ++r) {
      at += turned.back[d][r] * (static_cast<T>(q[r]) - map.offset[r]);
      far += std::abs(turned.back[d][r]) * reach;
    }
    const T last = static_cast<T>(size[d] - 1);
    // One beyond the last where even that is too low: what lies farther may not be an int32.
    low[d] = static_cast<int32_t>(std::ceil(smaller(larger(T(at - far), T(0)), T(last + 1))));
    high[d] = static_cast<int32_t>(std::floor(larger(smaller(T(at + far), last), T(-1))));
  }
  int32_t p[D];
  for (int32_t z = low[2]; z <= high[2]; ++z) {
    if (D == 3) p[D - 1] = z;
    for (p[1] = low[1]; p[1] <= high[1]; ++p[1]) {
      // Along a row: between the points that look a reach before and behind the pixel.
      T first = static_cast<T>(low[0]), last = static_cast<T>(high[0]);
      for (int r = 0; r < D; ++r) {
        T distance = static_cast<T>(q[r]) - map.offset[r];
        for (int c = 1; c < D; ++c) distance -= map.matrix[r][c] * (p[c] - map.centre[c]);
        // A row that does not move along the axis: infinities, of which those of a row within reach
        // bound nothing.
        const T a = map.centre[0] + (distance - reach) * turned.per_look[r];
        const T b = map.centre[0] + (distance + reach) * turned.per_look[r];
        first = larger(first, smaller(a, b));
        last = smaller(last, larger(a, b));
      }
      if (!(first <= last)) continue;
      const int32_t end = static_cast<int32_t>(std::floor(last));
      for (p[0] = static_cast<int32_t>(std::ceil(first)); p[0] <= end; ++p[0]) {
        T x[D];
        look(map, p, x);
        if (!is_gathered(launch.frame, x)) continue;
        const T weight = weight_at(q, x);
        if (weight != 0) f(p, weight);
      }
    }
  }
}

template <class T, int D, class Sums>
struct GatherLaunch {
  SampleLaunch<T, D> sample;  // its work: the image's pixels
  Sums sums;                  // what splat's other kernel has added
  const TurnedMap<T, D>* turned;
  int64_t shared_by;  // warps whose values one image gathers
};

// N: channels per step, as in sample_thread.
template <class Element, int N, class Sums, class T, int D>
STN_HD void gather_thread(const GatherLaunch<T, D, Sums>& launch, const Place& place, int thread) {
  using A = Accumulate<Element>;
  using Values = Held<Element, N>;
  constexpr int kSteps = N > 1 ? 1 : 4;
  const SampleParams& p = launch.sample.p;
  const Work& work = launch.sample.work;
  const Spot<D> spot = spot_of<D>(work, p.input_size, place.tile, thread);
  if (!spot.inside) return;
  const auto reader = launch.sums.reader();
  const int64_t pixel = offset_of(spot.p, p.input.stride);
  const int64_t step = int64_t(N) << work.log_share;
  for (int64_t image = place.image_begin; image < place.image_end; ++image) {
    for (int64_t begin = place.channel_begin + spot.share * N; begin < place.channel_end;
         begin += step * kSteps) {
      A sum[kSteps][N] = {};
      bool pending = !only_zeros(p);
      for (int64_t n = image; n < image + launch.shared_by; ++n) {
        const TurnedMap<T, D>& turned = launch.turned[p.warp.batch == 1 ? 0 : n];
        pending = pending || !turned.usable;
        if (!turned.usable) continue;
        for_each_seer(turned, launch.sample, spot.p, [&](const auto& at, T weight) {
          Values value[kSteps] = {};
          with_elements<Element>(p.output, [&](const auto* elements) {
            const auto* from = elements + n * p.output.stride_n + offset_of(at, p.output.stride);
            STN_UNROLL
            for (int s = 0; s < kSteps; ++s) {
              const int64_t c = begin + s * step;
              if (c < place.channel_end) read(from + c * p.output.stride_c, value[s]);
            }
          });
          STN_UNROLL
          for (int s = 0; s < kSteps; ++s) {
            STN_UNROLL
            for (int j = 0; j < N; ++j) sum[s][j] += static_cast<A>(weight) * widen(value[s].of[j]);
          }
        });
      }
      STN_UNROLL
      for (int s = 0; s < kSteps; ++s) {
        const int64_t c = begin + s * step;
        if (c >= place.channel_end) continue;
        const int64_t at = image * p.input.stride_n + c * p.input.stride_c + pixel;
        Values result;
        STN_UNROLL
        for (int j = 0; j < N; ++j) {
          if (pending) sum[s][j] += reader.value(at + j);
          result.of[j] = Narrow<HeldAs<Element>>::from(sum[s][j]);
        }
        with_elements<Element>(p.input, [&](auto* elements) { write(elements + at, result); });
      }
    }
  }
}

template <class Element, int N, class T, int D, class Sums>
struct GatherKernel {
  using Launch = GatherLaunch<T, D, Sums>;
  struct Shared {};
  static constexpr bool kWide =
      sizeof(T) == 8 || sizeof(Element) == 8 || std::is_same<Element, AnyFloat>::value;
  static constexpr int kBlocks = kWide ? 2 : (D == 3 ? 3 : 4);

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared&) {
    const Place place = place_of(launch.sample.work, block.index());
    block.each([&](int thread) { gather_thread<Element, N>(launch, place, thread); });
  }
};

// Makes the turned maps, a thread for each.
template <class T, int D>
struct TurnLaunch {
  SampleLaunch<T, D> sample;
  TurnedMap<T, D>* turned;
};

template <class T, int D>
struct TurnKernel {
  using Launch = TurnLaunch<T, D>;
  struct Shared {};
  static constexpr int kBlocks = 1;

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared&) {
    const SampleParams& p = launch.sample.p;
    block.each([&](int thread) {
      const int64_t n = int64_t(block.index()) * kThreads + thread;
      if (n >= p.warp.batch) return;
      const AffineMap<T, D> map(p.warp, n, launch.sample.frame, p.output_size, p.align_corners);
      new (launch.turned + n) TurnedMap<T, D>(map, p.output_size);
    });
  }
};

// Whether maps are turned round: affine ones, for linear interpolation. (A bicubic look mixes
// inside and outside, and has four times as many candidates.)
inline bool is_turned(const SampleParams& p) {
  return p.map == MapKind::affine && p.interpolation == Interpolation::bilinear &&
         p.direction == Direction::none;
}

// The launch of the pixels, in steps of `pack` channels.
template <class T, int D, class Sums>
GatherLaunch<T, D, Sums> make_gather_launch(const SampleParams& p, const Sums& sums,
                                            const TurnedMap<T, D>* turned, int pack) {
  const bool shared = p.input.batch == 1;
  const bool one_warp = p.warp.batch == 1 && !shared;
  const int log_share = share_of_reads(p, pack);
  const Work work = make_work(p.input_size, D, one_warp ? 1 : p.input.batch, one_warp ? p.batch : 1,
                              p.channels, log_share);
  GatherLaunch<T, D, Sums> launch{make_launch_over<T, D>(p, work), sums, turned,
                                  shared ? p.batch : 1};
  split(launch.sample.work, int64_t(pack) << log_share);
  return launch;
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
