// The coordinate maps. A map answers two questions about points p of the output:
//   where do they look, and what does the gradient g of that coordinate do?
// Parametric maps compute both, for a value type V (math/lanes.h):
//   coordinate(p, x)     in the input's pixel coordinates (warp_grid: normalised ones)
//   accumulate(p, g, s)  the point's part of the sums from which finish(k, s[k]) makes the gradient
//                        of parameter k
// A map that is not linear in its parameters also says what these do while the parameters move as
// `tangent`, the same map of their derivatives, in tangent_frame:
//   move(p, tangent, x)     the derivative of the coordinates
//   bend(p, tangent, g, s)  the derivative of accumulate, adding up
// A map of which only a call knows how many parameters it has is `grouped`: accumulate and bend
// take one of its groups() of sums more, and place(group, j) is the parameter of a group's sum j.
// Free maps, such as a grid, hold a value per point, in memory: free_map.h.
// A new warp is a new functor, here or in a header of its own, and a line in maps.h.
#pragma once

#include "math/boundary.h"
#include "math/element.h"

namespace stn_cuda {
inline namespace STN_ISA {

// The input's side of a map: what a normalised unit is worth along each axis.
template <class T, int D>
struct Frame {
  Axis<T> axis[D];
  T extent[D];  // of the normalised interval [-1, 1]
  T centre[D];  // of the normalised 0
};

template <class T, int D>
STN_HD Frame<T, D> pixel_frame(const int64_t (&size)[3], bool align_corners,
                               const Padding (&padding)[3]) {
  Frame<T, D> frame;
  for (int d = 0; d < D; ++d) {
    frame.axis[d] = make_axis<T>(size[d], align_corners, padding[d]);
    frame.extent[d] = 2 * frame.axis[d].half;
    frame.centre[d] = frame.axis[d].last / 2;
  }
  return frame;
}

template <class T, int D>
STN_HD Frame<T, D> pixel_frame(const SampleParams& p) {
  return pixel_frame<T, D>(p.input_size, p.align_corners, p.padding);
}

// The frame of warp_grid: coordinates stay normalised.
template <class T, int D>
STN_HD Frame<T, D> normalised_frame() {
  Frame<T, D> frame{};
  for (int d = 0; d < D; ++d) {
    frame.extent[d] = T(2);
    frame.centre[d] = T(0);
  }
  return frame;
}

// The frame of a map of derivatives: where a point's look moves as a linear map's values or
// parameters do. A derivative has no offset.
template <class T, int D>
STN_HD Frame<T, D> tangent_frame(Frame<T, D> frame) {
  for (int d = 0; d < D; ++d) {
    frame.axis[d].shift = frame.axis[d].offset = T(0);
    frame.centre[d] = T(0);
  }
  return frame;
}

template <class T, class Element>
STN_HD T load_as(const void* data, int64_t i) {
  return static_cast<T>(to_float(static_cast<const Element*>(data)[i]));
}

template <class T>
STN_HD T load_as(const void* data, ElementType type, int64_t i) {
  switch (type) {
    case ElementType::f32:
      return load_as<T, float>(data, i);
    case ElementType::f64:
      return load_as<T, double>(data, i);
    case ElementType::f16:
      return load_as<T, Half>(data, i);
    default:
      return load_as<T, BFloat16>(data, i);
  }
}

template <class T>
STN_HD void store_as(void* data, ElementType type, int64_t i, T x) {
  switch (type) {
    case ElementType::f32:
      static_cast<float*>(data)[i] = Rounded<float>::from(x);
      return;
    case ElementType::f64:
      static_cast<double*>(data)[i] = Rounded<double>::from(x);
      return;
    case ElementType::f16:
      static_cast<Half*>(data)[i] = Rounded<Half>::from(static_cast<float>(x));
      return;
    default:
      static_cast<BFloat16*>(data)[i] = Rounded<BFloat16>::from(static_cast<float>(x));
  }
}

// What lies between neighbouring points of the output under the identity. A single point with
// align_corners lies at the centre, whatever the map.
template <class T>
STN_HD T spacing(T extent, int64_t output_size, bool align_corners) {
  const int64_t steps = align_corners ? output_size - 1 : output_size;
  return steps > 0 ? extent / static_cast<T>(steps) : T(0);
}

// theta (Jaderberg et al. 2015, eq. 1): normalised input = theta * (normalised output, 1).
// Written about the centres, pixel = offset + matrix * (p - centre), which is exact for the
// identity: an output pixel of an equally large image looks at precisely its own pixel.
template <class T, int D>
struct AffineMap {
  static constexpr bool parametric = true;
  static constexpr bool monotonic = true;  // each coordinate, along rows of points and across them
  static constexpr bool linear = true;     // in its parameters
  static constexpr bool grouped = false;
  static constexpr int most_dims = 3;
  static constexpr int rows = D, columns = D + 1, sums = rows * columns;
  using coordinate_type = T;

  T matrix[D][D], offset[D], centre[D];
  T scale[D][D], half[D];  // d matrix / d theta, d offset / d theta

  // first: of theta among the parameters.
  STN_HD AffineMap(const Warp& warp, int64_t n, const Frame<T, D>& frame,
                   const int64_t (&output_size)[3], bool align_corners, int64_t first = 0) {
    for (int r = 0; r < D; ++r) {
      const int64_t row = n * warp.stride_n + first + r * (D + 1);
      for (int c = 0; c < D; ++c) {
        scale[r][c] = spacing(frame.extent[r], output_size[c], align_corners);
        matrix[r][c] = load_as<T>(warp.data, warp.type, row + c) * scale[r][c];
      }
      half[r] = frame.extent[r] / 2;
      offset[r] = multiply_add(half[r], load_as<T>(warp.data, warp.type, row + D), frame.centre[r]);
      centre[r] = static_cast<T>(output_size[r] - 1) / 2;
    }
  }

  template <class V>
  STN_HD void coordinate(const V (&p)[D], V (&x)[D]) const {
    for (int r = 0; r < D; ++r) {
      V sum = all<V>(offset[r]);
      for (int c = D - 1; c >= 0; --c) sum = multiply_add(matrix[r][c], V(p[c] - centre[c]), sum);
      x[r] = sum;
    }
  }

  template <class V>
  STN_HD void accumulate(const V (&p)[D], const V (&g)[D], V (&s)[sums]) const {
    for (int r = 0; r < D; ++r) accumulate_row(p, g[r], s + r * (D + 1));
  }

  // One row's part.
  template <class V>
  STN_HD void accumulate_row(const V (&p)[D], V g, V* s) const {
    for (int c = 0; c < D; ++c) s[c] += g * (p[c] - centre[c]);
    s[D] += g;
  }

  // The gradient of parameter k from its sum.
  template <class S>
  STN_HD S finish(int k, S sum) const {
    const int r = k / (D + 1), c = k % (D + 1);
    return sum * static_cast<S>(c == D ? half[r] : scale[r][c < D ? c : 0]);
  }
};

// A homography (Hartley and Zisserman 2004, eq. 2.6): (normalised input, 1) ~ theta * (normalised
// output, 1). Written about the centres as the affine map is, and exact for the identity. Points at
// the horizon and behind it, where the last row's product is not positive, look far outside of the
// image, at the side to which those in front of it tend, and move with nothing.
template <class T, int D>
struct ProjectiveMap {
  static constexpr bool parametric = true;
  static constexpr bool monotonic = true;  // in front of the horizon, and nothing is seen behind
  static constexpr bool linear = false;
  static constexpr bool grouped = false;
  static constexpr int most_dims = 3;
  static constexpr int rows = D + 1, columns = D + 1, sums = rows * columns;
  using coordinate_type = T;

  T matrix[D + 1][D + 1], origin[D], centre[D];
  T scale[D + 1][D + 1];  // d matrix / d theta
  T horizon;              // up to where a product of the last row is 0 but for rounding

  STN_HD ProjectiveMap(const Warp& warp, int64_t n, const Frame<T, D>& frame,
                       const int64_t (&output_size)[3], bool align_corners) {
    horizon = T(0);
    for (int c = 0; c <= D; ++c) {
      if (c < D) origin[c] = static_cast<T>(output_size[c] - 1) / 2;
      for (int r = 0; r <= D; ++r) {
        const T unit = r == D ? T(2) : frame.extent[r];
        scale[r][c] = c == D ? unit / 2 : spacing(unit, output_size[c], align_corners);
        const int64_t k = n * warp.stride_n + r * (D + 1) + c;
        matrix[r][c] = load_as<T>(warp.data, warp.type, k) * scale[r][c];
      }
      horizon += absolute(matrix[D][c]) * (c == D ? T(1) : origin[c]);
    }
    horizon *= 8 * (sizeof(T) == 8 ? T(1.1102230246251565e-16) : T(5.9604645e-8));
    for (int r = 0; r < D; ++r) centre[r] = frame.centre[r];
  }

  // The homogeneous pixel coordinates about the centres.
  template <class V>
  STN_HD void homogeneous(const V (&p)[D], V (&h)[D + 1]) const {
    for (int r = 0; r <= D; ++r) {
      h[r] = all<V>(matrix[r][D]);
      for (int c = D - 1; c >= 0; --c) h[r] = multiply_add(matrix[r][c], V(p[c] - origin[c]), h[r]);
    }
  }

  // The same, and what the coordinates are made of: 1 / the last one, 0 where nothing moves.
  template <class V>
  STN_HD V divisor(const V (&p)[D], V (&h)[D + 1]) const {
    homogeneous(p, h);
    return h[D] > horizon ? V(1 / h[D]) : V{};
  }

  template <class V>
  STN_HD void coordinate(const V (&p)[D], V (&x)[D]) const {
    V h[D + 1];
    const V inverse = divisor(p, h);
    const V far = all<V>(coordinate_limit<T>());
    for (int r = 0; r < D; ++r) {
      const V outside = h[r] < 0 ? V(-far) : far;
      const V otherwise = h[D] == h[D] ? outside : h[D];  // NaN stays NaN
      x[r] = h[D] > horizon ? V(h[r] * inverse + centre[r]) : otherwise;
    }
  }

  template <class V>
  STN_HD void accumulate(const V (&p)[D], const V (&g)[D], V (&s)[sums]) const {
    V h[D + 1], part[D + 1];
    const V inverse = divisor(p, h);
    part[D] = V{};
    for (int r = 0; r < D; ++r) {
      part[r] = g[r] * inverse;
      part[D] -= part[r] * numbers_of(V(h[r] * inverse));
    }
    add_products(p, part, s);
  }

  // The gradient of the point itself.
  template <class V>
  STN_HD void pull(const V (&p)[D], const V (&g)[D], V (&pulled)[D]) const {
    V h[D + 1];
    const V inverse = divisor(p, h);
    for (int c = 0; c < D; ++c) pulled[c] = V{};
    for (int r = 0; r < D; ++r) {
      const V part = g[r] * inverse, last = part * numbers_of(V(h[r] * inverse));
      for (int c = 0; c < D; ++c) pulled[c] += part * matrix[r][c] - last * matrix[D][c];
    }
  }

  template <class V>
  STN_HD void move(const V (&p)[D], const ProjectiveMap& tangent, V (&x)[D]) const {
    V h[D + 1], moved[D + 1];
    const V inverse = divisor(p, h);
    tangent.homogeneous(p, moved);
    for (int r = 0; r < D; ++r) x[r] = (moved[r] - h[r] * inverse * moved[D]) * inverse;
  }

  template <class V>
  STN_HD void bend(const V (&p)[D], const ProjectiveMap& tangent, const V (&g)[D],
                   V (&s)[sums]) const {
    V h[D + 1], moved[D + 1], part[D + 1], x[D];
    const V inverse = divisor(p, h);
    tangent.homogeneous(p, moved);
    move(p, tangent, x);
    part[D] = V{};
    for (int r = 0; r < D; ++r) {
      part[r] = -g[r] * inverse * (moved[D] * inverse);
      part[D] -= part[r] * (h[r] * inverse) + g[r] * inverse * x[r];
    }
    add_products(p, part, s);
  }

  // The gradient of parameter k from its sum.
  template <class S>
  STN_HD S finish(int k, S sum) const {
    return sum * static_cast<S>(scale[k / (D + 1)][k % (D + 1)]);
  }

 private:
  // 0 for NaN, the look of a matrix that is NaN, whose gradient is 0.
  template <class V>
  STN_HD static V numbers_of(V x) {
    return x == x ? x : V{};
  }

  template <class V>
  STN_HD void add_products(const V (&p)[D], const V (&part)[D + 1], V (&s)[sums]) const {
    for (int r = 0; r <= D; ++r) {
      for (int c = 0; c < D; ++c) s[r * (D + 1) + c] += part[r] * (p[c] - origin[c]);
      s[r * (D + 1) + D] += part[r];
    }
  }
};

// How the coordinates of a map that is not linear move with its parameters, as a map.
template <class Map>
struct Moving {
  const Map &map, &tangent;

  template <class V, int D>
  STN_HD void coordinate(const V (&p)[D], V (&x)[D]) const {
    map.move(p, tangent, x);
  }
};

// How its sums do.
template <class Map>
struct Bending {
  static constexpr bool grouped = Map::grouped;
  static constexpr int sums = Map::sums;
  using coordinate_type = typename Map::coordinate_type;
  const Map &map, &tangent;

  STN_HD int groups() const { return map.groups(); }
  STN_HD int place(int group, int j) const { return map.place(group, j); }

  template <class V, int D, class... Group>
  STN_HD void accumulate(const V (&p)[D], const V (&g)[D], V (&s)[sums], Group... group) const {
    map.bend(p, tangent, g, s, group...);
  }
};

}  // namespace STN_ISA
}  // namespace stn_cuda
