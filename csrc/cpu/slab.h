// The part of an image that one task of splat owns, and what becomes of the sums.
#pragma once

#include "cpu/gather.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Where a task accumulates: `data` is addressed with whole-image indices, of which only those with
// low <= outermost index < high exist.
template <class A>
struct Slab {
  A* data;
  int64_t stride_c;
  int64_t stride[3];
  int32_t low, high;
  int32_t together = 1;  // channels next to each other; stride_c is from so many to the next ones

  STN_HD A* plane(int64_t c) const {
    return together == 1 ? data + c * stride_c : data + c / together * stride_c + c % together;
  }
};

// The outermost indices that a tile's taps touch, from those of its first and last ones.
struct Touched {
  int32_t low = INT32_MAX, high = INT32_MIN;

  STN_HD void add(const int32_t* first, int span, int count) {
    int32_t least = INT32_MAX, greatest = INT32_MIN;
    for (int i = 0; i < count; ++i) {
      least = least < first[i] ? least : first[i];
      greatest = greatest > first[i] ? greatest : first[i];
    }
    low = std::min(low, least);
    high = std::max(high, greatest + span);
  }

  template <class A>
  STN_HD bool any_in(const Slab<A>& slab) const {
    return low < slab.high && high >= slab.low;
  }
  template <class A>
  STN_HD bool all_in(const Slab<A>& slab) const {
    return low >= slab.low && high < slab.high;
  }
};

// The zeros that the sums begin with: of a large slab they are written where they are about to be
// needed, so that the first additions find them in a cache.
template <class A>
struct Zeros {
  const Slab<A>& slab;
  int64_t length;      // elements of one outermost index in a plane
  int64_t planes;      // 1 where the channels lie inside
  int32_t begin, end;  // the outermost indices that are zeroed

  Zeros(const Slab<A>& of, int64_t inner, int64_t channels, bool channels_inside)
      : slab(of),
        length(channels_inside ? inner * channels : inner),
        planes(channels_inside ? 1 : channels),
        begin(of.low),
        end(of.low) {
    constexpr int64_t kSmall = int64_t(1) << 18;
    const int64_t bytes = (slab.high - slab.low) * length * planes * sizeof(A);
    bytes > kSmall ? took(Path::zeros_on_the_way) : complete();
  }

  STN_HD void reach(const Touched& touched) {
    if (begin <= touched.low && touched.high < end) return;
    const int32_t low = std::max(slab.low, touched.low);
    const int32_t high = std::min(slab.high, touched.high + 1);
    if (begin == end) begin = end = low;
    if (low < begin) write(low, begin);
    if (high > end) write(end, high);
    begin = std::min(begin, low);
    end = std::max(end, high);
  }

  STN_HD void complete() { reach({slab.low, slab.high - 1}); }

  __attribute__((noinline)) void write(int32_t first, int32_t last) {
    for (int64_t c = 0; c < planes; ++c) {
      A* plane = slab.data + c * slab.stride_c;
      std::fill(plane + first * length, plane + last * length, A(0));
    }
  }
};

template <class Element, class A>
STN_HD void round_run(const A* from, int64_t count, Element* to) {
  using V = Native<A>;
  for (int64_t i = 0; i < count; i += kLanes<A>) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes<A>, count - i));
    store_pixels(to + i, load_some<V>(from + i, lanes), lanes);
  }
}

// Copies the float scratch of a 16-bit image's slab, rounding. The image is contiguous or
// channels_last.
template <class Element, int D>
void store_slab(const SampleParams& p, const Slab<Accumulate<Element>>& slab, int64_t n,
                int64_t first_channel, int64_t channels) {
  const bool inside = p.input.stride_c == 1 && p.channels > 1;
  const int64_t depth = D == 3 ? slab.high - slab.low : 1;
  const int64_t z0 = D == 3 ? slab.low : 0;
  const int64_t y0 = D == 3 ? 0 : slab.low;
  const int64_t height = D == 3 ? p.input_size[1] : slab.high - slab.low;
  for (int64_t c = 0; c < (inside ? 1 : channels); ++c) {
    Element* plane = plane_of<Element>(p.input, n, first_channel + c);
    const auto* from = slab.data + c * slab.stride_c;
    for (int64_t z = z0; z < z0 + depth; ++z) {
      for (int64_t y = y0; y < y0 + height; ++y) {
        Element* row = plane + z * p.input.stride[2] * (D == 3) + y * p.input.stride[1];
        const auto* source = from + z * slab.stride[2] * (D == 3) + y * slab.stride[1];
        if (!inside) {
          round_run(source, p.input_size[0], row);
          continue;
        }
        for (int64_t x = 0; x < p.input_size[0]; ++x) {
          round_run(source + x * slab.stride[0], channels, row + x * p.input.stride[0]);
        }
      }
    }
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
