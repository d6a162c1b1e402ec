// Looks at a planar image point by point: the K taps of a row are K consecutive pixels, moved as
// one. Every point costs the same wherever it looks, where a window (cpu/window.h) has to hold the
// looks of neighbours.
#pragma once

#include "cpu/gathers.h"
#include "cpu/window.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Whether each axis has room for K taps next to each other; a linear look at a single pixel finds
// its neighbour's weight to be 0.
template <int K, int D>
STN_HD bool has_runs(const SampleParams& p) {
  bool all = p.input_size[0] >= K;
  for (int d = 1; d < D; ++d) all &= p.input_size[d] >= K || K == 2;
  return all;
}

// Where each of a tile's points begins to look. A: the type of weights and sums.
template <class A, int K, int D>
struct alignas(64) RunStarts {
  static constexpr int kRows = D == 3 ? K * K : K;
  int32_t offset[kRoom];             // of the first tap in a plane
  int32_t outermost[kRoom];          // the first tap's y, or z; filled on request
  A distance[D][kRoom];              // from the first tap, along each axis
  A step[D];                         // from one tap's distance to the next one's
  int64_t row[kRows];                // offsets of the rows of taps
  int32_t whole[kRoom / kLanes<A>];  // whether all taps of a group are inside the image (bicubic)
  bool any_nan;                      // among the coordinates
};

template <bool Outermost, class T, class A, int K, int D>
STN_HD void find_runs(const SampleParams& p, const Looks<T, D>& looks, int slots,
                      RunStarts<A, K, D>& runs) {
  using V = Native<T>;
  // Bicubic's boundary rule is one of its taps, not of where it looks.
  const Padding rule = K == 4 ? Padding::zeros : p.padding;
  int32_t stride[D];
  for (int d = 0; d < D; ++d) {
    stride[d] = static_cast<int32_t>(p.input.stride[d]);
    runs.step[d] = p.input_size[d] >= K ? A(1) : A(coordinate_limit<A>());
  }
  for (int r = 0; r < RunStarts<A, K, D>::kRows; ++r) {
    runs.row[r] = r % K * (p.input_size[1] >= K ? p.input.stride[1] : 0);
    if (D == 3) runs.row[r] += r / K * (p.input_size[2] >= K ? p.input.stride[2] : 0);
  }
  with_padding(rule, [&](auto tag) {
    constexpr Padding padding = decltype(tag)::value;
    Axis<T> axis[D];
    T highest[D];
    for (int d = 0; d < D; ++d) {
      axis[d] = looks.frame.axis[d];
      highest[d] = static_cast<T>(std::max<int32_t>(0, axis[d].size - K));
    }
    if (K == 4) std::fill(runs.whole, runs.whole + kRoom / kLanes<A>, 1);
    Integer<V> numbers = all_index<V>(-1);
    for (int i = 0; i < slots; i += kLanes<T>) {
      Integer<V> offset{};
      for (int d = 0; d < D; ++d) {
        const V look = load<V>(&looks.x[d][i]);
        const V at = K == 1 ? nearest_pixel(axis[d], padding, look)
                            : bound(axis[d], padding, make_finite(axis[d], look));
        const V base = floor_of(at) - T((K - 1) / 2);
        const V first = smaller(larger(base, V{}), all<V>(highest[d]));
        const Integer<V> index = truncate(first);
        offset += index * stride[d];
        store<kLanes<T>>(&runs.distance[d][i], V(at - first));
        if (Outermost && d == D - 1) store<kLanes<T>>(&runs.outermost[i], index);
        numbers &= look == look;
        if (K == 4 && !all_lanes(base == first)) {
          for (int j = i; j < i + kLanes<T>; j += kLanes<A>) runs.whole[j / kLanes<A>] = 0;
        }
      }
      store<kLanes<T>>(&runs.offset[i], offset);
    }
    runs.any_nan = !all_lanes(numbers);
  });
}

// The runs of the points [first, last) in one plane, row by row copied next to each other: what
// follows reads them as whole vectors. (Inlined, the loop would be short of registers.)
template <class Element, int K, int D>
__attribute__((noinline)) void copy_runs(const Element* plane,
                                         const RunStarts<Accumulate<Element>, K, D>& starts,
                                         int first, int last,
                                         Element (*__restrict runs)[kRoom * K]) {
  constexpr int R = RunStarts<Accumulate<Element>, K, D>::kRows;
  const Element* row[R];
  for (int r = 0; r < R; ++r) row[r] = plane + starts.row[r];
#pragma GCC unroll 4
  for (int i = first; i < last; ++i) {
    for (int r = 0; r < R; ++r) {
      std::memcpy(runs[r] + i * K, row[r] + starts.offset[i], K * sizeof(Element));
    }
    __asm__ volatile("");  // keeps the compiler from turning this loop into gathers
  }
}

// Marks the groups that have no window and can do with runs.
template <class A, int K, int D>
STN_HD void mark_runs(const SampleParams& p, const WindowTile<A, D>& windows,
                      const RunStarts<A, K, D>& starts, int groups, int32_t* marks) {
  const bool anywhere = K < 4 || p.padding == Padding::zeros;
  for (int g = 0; g < groups; ++g) marks[g] = !windows.used[g] && (anywhere || starts.whole[g]);
}

// Channels whose runs are copied together: they have to stay in the L1 cache.
template <int K, int D>
constexpr int kRunBlock = K == 4 ? 1 : (K == 2 && D == 3 ? 2 : kChannelBlock);

// A tile's runs in a block of channels: copied, then read.
template <class Element, int K, int D>
struct alignas(64) CopiedRuns {
  using Starts = RunStarts<Accumulate<Element>, K, D>;
  using V = Native<Accumulate<Element>>;
  Element pixels[kRunBlock<K, D>][Starts::kRows][kRoom * K];

  STN_HD void copy(const Starts& starts, int channels, const Element* plane, int64_t stride_c,
                   int first, int last) {
    for (int c = 0; c < channels; ++c) {
      copy_runs<Element, K, D>(plane + c * stride_c, starts, first, last, pixels[c]);
    }
  }

  template <class Use>
  STN_HD void taps(const Starts&, int c, int row, int first, Use&& use) const {
    const Element* from = pixels[c][row] + first * K;
    use([&](int k) __attribute__((always_inline)) { return pixels_of_runs<V, K>(from, k); });
  }
};

#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
// The same by gather instructions, of planes that begin at `plane`.
struct GatheredRuns {
  const float* plane;
  int64_t stride_c;

  template <int D, class Use>
  STN_HD void taps(const RunStarts<float, 1, D>& starts, int c, int row, int first,
                   Use&& use) const {
    const float* from = plane + c * stride_c + starts.row[row];
    const __m512i offset = _mm512_load_si512(starts.offset + first);
    const FloatVector pixels = (FloatVector)_mm512_i32gather_ps(offset, from, 4);
    use([&](int) __attribute__((always_inline)) { return pixels; });
  }

  template <int D, class Use>
  STN_HD void taps(const RunStarts<float, 2, D>& starts, int c, int row, int first,
                   Use&& use) const {
    const float* from = plane + c * stride_c + starts.row[row];
    const auto pairs = [&](int i) __attribute__((always_inline)) {
      const __m256i offset = _mm256_load_si256(reinterpret_cast<const __m256i*>(starts.offset + i));
      return (FloatVector)_mm512_i32gather_pd(offset, from, 4);
    };
    const FloatVector low = pairs(first), high = pairs(first + 8);
    // What later points see: along rows of points that are aslant, nothing announces it. (Reading
    // past the end is no error of a prefetch.)
    if (D == 2 && row == 1) {
      const int64_t ahead = 3 * starts.row[1];
      __builtin_prefetch(from + starts.offset[first] + ahead);
      __builtin_prefetch(from + starts.offset[first + 15] + ahead);
    }
    const IntVector even = truncate(counting<FloatVector>()) * 2;
    use([&](int k) __attribute__((always_inline)) {
      return select_lanes(low, high, IntVector(even + k));
    });
  }
};
#else
struct GatheredRuns {
  const float* plane;
  int64_t stride_c;
};
#endif

// What group g's points see (cpu/window.h says what a view is), from where `Source` has the taps.
template <class Source, class A, int K, int D>
struct RunView {
  using V = Native<A>;

  const RunStarts<A, K, D>& starts;
  const Source& source;
  int first;  // slot
  V across;
  V down[D - 1];

  STN_HD RunView(const RunStarts<A, K, D>& s, const Source& from, int g)
      : starts(s), source(from), first(g * kLanes<A>), across(load<V>(&s.distance[0][first])) {
    for (int d = 1; d < D; ++d) down[d - 1] = load<V>(&s.distance[d][first]);
  }

  template <class Row, class End>
  STN_HD void rows(Row&& row, End&& end) const {
    V behind = down[D - 2];
    for (int z = 0; z < (D == 3 ? K : 1); ++z) {
      V distance = down[0];
      for (int y = 0; y < K; ++y) {
        const auto channel = [&](int c, auto&& use) __attribute__((always_inline)) {
          source.taps(starts, c, z * K + y, first, use);
        };
        row(channel, distance);
        distance -= starts.step[1];
      }
      end(behind);
      behind -= starts.step[D - 1];
    }
  }
};

// Calls f(n, c, first, view) for each block of channels of the images: view(g) shows group g of
// those without a window in the channels [c, c + count), where count is a constant of its type and
// `first` says whether the block is the first of all.
template <class Element, int K, int D, class F>
STN_HD void for_each_run_block(const SampleParams& p, bool gather, int slots,
                               const WindowTile<Accumulate<Element>, D>& windows,
                               const RunStarts<Accumulate<Element>, K, D>& starts,
                               BatchRange images, F&& f) {
  using A = Accumulate<Element>;
  const auto all = [&](auto block, auto&& prepare, const auto& source) {
    using Source = typename std::decay<decltype(source)>::type;
    for (int64_t n = images.begin; n < images.end; ++n) {
      for_each_channel_block<block.value>(p.channels, [&](auto count, int64_t c) {
        prepare(count.value, plane_of<const Element>(p.input, n, c));
        f(count, n, c, [&](int g) { return RunView<Source, A, K, D>(starts, source, g); });
      });
    }
  };
  if constexpr (kGathers<Element, K>) {
    if (gather) {
      GatheredRuns source{nullptr, p.input.stride_c};
      return all(
          std::integral_constant<int, kChannelBlock>{},
          [&](int, const auto* plane) { source.plane = plane; }, source);
    }
  }
  CopiedRuns<Element, K, D> source;
  all(
      std::integral_constant<int, kRunBlock<K, D>>{},
      [&](int count, const Element* plane) {
        for_each_gap(windows, slots, [&](int first, int last) {
          source.copy(starts, count, plane, p.input.stride_c, first, last);
        });
      },
      source);
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
