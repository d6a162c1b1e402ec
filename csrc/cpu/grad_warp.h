// The gradient that reaches the warp: first of each tap's pixel value, summed over channels,
//   dot[tap, p] = sum over c of grad[n, c, p] * input[n, c, tap],
// then of the coordinates, by the slopes of the weights, then of the map's own values (a grid) or
// parameters (theta).
#pragma once

#include "cpu/gather.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

template <int K, int D>
struct TapProduct {
  static constexpr int count = D == 3 ? K * K * K : K * K;
};

template <class A, int K, int D>
struct alignas(64) Dots {
  A of[TapProduct<K, D>::count][kRoom];
};

// Linear, planar.
template <class Element, int D>
STN_HD void dot_plane(const SampleParams& p, const int32_t (&offset)[kTile], const Element* plane,
                      const Accumulate<Element>* grad, int count,
                      Dots<Accumulate<Element>, 2, D>& dots) {
  alignas(64) Pair<Element> pairs[Rows<D>::count][kTile];
  copy_pairs<Element, D>(plane, offset, Rows<D>(p), count, pairs);
  for (int r = 0; r < Rows<D>::count; ++r) {
    for (int i = 0; i < count; ++i) {
      dots.of[2 * r][i] += grad[i] * to_float(pairs[r][i].first);
      dots.of[2 * r + 1][i] += grad[i] * to_float(pairs[r][i].second);
    }
  }
}

template <class Element, int K, int D>
STN_HD int64_t tap_offset(const int64_t (&stride)[3],
                          const TileTaps<Accumulate<Element>, K, D>& taps, int k, int i) {
  int64_t offset = taps.index[0][k % K][i] * stride[0] + taps.index[1][k / K % K][i] * stride[1];
  if (D == 3) offset += taps.index[D - 1][k / (K * K)][i] * stride[2];
  return offset;
}

// Any layout.
template <class Element, int K, int D>
STN_HD void dot_points(const SampleParams& p, const TileTaps<Accumulate<Element>, K, D>& taps,
                       const Element* plane, const Accumulate<Element>* grad, int count,
                       Dots<Accumulate<Element>, K, D>& dots) {
  for (int i = 0; i < count; ++i) {
    for (int k = 0; k < TapProduct<K, D>::count; ++k) {
      dots.of[k][i] += grad[i] * to_float(plane[tap_offset<Element>(p.input.stride, taps, k, i)]);
    }
  }
}

// Consecutive channels: a dot product of two vectors per tap.
template <class Element, int K, int D>
STN_HD void dot_channels(const SampleParams& p, const TileTaps<Accumulate<Element>, K, D>& taps,
                         int64_t n, int64_t begin, int count,
                         Dots<Accumulate<Element>, K, D>& dots) {
  using A = Accumulate<Element>;
  const Element* image = plane_of<const Element>(p.input, n, 0);
  const Element* output = plane_of<const Element>(p.output, n, 0) + begin * p.output.stride[0];
  for (int i = 0; i < count; ++i) {
    const Element* grad = output + i * p.output.stride[0];
    for (int k = 0; k < TapProduct<K, D>::count; ++k) {
      const Element* pixel = image + tap_offset<Element>(p.input.stride, taps, k, i);
      A sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < p.channels; ++c) sum += to_float(grad[c]) * to_float(pixel[c]);
      dots.of[k][i] += sum;
    }
  }
}

// The gradients of the coordinates. A tap whose coefficient is 0 does not count, whatever its
// pixel holds.
template <class A, int K, int D>
STN_HD void combine(const TileTaps<A, K, D>& taps, const Dots<A, K, D>& dots, int count,
                    A (&grad)[D][kRoom]) {
  using V = Native<A>;
  for (int d = 0; d < D; ++d) {
    for (int i = 0; i < count; i += kLanes<A>) {
      V sum{};
      for (int k = 0; k < TapProduct<K, D>::count; ++k) {
        const int tap[3] = {k % K, k / K % K, k / (K * K)};
        V coefficient = all<V>(1);
        for (int e = 0; e < D; ++e) {
          coefficient *= load<V>(e == d ? &taps.slope[e][tap[e]][i] : &taps.weight[e][tap[e]][i]);
        }
        const V term = coefficient * load<V>(&dots.of[k][i]);
        sum += coefficient != 0 ? term : V{};
      }
      store<kLanes<A>>(&grad[d][i], sum);
    }
  }
}

// A grid: the gradient of each of its values, written.
template <class Map, class A, int D>
STN_HD void write_gradient(const Map& map, const SampleParams& p, int64_t n, int64_t begin,
                           int count, const A (&grad)[D][kRoom]) {
  using T = decltype(map.frame.axis[0].half);
  using Element = typename Map::element;  // a gradient has the type of what it belongs to
  const Warp& out = p.grad_warp;
  Element* data = static_cast<Element*>(out.data) + n * out.stride_n + begin * D;
  for_each_run<D>(p.output_size, begin, count, [&](int i, int run, const int32_t (&)[D]) {
    for (int j = 0; j < run; ++j) {
      T g[D];
      for (int d = 0; d < D; ++d) g[d] = static_cast<T>(grad[d][i + j]);
      map.gradient(g);
      for (int d = 0; d < D; ++d) data[(i + j) * D + d] = Rounded<Element>::from(g[d]);
    }
  });
}

// Parameters: the tile's part of their sums, added to `partial`.
template <class Map, class A, int D>
STN_HD void sum_gradient(const Map& map, const int64_t (&size)[3], int64_t begin, int count,
                         const A (&grad)[D][kRoom], double* partial) {
  using T = typename std::decay<decltype(map.half[0])>::type;
  using V = Native<T>;
  V sums[Map::sums] = {};
  for_each_run<D>(size, begin, count, [&](int i, int run, const int32_t (&p)[D]) {
    for (int j = 0; j < run; j += kLanes<T>) {
      V at[D], g[D];
      positions(p, j, at);
      const auto inside = counting<V>() < static_cast<T>(run - j);
      for (int d = 0; d < D; ++d) {
        Vector<A, kLanes<T>> values;
        std::memcpy(&values, &grad[d][i + j], sizeof values);
        g[d] = inside ? __builtin_convertvector(values, V) : V{};
      }
      map.accumulate(at, g, sums);
    }
  });
  for (int k = 0; k < Map::sums; ++k) partial[k] += static_cast<double>(sum_lanes(sums[k]));
}

template <class T, class A, int D>
void hand_to_map(const SampleParams& p, int64_t n, int64_t begin, int count,
                 const A (&grad)[D][kRoom], double* partial) {
  const auto frame = pixel_frame<T, D>(p.input_size, p.align_corners);
  with_map<T, D>(p.map, p.warp, n, frame, p.output_size, p.align_corners, [&](const auto& map) {
    using Map = typename std::decay<decltype(map)>::type;
    if constexpr (Map::parametric) {
      sum_gradient(map, p.output_size, begin, count, grad, partial);
    } else {
      write_gradient(map, p, n, begin, count, grad);
    }
  });
}

template <class Element, int K, int D>
void grad_warp_tile(const SampleParams& p, Layout layout, int64_t n, int64_t begin, int count,
                    double* partial) {
  using A = Accumulate<Element>;
  TileTaps<A, K, D> taps;
  Dots<A, K, D> dots;
  alignas(64) int32_t offset[kTile];
  alignas(64) A buffer[kTile];
  alignas(64) A grad[D][kRoom];
  make_taps<true>(p, n, begin, count, taps);
  for (auto& row : dots.of) std::fill(row, row + count, A(0));
  const bool linear = K == 2 && layout == Layout::planar;
  if (linear) first_offsets(p, taps, count, offset);
  const BatchRange images = images_of_warp(p, n);
  for (int64_t m = images.begin; m < images.end; ++m) {
    if (layout == Layout::channels) {
      dot_channels<Element>(p, taps, m, begin, count, dots);
      continue;
    }
    for (int64_t c = 0; c < p.channels; ++c) {
      const Element* plane = plane_of<const Element>(p.input, m, c);
      const A* values = fetch(plane_of<const Element>(p.output, m, c) + begin * p.output.stride[0],
                              p.output.stride[0], count, buffer);
      if constexpr (K == 2) {
        if (linear) {
          dot_plane<Element, D>(p, offset, plane, values, count, dots);
          continue;
        }
      }
      dot_points<Element>(p, taps, plane, values, count, dots);
    }
  }
  combine(taps, dots, count, grad);
  if (p.warp.type == ElementType::f64) {
    hand_to_map<double>(p, n, begin, count, grad, partial);
  } else {
    hand_to_map<float>(p, n, begin, count, grad, partial);
  }
}

// The parameters of a parametric map.
STN_HD int parameter_count(MapKind, int dims) { return dims * (dims + 1); }

// Tasks: (warp, group of consecutive tiles). The gradient of nearest is 0: ops.cpp returns zeros.
inline void grad_warp(const SampleParams& p, const Plan& plan, int64_t begin, int64_t end) {
  with_types(p, p.input.type, [&](auto element, auto interpolation, auto dims) {
    constexpr int K = TapCount<decltype(interpolation)::value>::value;
    constexpr int D = decltype(dims)::value;
    if constexpr (K > 1) {
      const Layout layout = layout_of<K, D>(p);
      const int64_t total = points(p.output_size, D);
      const int64_t groups = (plan.tiles + plan.tiles_per_task - 1) / plan.tiles_per_task;
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task % groups * plan.tiles_per_task;
        const int64_t last = std::min(plan.tiles, first + plan.tiles_per_task);
        double* partial = plan.partial + task * parameter_count(p.map, D);
        for (int64_t tile = first; tile < last; ++tile) {
          grad_warp_tile<decltype(element), K, D>(p, layout, task / groups, tile * kTile,
                                                  tile_count(total, tile * kTile), partial);
        }
      }
    }
  });
}

// Adds the partial sums in order and turns them into the parameters' gradient.
template <class T, int D>
void finish(MapKind kind, const Warp& warp, const Warp& grad_warp, const Frame<T, D>& frame,
            const int64_t (&output_size)[3], bool align_corners, const Plan& plan) {
  const int64_t groups = plan.tasks / grad_warp.batch;
  for (int64_t n = 0; n < grad_warp.batch; ++n) {
    with_map<T, D>(kind, warp, n, frame, output_size, align_corners, [&](const auto& map) {
      using Map = typename std::decay<decltype(map)>::type;
      if constexpr (Map::parametric) {
        for (int k = 0; k < Map::sums; ++k) {
          double sum = 0;
          for (int64_t g = 0; g < groups; ++g)
            sum += plan.partial[(n * groups + g) * Map::sums + k];
          store_as(grad_warp.data, grad_warp.type, n * grad_warp.stride_n + k, map.finish(k, sum));
        }
      }
    });
  }
}

template <int D>
void finish_grad_warp_as(const SampleParams& p, const Plan& plan) {
  finish(p.map, p.warp, p.grad_warp, pixel_frame<double, D>(p.input_size, p.align_corners),
         p.output_size, p.align_corners, plan);
}

inline void finish_grad_warp(const SampleParams& p, const Plan& plan) {
  p.dims == 2 ? finish_grad_warp_as<2>(p, plan) : finish_grad_warp_as<3>(p, plan);
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
