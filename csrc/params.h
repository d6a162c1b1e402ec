// What a kernel is told: plain structs of pointers, sizes and strides. No ATen here, so that the
// CPU and CUDA kernels, and the instruction-set specific translation units, stay free of torch.
//
// Spatial axes are indexed in coordinate order everywhere: 0 = x (width), 1 = y (height),
// 2 = z (depth). Strides count elements, not bytes. A broadcast batch has stride_n == 0.
#pragma once

#include <cstdint>

#include "maps.h"

namespace stn_cuda {

enum class Interpolation : int32_t { bilinear, nearest, bicubic };
enum class Padding : int32_t { zeros, border, reflection, wrap };
#define STN_ENUMERATOR(name, ...) name,
// Those of maps.h, and a chain of them (Chain).
enum class MapKind : int32_t {
  STN_FREE_MAPS(STN_ENUMERATOR) STN_PARAMETRIC_MAPS(STN_ENUMERATOR) chain
};
#undef STN_ENUMERATOR
// How looks move: not at all, as they do while the warp moves along a tangent, or by a pixel along
// an axis of the image.
enum class Direction : int32_t { none, tangent, axis };
enum class ElementType : int32_t { f32, f64, f16, bf16, u8 };

// Elements kept as raw bits: kernels convert them on load and store, arithmetic is in float.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
// Of images that are sampled: they have no derivatives, and no other kernel knows them.
struct Byte {
  uint8_t bits;
};

// An (N, C, [D,] H, W) tensor.
struct Image {
  void* data;
  ElementType type;
  int64_t batch;  // 1, or the batch of the call
  int64_t stride_n, stride_c;
  int64_t stride[3];
};

struct Chain;

// The tensor that a coordinate map reads (or its gradient): a free map's values (N, [Do,] Ho, Wo,
// dims) with stride_k along the coordinate components and stride[] along the output's axes, or a
// parametric map's contiguous parameters (N, rows, columns), which use stride_n only.
struct Warp {
  void* data;
  ElementType type;
  int64_t batch;  // 1, or the batch of the call
  int64_t stride_n, stride_k;
  int64_t stride[3];
  int32_t count;       // of a parametric map's parameters
  const Chain* chain;  // of a chain's field
};

// A chain, whose warp is a field of displacements (N, *size, dims): a point looks at the field
// where the projective map `inner` says (if there is none, it reads the field's value for itself),
// moves from there by what it finds, and looks at the input through the projective map `outer` (if
// there is one). The data of one that is not there are null. Derivatives' kernels know no chains.
struct Chain {
  Warp outer, inner;
  int64_t size[3];  // of the field
  // Whether displacements are normalised; else in pixels of the input, or behind an outer map in
  // the field's.
  bool normalized;
  Warp grad_outer, grad_inner;  // grad_warp only: written
};

struct SampleParams {
  int32_t dims;  // 2 or 3
  MapKind map;
  Interpolation interpolation;
  Padding padding[3];  // along each axis
  bool align_corners;
  bool deterministic;  // the caller asks for bitwise repeatable results (always so on CPU)
  int64_t batch, channels;
  int64_t input_size[3], output_size[3];
  Image input;   // sample, grad_warp: the image. splat: the image being accumulated (written).
  Image output;  // sample: written. splat, grad_warp: the values that flow back.
  Warp warp;
  Warp grad_warp;  // grad_warp only: written
  // grad_warp, of one channel: what flows back is 1, and output is written as sample does. The
  // result is called slopes: a free map's lie as its values, another one's are by the pixel
  // coordinates, shaped like a grid. (Only where the backend `keeps`.)
  bool keeps;
  // grad_warp of a map that is not free: read, unless its data are null, instead of the input. Of
  // one type with output; a component's in a row lie next to each other, as output's do.
  Warp slopes;
  // Along what derivatives are taken: of the values (sample_derivative), of what splat adds, of the
  // warp's gradient.
  Direction direction;
  Warp tangent;  // shaped like warp
  int32_t axis;
  // sample_derivative: written; the values, too, unless output.data is null. Without a direction,
  // the derivatives along each axis, axis_stride elements apart. Points lie as in output.
  Image derivative;
  int64_t axis_stride;
  // A value for each image and channel (stride[] does not count). If it is `around` the image,
  // sample has it in the place of zeros there, and cover adds to the output what that makes more;
  // else cover makes the output that of an image of it. No pixels are read for either. (What is
  // around bytes is in float32, and sample adds it before it rounds.)
  Image fill;
  bool around;
  // sample: written, unless its data are null: how much of each look lies inside, of one channel
  // for each warp. (Only where the backend `masks`.)
  Image mask;
};

// warp_grid writes a warp's normalised coordinates; its adjoint reduces a grid's gradient to the
// warp's parameters. With a tangent (Direction), both do so of what these do along it.
struct GridParams {
  int32_t dims;
  MapKind map;
  bool align_corners;
  int64_t batch;
  int64_t output_size[3];
  Warp warp;
  Direction direction;
  Warp tangent;    // shaped like warp
  Warp grid;       // warp_grid: written. Its adjoint: the grid's gradient, read.
  Warp grad_warp;  // the adjoint only: written
};

// The entry points of one device. Each takes checked parameters and returns when the work is done
// (CPU) or queued on the current stream (CUDA).
struct Backend {
  void (*sample)(const SampleParams&);
  void (*sample_derivative)(const SampleParams&);
  void (*cover)(const SampleParams&);
  void (*splat)(const SampleParams&);
  void (*grad_warp)(const SampleParams&);
  void (*warp_grid)(const GridParams&);
  void (*warp_grid_backward)(const GridParams&);
  // grad_warp and splat of the same values, images and warps; null where it takes the two of them.
  void (*gradients)(const SampleParams& to_warp, const SampleParams& to_image);
  bool masks;  // whether sample writes a mask
  bool keeps;  // whether grad_warp writes values, and reads slopes
};

// What maps.h says of the free maps.
struct FreeFacts {
  bool free;  // otherwise nothing is said
  bool in_pixels, relative;
};
constexpr FreeFacts free_facts(MapKind kind) {
#define STN_CASE(name, in_pixels, relative) \
  if (kind == MapKind::name) return {true, in_pixels, relative};
  STN_FREE_MAPS(STN_CASE)
#undef STN_CASE
  return {false, false, false};
}
constexpr bool is_free(MapKind kind) { return free_facts(kind).free; }
constexpr bool is_parametric(MapKind kind) { return !is_free(kind) && kind != MapKind::chain; }
// Whether where a point looks depends on where it stands in the output.
constexpr bool needs_position(MapKind kind) { return !is_free(kind) || free_facts(kind).relative; }

inline int64_t element_size(ElementType type) {
  if (type == ElementType::u8) return 1;
  return type == ElementType::f64 ? 8 : (type == ElementType::f32 ? 4 : 2);
}

// Whether what is around is added to the output once it is written.
inline bool is_covered_after(const SampleParams& p) {
  return p.around && p.input.type != ElementType::u8;
}

constexpr bool only_zeros(const SampleParams& p) {
  bool all = true;
  for (int d = 0; d < p.dims; ++d) all = all && p.padding[d] == Padding::zeros;
  return all;
}

inline bool any_wraps(const SampleParams& p) {
  bool any = false;
  for (int d = 0; d < p.dims; ++d) any = any || p.padding[d] == Padding::wrap;
  return any;
}

inline int64_t points(const int64_t (&size)[3], int dims) {
  return size[0] * size[1] * (dims == 3 ? size[2] : 1);
}

}  // namespace stn_cuda
