// Looks at a planar image point by point: the K taps of a row are K consecutive pixels, moved as
// one. Every point costs the same wherever it looks, where a window (cpu/window.h) has to hold the
// looks of neighbours.
#pragma once

#include "cpu/gathers.h"
#include "cpu/window.h"
#include "cpu/woven.h"

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
  int32_t whole[kRoom / kLanes<A>];  // whether a group's taps have the room that they need

  STN_SHARED bool all_whole(int slots) const {
    const int groups = (slots + kLanes<A> - 1) / kLanes<A>;
    return std::find(whole, whole + groups, 0) == whole + groups;
  }
};

template <class T, int D>
STN_HD bool has_nan(const Looks<T, D>& looks, int slots) {
  using V = Native<T>;
  if (looks.ranged) return false;
  bool any = false;
  for (int i = 0; i < slots; i += kLanes<T>) {
    any |= any_nan(load<V>(&looks.x[0][i]), load<V>(&looks.x[D - 1][i]));
    if (D == 3) any |= any_nan(load<V>(&looks.x[1][i]), V{});
  }
  return any;
}

// The same looks with what NaN is read as, if any is NaN. Whether one is.
template <class T, int D>
STN_HD bool without_nan(const Looks<T, D>& looks, int slots, Looks<T, D>& numbers) {
  if (!has_nan(looks, slots)) return false;
  numbers.frame = looks.frame;
  for (int d = 0; d < D; ++d) {
    for (int i = 0; i < slots; ++i) {
      const T x = looks.x[d][i];
      numbers.x[d][i] = x == x ? x : -looks.frame.axis[d].offset;
    }
  }
  return true;
}

// Where the looks, none of them NaN, find their runs.
template <bool Outermost, class T, class A, int K, int D>
STN_HD void find_runs_of_numbers(const SampleParams& p, const Looks<T, D>& looks, int slots,
                                 RunStarts<A, K, D>& runs) {
  using V = Native<T>;
  int32_t stride[D];
  for (int d = 0; d < D; ++d) {
    stride[d] = static_cast<int32_t>(p.input.stride[d]);
    // Where there is no next tap, its distance is infinite or, of looks that are, NaN: of weight 0.
    runs.step[d] = p.input_size[d] >= K ? A(1) : std::numeric_limits<A>::infinity();
  }
  for (int r = 0; r < RunStarts<A, K, D>::kRows; ++r) {
    runs.row[r] = r % K * (p.input_size[1] >= K ? p.input.stride[1] : 0);
    if (D == 3) runs.row[r] += r / K * (p.input_size[2] >= K ? p.input.stride[2] : 0);
  }
  const Frame<T, D> frame = frame_of_looks<K>(looks.frame);
  with_rule(frame, [&](auto rule) {
    std::decay_t<decltype(rule(frame.axis[0]))> axis[D];
    T highest[D], room[D];
    for (int d = 0; d < D; ++d) {
      axis[d] = rule(frame.axis[d]);
      highest[d] = static_cast<T>(std::max<int32_t>(0, axis[d].size - K));
      room[d] = static_cast<T>(axis[d].size - K + 1);
    }
    const auto confined = [&](int d) __attribute__((always_inline)) {
      return K == 4 ? needs_room<K>(looks.frame.axis[d]) : needs_room<K>(axis[d]);
    };
    std::fill(runs.whole, runs.whole + kRoom / kLanes<A>, 1);
    for (int i = 0; i < slots; i += kLanes<T>) {
      Integer<V> offset{};
      for (int d = 0; d < D; ++d) {
        const V look = load<V>(&looks.x[d][i]);
        const V at = K == 1 ? nearest_pixel(axis[d], look) : bound_number(axis[d], look);
        const V base = at - T((K - 1) / 2);
        const Integer<V> index = truncate(V(smaller(larger(base, V{}), all<V>(highest[d]))));
        const V first = to_real<V>(index);
        offset += d == 0 ? index : index * stride[d];
        store<kLanes<T>>(&runs.distance[d][i], V(at - first));
        if (Outermost && d == D - 1) store<kLanes<T>>(&runs.outermost[i], index);
        // (Slots beyond the last point may hold anything.)
        const auto fits = [&]() __attribute__((always_inline)) {
          return all_lanes(((base >= 0) & (base < room[d])) |
                           (counting<V>() >= static_cast<T>(slots - i)));
        };
        if (confined(d) && !fits()) {
          for (int j = i; j < i + kLanes<T>; j += kLanes<A>) runs.whole[j / kLanes<A>] = 0;
        }
      }
      store<kLanes<T>>(&runs.offset[i], offset);
    }
  });
}

// Whether a coordinate is NaN.
template <bool Outermost, class T, class A, int K, int D>
STN_SHARED bool find_runs(const SampleParams& p, const Looks<T, D>& looks, int slots,
                          RunStarts<A, K, D>& runs) {
  Looks<T, D> numbers;
  const bool any = without_nan(looks, slots, numbers);
  if (any) took(Path::runs_of_nan);
  find_runs_of_numbers<Outermost>(p, any ? numbers : looks, slots, runs);
  return any;
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

// How many slots ahead the runs of scattered points are announced to the caches.
constexpr int kSlotsAhead = 48;

// The same gathered into vectors, of planes that begin at `plane`; float32 pairs by the processor's
// instruction or, with Inserts, one by one. Far: of points that are scattered over a large image.
// (Types of their own: a branch in the loop of the others costs them a third.)
template <class Element, bool Far, bool Inserts>
struct GatheredRuns {
  const Element* plane;
  int64_t stride_c;
  int slots;
  int rows_below;  // how many further down is what later points see; 0 where none do

  template <class E>
  STN_HD static auto float_pairs(const E* from, const int32_t* offset) {
    return Inserts ? insert_pairs(from, offset) : gather_pairs(from, offset);
  }

#if defined(__x86_64__) && STN_VECTOR_BYTES == 32
  template <int D, class Use>
  STN_HD void taps(const RunStarts<double, 2, D>& starts, int c, int row, int first,
                   Use&& use) const {
    const double* from = plane + c * stride_c + starts.row[row];
    const int32_t* offset = starts.offset + first;
    if (D == 2 && row == 1) __builtin_prefetch(from + offset[0] + rows_below * starts.row[1]);
    const __m256d even = every_second_pair(from, offset);
    const __m256d odd = every_second_pair(from, offset + 1);
    use([&](int k) __attribute__((always_inline)) {
      return (Native<double>)(k == 0 ? _mm256_unpacklo_pd(even, odd)
                                     : _mm256_unpackhi_pd(even, odd));
    });
  }
#endif

  template <int K, int D, class Use>
  STN_HD void taps(const RunStarts<float, K, D>& starts, int c, int row, int first,
                   Use&& use) const {
    constexpr int L = kLanes<float>;
    const Element* from = plane + c * stride_c + starts.row[row];
    const int32_t* offset = starts.offset + first;
    if constexpr (K == 1) {
      const FloatVector pixels = gather_pixels(from, offset);
      use([&](int) __attribute__((always_inline)) { return pixels; });
    } else {
      // What later points see: along rows of points that are aslant, nothing announces it. (Reading
      // past the end is no error of a prefetch.)
      if (Far && first + kSlotsAhead < slots) {
        for (int i = 0; i < L; ++i) __builtin_prefetch(from + offset[kSlotsAhead + i]);
      }
      if (!Far && D == 2 && row == 1) {
        const int64_t ahead = rows_below * starts.row[1];
        __builtin_prefetch(from + offset[0] + ahead);
        __builtin_prefetch(from + offset[L - 1] + ahead);
      }
      if constexpr (sizeof(Element) == 2) {
        const WideBits pairs = gather_pairs(from, offset);
        use([&](int k)
                __attribute__((always_inline)) { return pixels_of_pairs(pairs, k, Element{}); });
      } else {
        const FloatVector low = float_pairs(from, offset);
        const FloatVector high = float_pairs(from, offset + L / 2);
        const IntVector even = truncate(counting<FloatVector>()) * 2;
        use([&](int k) __attribute__((always_inline)) {
          return select_lanes(low, high, IntVector(even + k));
        });
      }
    }
  }
};

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
      : starts(s), source(from), first(g * kLanes<A>), across(load<V>(&s.distance[0][first]) + 0) {
    for (int d = 1; d < D; ++d) down[d - 1] = load<V>(&s.distance[d][first]) + 0;
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

// Calls look(count, n, c, view) for each block of channels of the images: view(g) shows group g of
// those without a window in the channels [c, c + count), where count is a constant of its type.
template <class Element, int Most, int K, int D, class F>
STN_HD void for_each_run_block(const SampleParams& p, const Plan& plan, int slots,
                               const WindowTile<Accumulate<Element>, D>& windows,
                               const RunStarts<Accumulate<Element>, K, D>& starts,
                               BatchRange images, F&& look) {
  using A = Accumulate<Element>;
  if (plan.plane_by_plane) took(Path::runs_by_plane);
  const auto all = [&](auto block, auto&& prepare, const auto& source) {
    using Source = typename std::decay<decltype(source)>::type;
    for (int64_t n = images.begin; n < images.end; ++n) {
      const auto at = [&](auto count, int64_t c) {
        prepare(count.value, plane_of<const Element>(p.input, n, c));
        look(count, n, c, [&](int g) { return RunView<Source, A, K, D>(starts, source, g); });
      };
      constexpr int kBlock = block.value < Most ? block.value : Most;
      for_each_channel_block<kBlock>(plan.plane_by_plane ? 1 : kBlock, p.channels, at);
    }
  };
  if constexpr (kWeaves<Element, K> && Most > 1) {
    if (plan.woven) {
      took(Path::runs_woven);
      for (int64_t n = images.begin; n < images.end; ++n) {
        for_each_channel_block<Most>(p.channels, [&](auto count, int64_t c) {
          const float* from = woven_channels(plan.woven, p, n, c);
          look(count, n, c, [&](int g) {
            return WovenView<count.value, RunStarts<A, K, D>, K, D>(starts, from, g);
          });
        });
      }
      return;
    }
  }
  if constexpr (kGathers<Element, K>) {
    if (plan.gather) {
      took(Path::runs_gathered);
      const auto gather = [&](auto far, auto inserts) {
        if (far.value) took(Path::runs_announced);
        if (inserts.value) took(Path::runs_inserted);
        GatheredRuns<Element, far.value, inserts.value> source{nullptr, p.input.stride_c, slots,
                                                               plan.scattered ? 0 : 3};
        const auto by = [&](auto block) {
          all(block, [&](int, const auto* plane) { source.plane = plane; }, source);
        };
        if constexpr (D == 2) {
          by(std::integral_constant<int, kChannelBlock>{});
        } else {
          // The slices and planes of a volume are often so far apart that more than a few share
          // their part of the L1 cache.
          p.channels % 3 == 0 ? by(std::integral_constant<int, 3>{})
                              : by(std::integral_constant<int, 2>{});
        }
      };
      const auto gather_by = [&](auto inserts) {
        const bool far = plan.scattered && is_far(p) && !std::is_same<Element, double>::value;
        far ? gather(std::true_type{}, inserts) : gather(std::false_type{}, inserts);
      };
      if constexpr (kInserts<Element, K>) {
        if (plan.inserts) return gather_by(std::true_type{});
      }
      return gather_by(std::false_type{});
    }
  }
  took(Path::runs_copied);
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

// Looks at what the groups without a window see: look(count, n, c, marks, view) for blocks of
// channels as above, of the groups that are marked; of those whose work fails it takes the mark.
// The others are then marked as having a window.
template <class Element, int Most = kChannelBlock, int K, int D, class F>
STN_HD void look_at_runs(const SampleParams& p, const Plan& plan,
                         const RunStarts<Accumulate<Element>, K, D>& starts, int groups,
                         BatchRange images, WindowTile<Accumulate<Element>, D>& windows, F&& look) {
  using A = Accumulate<Element>;
  const int slots = groups * kLanes<A>;
  int32_t marks[WindowTile<A, D>::kSlots];
  for (int g = 0; g < groups; ++g) marks[g] = !windows.used[g] && starts.whole[g];
  for_each_run_block<Element, Most>(
      p, plan, slots, windows, starts, images,
      [&](auto count, int64_t n, int64_t c, auto&& view) { look(count, n, c, marks, view); });
  for (int g = 0; g < groups; ++g) windows.used[g] |= marks[g];
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
