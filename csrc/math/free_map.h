// The free maps: a value for each point of the output, in memory. They answer for
//   value(p, x)       what stands there for point p
// and by their reading
//   look(p, x)        from that to the input's pixel coordinates
//   gradient(g)       from the pixel coordinates' gradient to the values'
#pragma once

#include "math/warp.h"

namespace stn_cuda {
inline namespace STN_ISA {

// How the values of a free map are read: as pixels or normalised, and as positions or as
// displacements from the point's own position. That is the identity's, written about the centres as
// the affine map is: without a displacement an output pixel of an equally large image looks at
// precisely its own pixel.
template <class T, int D>
struct Reading {
  Axis<T> axis[D];  // in the values' unit
  bool relative;
  T origin[D], step[D], centre[D];  // own position = origin + step * (p - centre)

  Reading(MapKind kind, const Frame<T, D>& frame, const int64_t (&output_size)[3],
          bool align_corners)
      : relative(free_facts(kind).relative) {
    const bool in_pixels = free_facts(kind).in_pixels;
    for (int d = 0; d < D; ++d) {
      axis[d] = frame.axis[d];
      if (in_pixels) axis[d].half = T(1);
      if (in_pixels || relative) axis[d].shift = axis[d].offset = T(0);
      origin[d] = frame.centre[d];
      step[d] = spacing(frame.extent[d], output_size[d], align_corners);
      centre[d] = static_cast<T>(output_size[d] - 1) / 2;
    }
  }

  template <class V>
  STN_HD void look(const V (&p)[D], V (&x)[D]) const {
    for (int d = 0; d < D; ++d) {
      x[d] = to_pixel(axis[d], x[d]);
      if (relative) x[d] += multiply_add(step[d], V(p[d] - centre[d]), all<V>(origin[d]));
    }
  }

  template <class V>
  STN_HD void gradient(V (&g)[D]) const {
    for (int d = 0; d < D; ++d) g[d] *= axis[d].half;
  }
};

// The map of the values' derivatives: displacements move what is looked at, the points' own
// positions do not.
inline MapKind map_of_tangent(MapKind kind) {
  const FreeFacts facts = free_facts(kind);
  if (!facts.relative) return kind;
  return facts.in_pixels ? MapKind::pixel_grid : MapKind::grid;
}

// Packed: the components of a point, and the points of a row, lie next to each other (the usual
// grid), which lets rows be read as vectors.
template <class T, int D, class Element, bool Packed>
struct GridMap {
  static constexpr bool parametric = false;
  static constexpr bool monotonic = false;
  static constexpr bool linear = true;
  using coordinate_type = T;
  using element = Element;

  Reading<T, D> reading;
  const Element* data;
  int64_t stride[3], stride_k;

  STN_HD GridMap(const Warp& warp, int64_t n, const Reading<T, D>& r)
      : reading(r),
        data(static_cast<const Element*>(warp.data) + n * warp.stride_n),
        stride{warp.stride[0], warp.stride[1], warp.stride[2]},
        stride_k(warp.stride_k) {}

  // The first component of the value at p.
  STN_HD const Element* at(const int32_t (&p)[D]) const {
    int64_t row = 0;
    for (int d = 1; d < D; ++d) row += p[d] * stride[d];
    return data + row + (Packed ? int64_t(p[0]) * D : p[0] * stride[0]);
  }

  STN_HD void value(const int32_t (&p)[D], T (&x)[D]) const {
    const Element* from = at(p);
    for (int d = 0; d < D; ++d) x[d] = static_cast<T>(to_float(from[Packed ? d : d * stride_k]));
  }
};

}  // namespace STN_ISA
}  // namespace stn_cuda
