// Chains (params.h): where a point looks through a matrix, a field of displacements and a matrix,
// and what a gradient that flows back leaves with each.
#pragma once

#include "cuda/block_map.h"
#include "cuda/parameter_sums.h"
#include "math/chain.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// The matrices are made in a block's memory, by one thread for all.
template <class T, int D>
class BlockMap<ChainMap<T, D>, false> {
 public:
  using Matrix = typename ChainMap<T, D>::Matrix;

  template <class Block, class Launch>
  STN_HD ChainMap<T, D> make(const Block& block, const Launch& launch, int64_t n) {
    const auto& p = launch.p;
    const Chain& chain = launch.chain;
    block.once([&] {
      if (chain.outer.data) {
        new (outer_) Matrix(chain.outer, n, launch.frame, launch.meeting.size, p.align_corners);
      }
      if (chain.inner.data) {
        new (inner_) Matrix(chain.inner, n, launch.meeting.frame, p.output_size, p.align_corners);
      }
    });
    return {chain.outer.data ? reinterpret_cast<const Matrix*>(outer_) : nullptr,
            chain.inner.data ? reinterpret_cast<const Matrix*>(inner_) : nullptr,
            AnyGrid<T, D>{&p.warp, &launch.meeting.reading, n}, &launch.meeting.field};
  }

 private:
  alignas(Matrix) unsigned char outer_[sizeof(Matrix)];
  alignas(Matrix) unsigned char inner_[sizeof(Matrix)];
};

// What one look at the field sees of it.
template <class T, int D>
struct FieldTaps {
  static constexpr int count = 1 << D;
  Taps<T, 2> axis[D];

  STN_HD FieldTaps(const Frame<T, D>& field, const T (&q)[D]) {
    STN_UNROLL
    for (int d = 0; d < D; ++d) axis_taps(field.axis[d], q[d], axis[d]);
  }

  STN_HD void pixel(int tap, int32_t (&p)[D]) const {
    STN_UNROLL
    for (int d = 0; d < D; ++d) p[d] = axis[d].index[tap >> d & 1];
  }

  // Its weight, or the weight's derivative along an axis.
  STN_HD T weight(int tap, int along = -1) const {
    T product = 1;
    STN_UNROLL
    for (int d = 0; d < D; ++d) {
      product *= (d == along ? axis[d].slope : axis[d].weight)[tap >> d & 1];
    }
    return product;
  }
};

// The displacement that the point at q of the field finds.
template <class T, int D>
STN_HD void look_up(const ChainMap<T, D>& map, const T (&q)[D], T (&x)[D]) {
  const FieldTaps<T, D> taps(*map.field, q);
  for (int d = 0; d < D; ++d) x[d] = T(0);
  for (int k = 0; k < taps.count; ++k) {
    int32_t pixel[D];
    T value[D];
    taps.pixel(k, pixel);
    map.values.value(pixel, value);
    for (int d = 0; d < D; ++d) x[d] += taps.weight(k) * value[d];
  }
}

// Adds the gradient of q, of that of the displacement that it finds.
template <class T, int D>
STN_HD void pull_field(const ChainMap<T, D>& map, const T (&q)[D], const T (&g)[D], T (&of)[D]) {
  const FieldTaps<T, D> taps(*map.field, q);
  for (int k = 0; k < taps.count; ++k) {
    int32_t pixel[D];
    T value[D], dot = 0;
    taps.pixel(k, pixel);
    map.values.value(pixel, value);
    for (int d = 0; d < D; ++d) dot += g[d] * value[d];
    for (int d = 0; d < D; ++d) of[d] += dot * taps.weight(k, d);
  }
}

// Where point p stands in the field, and after it has moved.
template <class T, int D>
STN_HD void displace(const ChainMap<T, D>& map, const int32_t (&p)[D], T (&at)[D], T (&x)[D]) {
  position(p, at);
  if (map.inner) {
    T q[D];
    map.inner->coordinate(at, q);
    for (int d = 0; d < D; ++d) at[d] = q[d];
    look_up(map, at, x);
  } else {
    map.values.value(p, x);
  }
  map.values.reading->look(at, x);
}

template <class T, int D>
STN_HD void look(const ChainMap<T, D>& map, const int32_t (&p)[D], T (&x)[D]) {
  T at[D];
  displace(map, p, at, x);
  if (!map.outer) return;
  for (int d = 0; d < D; ++d) at[d] = x[d];
  map.outer->coordinate(at, x);
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
