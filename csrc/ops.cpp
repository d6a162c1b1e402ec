// Every op's schema; and of those that sample, what happens before the kernels: checks, allocation,
// the choice of the device's backend. (What flows back: ops_back.cpp; grids: ops_grid.cpp.)
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "allocate.h"
#include "arguments.h"
#include "backend.h"
#include "direction.h"
#include "look.h"
#include "ops.h"
#include "sampling.h"

TORCH_LIBRARY(stn_cuda, m) {
  m.set_python_module("stn_cuda.ops");  // where the fake functions stand

  // output[n, c, p] = input[n, c] looked at where `warp` says for the output point p. map: of
  // maps.h, a free one, such as "grid" (warp: its values, (N, Ho, Wo, 2) or (N, Do, Ho, Wo, 3) of
  // any strides; size: empty, or theirs), or a parametric one (warp: its parameters, (N, rows,
  // columns); size: the output's spatial size).
  m.def(
      "sample(Tensor input, Tensor warp, str map, SymInt[] size, str mode, str padding_mode, "
      "bool align_corners) -> Tensor");
  // sample, and in the place of the zeros around image n `fill`, (N or 1, C): plus 1 minus the
  // weights of the pixels inside, times that.
  m.def(
      "sample_filled(Tensor input, Tensor warp, Tensor fill, str map, SymInt[] size, str mode, "
      "str padding_mode, bool align_corners) -> Tensor");
  // sample, or sample_filled, and how much of each point's look lies inside the image, (N of the
  // warp, 1, *size), whatever the padding: of a bilinear look, or of a nearest one.
  m.def(
      "sample_masked(Tensor input, Tensor warp, Tensor? fill, str map, SymInt[] size, str mode, "
      "str padding_mode, bool align_corners) -> (Tensor, Tensor)");
  // The adjoint of sample in input: an image of `shape` (N, C, *spatial) out of sample's values.
  m.def(
      "splat(Tensor values, Tensor warp, str map, SymInt[] shape, bool channels_last, str mode, "
      "str padding_mode, bool align_corners) -> Tensor");
  // The gradient of sample with respect to warp, which lies in memory as a free map's values do.
  m.def(
      "sample_grad_warp(Tensor grad, Tensor input, Tensor warp, str map, str mode, "
      "str padding_mode, bool align_corners) -> Tensor");
  // What these do along a direction: while the warp moves along `tangent`, shaped like it, or if
  // that is None, while every look moves by a pixel along an axis of the image (0 = x).
  m.def(
      "sample_derivative(Tensor input, Tensor warp, Tensor? tangent, int axis, str map, "
      "SymInt[] size, str mode, str padding_mode, bool align_corners) -> Tensor");
  m.def(
      "splat_derivative(Tensor values, Tensor warp, Tensor? tangent, int axis, str map, "
      "SymInt[] shape, bool channels_last, str mode, str padding_mode, bool align_corners) "
      "-> Tensor");
  m.def(
      "sample_grad_warp_derivative(Tensor grad, Tensor input, Tensor warp, Tensor? tangent, "
      "int axis, str map, str mode, str padding_mode, bool align_corners) -> Tensor");
  // In one pass: sample and its derivative along a tangent; sample and its derivatives along all
  // axes of the image, (N, C, dims, *size), x first.
  m.def(
      "sample_with_derivative(Tensor input, Tensor warp, Tensor tangent, str map, SymInt[] size, "
      "str mode, str padding_mode, bool align_corners) -> (Tensor, Tensor)");
  m.def(
      "sample_with_gradient(Tensor input, Tensor warp, str map, SymInt[] size, str mode, "
      "str padding_mode, bool align_corners) -> (Tensor, Tensor)");
  // A warp's normalised coordinates as a grid, and the adjoint.
  m.def("warp_grid(Tensor warp, str map, SymInt[] size, bool align_corners) -> Tensor");
  m.def("warp_grid_backward(Tensor grad, Tensor warp, str map, bool align_corners) -> Tensor");
  // What these do while the parameters move along `tangent`.
  m.def(
      "warp_grid_derivative(Tensor warp, Tensor tangent, str map, SymInt[] size, "
      "bool align_corners) -> Tensor");
  m.def(
      "warp_grid_backward_derivative(Tensor grad, Tensor warp, Tensor tangent, str map, "
      "bool align_corners) -> Tensor");
}

namespace stn_cuda {
namespace {

// Whether each plane of the image is one element in memory, such as one that is expanded. (Of
// bytes nobody asks.)
bool is_constant(const SampleParams& p) {
  bool same = p.input.type != ElementType::u8, several = false;
  for (int d = 0; d < p.dims; ++d) {
    if (p.input_size[d] == 1) continue;
    several = true;
    same = same && p.input.stride[d] == 0;
  }
  return same && several;
}

// What is around: the output is set.
void set_fill(SampleParams& p, const at::Tensor& fill) {
  p.fill.data = fill.data_ptr();
  p.fill.type = element_type(fill);
  p.fill.stride_n = fill.size(0) == 1 ? 0 : fill.stride(0);
  p.fill.stride_c = fill.stride(1);
  p.around = true;
}

// What sample writes besides.
void set_mask(SampleParams& p, const at::Tensor& input, const at::Tensor& warp,
              at::IntArrayRef output_shape, at::Tensor& mask) {
  std::vector<int64_t> shape = output_shape.vec();
  shape[0] = warp.size(0);
  shape[1] = 1;
  mask = empty_result(shape, input.options().dtype(mask_type(input)));
  p.mask = image_of(mask, shape[0]);
}

// (N, C, dims, *size) for an output of `shape`: each axis' part lies as such an image does.
at::Tensor empty_gradient(at::IntArrayRef shape, const at::Tensor& input) {
  const int64_t dims = static_cast<int64_t>(shape.size()) - 2;
  std::vector<int64_t> sizes{shape[0], shape[1], dims};
  sizes.insert(sizes.end(), shape.begin() + 2, shape.end());
  if (input.suggest_memory_format() == at::MemoryFormat::Contiguous) {
    return empty_result(sizes, input.options());
  }
  sizes.erase(sizes.begin() + 1);
  sizes.push_back(shape[1]);
  return empty_result(sizes, input.options()).movedim(-1, 1);
}

// fill: null, or (N or 1, C), what is around. mask: null, or what is made where the kernel writes
// it.
at::Tensor sample_of(const char* op, const at::Tensor& input, const at::Tensor& warp,
                     const at::Tensor* fill, c10::string_view map, at::IntArrayRef size,
                     c10::string_view mode, c10::string_view padding_mode, bool align_corners,
                     at::Tensor* mask = nullptr) {
  return look(op, false, input, warp, map, size, mode, padding_mode, align_corners,
              [&](const Backend& backend, SampleParams& p, at::IntArrayRef shape) {
                if (fill) check_fill(op, input, warp, *fill, padding_mode);
                at::Tensor output = empty_like_image(shape, input);
                if (output.numel() == 0) return output;
                p.output = image_of(output, p.batch);
                if (fill) set_fill(p, *fill);
                if (!is_constant(p)) {
                  if (mask && backend.masks) set_mask(p, input, warp, shape, *mask);
                  backend.sample(p);
                  return output;
                }
                SampleParams constant = p;
                constant.fill = p.input;
                constant.around = false;
                backend.cover(constant);
                if (fill) backend.cover(p);
                return output;
              });
}

at::Tensor sample(const at::Tensor& input, const at::Tensor& warp, c10::string_view map,
                  at::IntArrayRef size, c10::string_view mode, c10::string_view padding_mode,
                  bool align_corners) {
  return sample_of("sample", input, warp, nullptr, map, size, mode, padding_mode, align_corners);
}

at::Tensor sample_filled(const at::Tensor& input, const at::Tensor& warp, const at::Tensor& fill,
                         c10::string_view map, at::IntArrayRef size, c10::string_view mode,
                         c10::string_view padding_mode, bool align_corners) {
  return sample_of("sample_filled", input, warp, &fill, map, size, mode, padding_mode,
                   align_corners);
}

std::tuple<at::Tensor, at::Tensor> sample_masked(const at::Tensor& input, const at::Tensor& warp,
                                                 const std::optional<at::Tensor>& fill,
                                                 c10::string_view map, at::IntArrayRef size,
                                                 c10::string_view mode,
                                                 c10::string_view padding_mode,
                                                 bool align_corners) {
  at::Tensor mask;
  const at::Tensor output =
      sample_of(fill ? "sample_filled" : "sample", input, warp, fill ? &*fill : nullptr, map, size,
                mode, padding_mode, align_corners, &mask);
  if (!mask.defined()) {
    mask =
        sample(image_of_ones(input), warp, map, size, mode_of_mask(mode), "zeros", align_corners);
  }
  return std::make_tuple(output, mask);
}

at::Tensor sample_derivative(const at::Tensor& input, const at::Tensor& warp,
                             const std::optional<at::Tensor>& tangent, int64_t axis,
                             c10::string_view map, at::IntArrayRef size, c10::string_view mode,
                             c10::string_view padding_mode, bool align_corners) {
  const char* op = "sample_derivative";
  const Way way{tangent, axis};
  return look(op, true, input, warp, map, size, mode, padding_mode, align_corners,
              [&](const Backend& backend, SampleParams& p, at::IntArrayRef shape) {
                check_way(op, warp, &way, p.dims);
                at::Tensor derivative = empty_like_image(shape, input);
                if (derivative.numel() == 0) return derivative;
                if (p.interpolation == Interpolation::nearest) return derivative.zero_();
                at::Tensor direction;
                set_direction(p, &way, direction);
                p.derivative = image_of(derivative, p.batch);
                backend.sample_derivative(p);
                return derivative;
              });
}

// The values and a derivative, of which `image` is the part that lies like the values.
void look_with(const Backend& backend, SampleParams& p, const at::Tensor& output,
               const at::Tensor& derivative, const at::Tensor& image) {
  if (derivative.numel() == 0) return;
  p.output = image_of(output, p.batch);
  if (p.interpolation == Interpolation::nearest) {
    derivative.zero_();
    return backend.sample(p);
  }
  p.derivative = image_of(image, p.batch);
  backend.sample_derivative(p);
}

std::tuple<at::Tensor, at::Tensor> sample_with_derivative(
    const at::Tensor& input, const at::Tensor& warp, const at::Tensor& tangent,
    c10::string_view map, at::IntArrayRef size, c10::string_view mode,
    c10::string_view padding_mode, bool align_corners) {
  const char* op = "sample_with_derivative";
  const std::optional<at::Tensor> given(tangent);
  const Way way{given, -1};
  return look(op, true, input, warp, map, size, mode, padding_mode, align_corners,
              [&](const Backend& backend, SampleParams& p, at::IntArrayRef shape) {
                check_way(op, warp, &way, p.dims);
                at::Tensor output = empty_like_image(shape, input);
                at::Tensor derivative = empty_like_image(shape, input);
                at::Tensor direction;
                set_direction(p, &way, direction);
                look_with(backend, p, output, derivative, derivative);
                return std::make_tuple(output, derivative);
              });
}

std::tuple<at::Tensor, at::Tensor> sample_with_gradient(
    const at::Tensor& input, const at::Tensor& warp, c10::string_view map, at::IntArrayRef size,
    c10::string_view mode, c10::string_view padding_mode, bool align_corners) {
  return look("sample_with_gradient", true, input, warp, map, size, mode, padding_mode,
              align_corners, [&](const Backend& backend, SampleParams& p, at::IntArrayRef shape) {
                at::Tensor output = empty_like_image(shape, input);
                at::Tensor gradient = empty_gradient(shape, input);
                const at::Tensor along_x = gradient.select(2, 0);
                p.axis_stride = gradient.stride(2);
                look_with(backend, p, output, gradient, along_x);
                return std::make_tuple(output, gradient);
              });
}

}  // namespace
}  // namespace stn_cuda

#define STN_IMPLEMENT(KEY)                                              \
  TORCH_LIBRARY_IMPL(stn_cuda, KEY, m) {                                \
    m.impl("sample", stn_cuda::sample);                                 \
    m.impl("sample_filled", stn_cuda::sample_filled);                   \
    m.impl("sample_masked", stn_cuda::sample_masked);                   \
    m.impl("sample_derivative", stn_cuda::sample_derivative);           \
    m.impl("sample_with_derivative", stn_cuda::sample_with_derivative); \
    m.impl("sample_with_gradient", stn_cuda::sample_with_gradient);     \
  }

STN_FOR_EACH_KEY(STN_IMPLEMENT)
#undef STN_IMPLEMENT
