// What comes next of a large image, announced to the caches while the work is elsewhere. The rows
// that a tile reads are too short, and lie too far apart, for a processor to follow them by itself,
// and some do not even follow what lies in one piece.
#pragma once

#include "cpu/basis.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

constexpr int kCacheLine = 64;

// Whether a plane is too large to stay in a cache, or an image (all of the batch) from one call to
// the next. Where it does stay, announcing it costs a tenth of the time.
constexpr int64_t kCache = int64_t(1) << 23;
STN_HD bool is_plane_far(const SampleParams& p) {
  return points(p.input_size, p.dims) * element_size(p.input.type) > kCache;
}
STN_HD bool is_far(const SampleParams& p) {
  const int64_t pixels = points(p.input_size, p.dims) * p.input.batch;
  return pixels * p.channels * element_size(p.input.type) > kCache;
}

// The pixels that a tile sees: those of a box, unless that holds many others.
template <int D>
struct Box {
  bool known = false;
  int32_t low[D], high[D];

  template <class Looks>
  STN_HD void find(const Looks& looks, int slots) {
    using T = std::decay_t<decltype(looks.least[0])>;
    int64_t rows = 1;
    known = false;
    for (int d = 0; d < D; ++d) {
      const T last = looks.frame.axis[d].last;
      T least = looks.least[d], greatest = looks.greatest[d];
      if (!looks.ranged) find_range(looks.x[d], slots, least, greatest);
      if (!(least < last + 1 && greatest > -1)) return;  // nor for NaN
      low[d] = static_cast<int32_t>(std::max(T(0), least));
      high[d] = static_cast<int32_t>(std::min(last, greatest + 1));
      if (d > 0) rows *= high[d] - low[d] + 1;
    }
    const int columns = kCacheLine / sizeof(float) + high[0] - low[0];
    known = rows * columns <= 6 * slots;
  }

  // In a plane of the image, or of what is laid out like it.
  template <class Element>
  STN_HD void announce(const int64_t (&stride)[3], const Element* plane) const {
    if (!known) return;
    constexpr int kStep = kCacheLine / sizeof(Element);
    const int32_t front = D == 3 ? low[D - 1] : 0, back = D == 3 ? high[D - 1] : 0;
    for (int32_t z = front; z <= back; ++z) {
      for (int32_t y = low[1]; y <= high[1]; ++y) {
        const Element* row = plane + y * stride[1] + (D == 3 ? z * stride[2] : 0);
        for (int32_t x = low[0]; x <= high[0]; x += kStep) __builtin_prefetch(row + x);
        __builtin_prefetch(row + high[0]);
      }
    }
  }

 private:
  template <class T>
  STN_HD static void find_range(const T* x, int slots, T& least, T& greatest) {
    using V = Native<T>;
    V lows = load<V>(x), highs = lows;
    for (int i = kLanes<T>; i + kLanes<T> <= slots; i += kLanes<T>) {
      lows = smaller(lows, load<V>(x + i));
      highs = larger(highs, load<V>(x + i));
    }
    least = least_lane(lows);
    greatest = -least_lane(V(-highs));
  }
};

// Announces the bytes at `from`.
STN_HD void announce_run(const void* from, int64_t bytes) {
  const char* at = static_cast<const char*>(from);
  for (int64_t b = 0; b < bytes; b += kCacheLine) __builtin_prefetch(at + b);
}

// Consecutive channels: how many points ahead pixels are announced.
constexpr int kPointsAhead = 16;

// The last pixel that the point kPointsAhead after point i of a tile sees.
template <class Element, class A, int K, int D>
STN_HD void announce_pixel(const SampleParams& p, const Element* image,
                           const TileTaps<A, K, D>& taps, int i, int slots) {
  const int later = std::min(i + kPointsAhead, slots - 1);
  int64_t offset = 0;
  for (int d = 0; d < D; ++d) offset += taps.index[d][K - 1][later] * p.input.stride[d];
  announce_run(image + offset, p.channels * static_cast<int64_t>(sizeof(Element)));
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
