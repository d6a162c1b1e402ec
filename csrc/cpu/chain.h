// Chains: where the points of a tile look through a matrix, a field of displacements and a matrix,
// and what a gradient that flows back leaves with each. A field that is not read at the points
// themselves is an image, looked at as any other, of a channel per axis.
#pragma once

#include "cpu/grad_warp.h"
#include "cpu/sample.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// A tile's looks at the field: values(), or gradients by where they look.
template <class T, int D>
struct FieldLooks {
  SampleParams p{};
  Plan plan{};
  Looks<T, D> looks;
  const Tile<D>& tile;

  FieldLooks(const ChainMap<T, D>& map, const Tile<D>& of) : tile(of) {
    coordinates(*map.inner, tile, looks.x);
    looks.frame = map.lattice;
    looks.monotonic = looks.ranged = false;
    plan.windows = true;
    p.dims = D;
    p.interpolation = Interpolation::bilinear;
    std::fill(p.padding, p.padding + 3, Padding::border);
    p.batch = 1;
    p.channels = D;
    for (int d = 0; d < 3; ++d) {
      p.input_size[d] = map.size[d];
      p.input.stride[d] = map.field.stride[d];
    }
    p.input.data = const_cast<T*>(map.field.data);
    p.input.type = p.output.type = sizeof(T) == 8 ? ElementType::f64 : ElementType::f32;
    p.input.batch = p.output.batch = 1;
    p.input.stride_c = map.field.stride_k;
  }

  // Into `value`, or out of it: a number for each slot and axis.
  void through(T (&value)[D][kRoom]) {
    p.output.stride[0] = 1;
    p.output.stride[1] = tile.pitch;
    p.output.stride_c = kRoom;
    p.output.data = &value[0][0] - (tile.first[0] + int64_t(tile.first[1]) * tile.pitch);
  }

  void values(T (&value)[D][kRoom]) {
    through(value);
    sample_tile<T, 2>(p, plan, layout_of<2, D>(p), {0, 1}, tile, looks, Box<D>());
    tile.for_each_row([&](int slot, const int32_t (&)[D]) {  // as where a row's last point looks
      for (int d = 0; d < D; ++d) {
        T* row = value[d] + slot;
        std::fill(row + tile.width, row + tile.pitch, row[tile.width - 1]);
      }
    });
  }

  void gradients(T (&value)[D][kRoom], T (&grad)[D][kRoom]) {
    through(value);
    grad_warp_tile<false, T, 2>(p, plan, layout_of<2, D>(p), 0, {0, 1}, tile, looks, Box<D>(),
                                grad);
  }
};

// f(i, v) for each vector of slots, v of x: D vectors.
template <class T, int D, class F>
STN_HD void for_each_vector(const Tile<D>& tile, const T (&x)[D][kRoom], F&& f) {
  for (int i = 0; i < tile.slots(); i += kLanes<T>) {
    Native<T> v[D];
    for (int d = 0; d < D; ++d) v[d] = load<Native<T>>(&x[d][i]);
    f(i, v);
  }
}

template <class T, int D>
STN_HD void store_vector(const Native<T> (&v)[D], int i, T (&x)[D][kRoom]) {
  for (int d = 0; d < D; ++d) store<kLanes<T>>(&x[d][i], v[d]);
}

// The tile's points after the displacement.
template <class T, int D>
__attribute__((noinline)) void displace(const ChainMap<T, D>& map, const Tile<D>& tile,
                                        T (&x)[D][kRoom]) {
  if (!map.inner) return coordinates(map.field, tile, x);
  FieldLooks<T, D> field(map, tile);
  field.values(x);
  for_each_vector(tile, field.looks.x, [&](int i, const Native<T>(&at)[D]) {
    Native<T> moved[D];
    for (int d = 0; d < D; ++d) moved[d] = load<Native<T>>(&x[d][i]);
    map.field.reading.look(at, moved);
    store_vector(moved, i, x);
  });
}

template <class T, int D>
__attribute__((noinline)) void coordinates(const ChainMap<T, D>& map, const Tile<D>& tile,
                                           T (&x)[D][kRoom]) {
  displace(map, tile, x);
  if (!map.outer) return;
  for_each_vector(tile, x, [&](int i, const Native<T>(&at)[D]) {
    Native<T> look[D];
    map.outer->coordinate(at, look);
    store_vector(look, i, x);
  });
}

// About where the point p looks: for hints (holds_for), at the field's nearest pixel.
template <class T, int D>
STN_HD void look_of(const ChainMap<T, D>& map, const int32_t (&p)[D], T (&x)[D]) {
  T at[D], moved[D];
  int32_t pixel[D];
  for (int d = 0; d < D; ++d) {
    at[d] = static_cast<T>(p[d]);
    pixel[d] = p[d];
  }
  if (map.inner) {
    T inner[D];
    map.inner->coordinate(at, inner);
    for (int d = 0; d < D; ++d) {
      at[d] = inner[d];
      pixel[d] = truncate(clip(map.lattice.axis[d], inner[d]));
    }
  }
  map.field.value(pixel, moved);
  map.field.reading.look(at, moved);
  if (map.outer) {
    map.outer->coordinate(moved, x);
  } else {
    for (int d = 0; d < D; ++d) x[d] = moved[d];
  }
}

// A tile's part of the matrices' sums, the outer one's first, and of the gradient of what was
// displaced by.
template <class T, int D>
STN_SHARED void hand_to_chain(const ChainMap<T, D>& map, const SampleParams& p, int64_t n,
                              const Tile<D>& tile, const T (&grad)[D][kRoom], LaneSums& total) {
  using V = Native<T>;
  using Matrix = typename ChainMap<T, D>::Matrix;
  alignas(64) T g[D][kRoom] = {};  // beside the points, too, it is 0
  tile.for_each_row([&](int slot, const int32_t (&)[D]) {
    for (int j = 0; j < tile.width; j += kLanes<T>) {
      const auto inside = counting<V>() < static_cast<T>(tile.width - j);
      for (int d = 0; d < D; ++d) {
        const V here = load<V>(&grad[d][slot + j]);
        store<kLanes<T>>(&g[d][slot + j], inside ? here : V{});
      }
    }
  });
  int first = 0;
  if (map.outer) {
    alignas(64) T x[D][kRoom];
    displace(map, tile, x);
    V sums[Matrix::sums] = {};
    for_each_vector(tile, x, [&](int i, V(&at)[D]) {
      V of[D], pulled[D];
      for (int d = 0; d < D; ++d) {
        at[d] = at[d] == at[d] ? at[d] : V{};  // NaN has no gradient: 0 times it were one
        of[d] = load<V>(&g[d][i]);
      }
      map.outer->accumulate(at, of, sums);
      map.outer->pull(at, of, pulled);
      store_vector(pulled, i, g);
    });
    add_sums(sums, first, total);
    first = Matrix::sums;
  }
  alignas(64) T own[D][kRoom];  // the gradient of the points' own positions
  const Reading<T, D> reading = map.field.reading;
  for_each_vector(tile, g, [&](int i, V(&of)[D]) {
    V stays[D];
    for (int d = 0; d < D; ++d) stays[d] = of[d] * reading.step[d];
    store_vector(stays, i, own);
    reading.gradient(of);
    store_vector(of, i, g);
  });
  T* data = static_cast<T*>(p.grad_warp.data) + n * p.grad_warp.stride_n;
  for (int d = 0; d < D; ++d) {
    store_tile(tile, g[d], 0, tile.slots(), data + d * p.grad_warp.stride_k, p.grad_warp.stride);
  }
  if (!map.inner) return;
  alignas(64) T through[D][kRoom];
  FieldLooks<T, D>(map, tile).gradients(g, through);
  for_each_vector(tile, through, [&](int i, V(&of)[D]) {
    for (int d = 0; d < D; ++d) of[d] += load<V>(&own[d][i]);
    store_vector(of, i, own);
  });
  sum_gradient(*map.inner, tile, own, total, first);
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
