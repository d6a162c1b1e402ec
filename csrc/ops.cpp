// Every op: its schema, and what happens before the kernels: checks, allocation, the choice of
// the device's backend.
#include "ops.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <torch/library.h>

#include <map>

#include "arguments.h"
#include "backend.h"

TORCH_LIBRARY(stn_cuda, m) {
  m.set_python_module("stn_cuda.ops");  // where the fake functions and autograd formulas stand

  // output[n, c, p] = input[n, c] looked at where `warp` says for the output point p. map: "grid"
  // (warp: (N, Ho, Wo, 2) or (N, Do, Ho, Wo, 3), normalised; size: empty) or "affine" (warp: theta,
  // (N, 2, 3) or (N, 3, 4); size: the output's spatial size).
  m.def(
      "sample(Tensor input, Tensor warp, str map, SymInt[] size, str mode, str padding_mode, "
      "bool align_corners) -> Tensor");
  // The adjoint of sample in input: an image of `shape` (N, C, *spatial) out of sample's values.
  m.def(
      "splat(Tensor values, Tensor warp, str map, SymInt[] shape, bool channels_last, str mode, "
      "str padding_mode, bool align_corners) -> Tensor");
  // The gradient of sample with respect to warp.
  m.def(
      "sample_grad_warp(Tensor grad, Tensor input, Tensor warp, str map, str mode, "
      "str padding_mode, bool align_corners) -> Tensor");
  // A warp's normalised coordinates as a grid, and the adjoint.
  m.def("warp_grid(Tensor warp, str map, SymInt[] size, bool align_corners) -> Tensor");
  m.def("warp_grid_backward(Tensor grad, Tensor warp, str map, bool align_corners) -> Tensor");
}

namespace stn_cuda {
namespace {

std::map<c10::DeviceType, Backend>& backends() {
  static std::map<c10::DeviceType, Backend> all;
  return all;
}

const Backend& backend_of(const char* op, const at::Tensor& tensor) {
  const auto found = backends().find(tensor.device().type());
  TORCH_CHECK(found != backends().end(), op, ": input must be on a device that this build of ",
              "stn_cuda has kernels for, got ", tensor.device(),
              "; for CUDA rebuild with STN_CUDA_BUILD=cuda (see stn_cuda.build_info())");
  return found->second;
}

void copy_spatial(at::IntArrayRef shape, int64_t (&size)[3]) {
  for (int64_t& extent : size) extent = 1;
  for (size_t d = 0; d < shape.size(); ++d) size[d] = shape[shape.size() - 1 - d];
}

at::MemoryFormat format_of(bool channels_last, int64_t dims) {
  if (!channels_last) return at::MemoryFormat::Contiguous;
  return dims == 2 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::ChannelsLast3d;
}

// What sample, splat and sample_grad_warp have in common.
SampleParams make_params(const char* op, c10::string_view map, c10::string_view mode,
                         c10::string_view padding_mode, bool align_corners, int64_t dims) {
  SampleParams p{};
  p.dims = static_cast<int32_t>(dims);
  p.map = parse_map(op, map);
  p.interpolation = parse_mode(op, mode);
  p.padding = parse_padding(op, padding_mode);
  p.align_corners = align_corners;
  p.deterministic = at::globalContext().deterministicAlgorithms();
  check_mode_dims(op, p.interpolation, dims);
  return p;
}

// Flowing back: the values at the output points, in a layout that the kernels read.
at::Tensor readable(const at::Tensor& values, bool channels_last) {
  const auto format = format_of(channels_last, values.dim() - 2);
  if (channels_last && values.size(1) > 1 && values.stride(1) != 1) {
    return values.contiguous(format);
  }
  return has_linear_points(values) ? values : values.contiguous(format);
}

}  // namespace

bool register_backend(c10::DeviceType device, const Backend& backend) {
  return backends().emplace(device, backend).second;
}

at::Tensor sample(const at::Tensor& input, const at::Tensor& warp, c10::string_view map,
                  at::IntArrayRef size, c10::string_view mode, c10::string_view padding_mode,
                  bool align_corners) {
  const char* op = "sample";
  check_image(op, "input", input);
  const int64_t dims = input.dim() - 2;
  SampleParams p = make_params(op, map, mode, padding_mode, align_corners, dims);
  check_warp(op, warp, p.map, dims, input);
  p.batch = broadcast_batch(op, input, warp);
  check_spatial(op, "input", input.sizes());
  const bool grid = p.map == MapKind::grid;
  TORCH_CHECK_VALUE(!grid || size.empty(), op,
                    ": size must be None with a grid, whose own size it is, got ",
                    shape_text(size));
  const at::IntArrayRef output_size = grid ? warp.sizes().slice(1, dims) : size;
  check_size(op, output_size, dims);
  const Backend& backend = backend_of(op, input);

  p.channels = input.size(1);
  std::vector<int64_t> shape{p.batch, p.channels};
  shape.insert(shape.end(), output_size.begin(), output_size.end());
  at::Tensor output =
      at::empty(shape, input.options().memory_format(input.suggest_memory_format()));
  if (output.numel() == 0) return output;
  copy_spatial(input.sizes().slice(2), p.input_size);
  copy_spatial(output_size, p.output_size);
  const at::Tensor parameters = grid ? warp : warp.contiguous();
  p.input = image_of(input, p.batch);
  p.output = image_of(output, p.batch);
  p.warp = warp_of(parameters, p.map, p.batch);
  backend.sample(p);
  return output;
}

at::Tensor splat(const at::Tensor& values, const at::Tensor& warp, c10::string_view map,
                 at::IntArrayRef shape, bool channels_last, c10::string_view mode,
                 c10::string_view padding_mode, bool align_corners) {
  const char* op = "splat";
  check_image(op, "values", values);
  const int64_t dims = values.dim() - 2;
  SampleParams p = make_params(op, map, mode, padding_mode, align_corners, dims);
  check_warp(op, warp, p.map, dims, values);
  p.batch = values.size(0);
  p.channels = values.size(1);
  TORCH_CHECK_VALUE(static_cast<int64_t>(shape.size()) == dims + 2 && shape[1] == p.channels &&
                        (shape[0] == p.batch || shape[0] == 1),
                    op, ": shape must be (N or 1, C, *spatial size) for values of shape ",
                    shape_text(values.sizes()), ", got ", shape_text(shape));
  TORCH_CHECK(warp.size(0) == p.batch || warp.size(0) == 1, op,
              ": warp must have batch size 1 or that of values, ", p.batch, ", got ",
              warp.size(0));
  TORCH_CHECK(p.map != MapKind::grid ||
                  warp.sizes().slice(1, dims) == values.sizes().slice(2),
              op, ": values must have the grid's spatial size ",
              shape_text(warp.sizes().slice(1, dims)), ", got ",
              shape_text(values.sizes().slice(2)));
  check_spatial(op, "shape", shape);
  const Backend& backend = backend_of(op, values);

  const auto format = format_of(channels_last, dims);
  at::Tensor image = at::empty(shape, values.options().memory_format(format));
  if (image.numel() == 0) return image;
  if (values.numel() == 0) return image.zero_();
  copy_spatial(shape.slice(2), p.input_size);
  copy_spatial(values.sizes().slice(2), p.output_size);
  const at::Tensor source = readable(values, channels_last);
  const at::Tensor parameters = p.map == MapKind::grid ? warp : warp.contiguous();
  p.input = image_of(image, p.batch);
  p.output = image_of(source, p.batch);
  p.warp = warp_of(parameters, p.map, p.batch);
  backend.splat(p);
  return image;
}

at::Tensor sample_grad_warp(const at::Tensor& grad, const at::Tensor& input,
                            const at::Tensor& warp, c10::string_view map, c10::string_view mode,
                            c10::string_view padding_mode, bool align_corners) {
  const char* op = "sample_grad_warp";
  check_image(op, "grad", grad);
  check_image(op, "input", input);
  const int64_t dims = input.dim() - 2;
  SampleParams p = make_params(op, map, mode, padding_mode, align_corners, dims);
  check_warp(op, warp, p.map, dims, input);
  check_same_device(op, "grad", grad, "input", input);
  p.batch = broadcast_batch(op, input, warp);
  p.channels = input.size(1);
  TORCH_CHECK(grad.dim() == dims + 2 && grad.size(0) == p.batch && grad.size(1) == p.channels &&
                  grad.scalar_type() == input.scalar_type(),
              op, ": grad must be ", dims + 2, "-D with batch ", p.batch, ", ", p.channels,
              " channels and dtype ", input.scalar_type(), ", got shape ",
              shape_text(grad.sizes()), " and dtype ", grad.scalar_type());
  TORCH_CHECK(p.map != MapKind::grid || warp.sizes().slice(1, dims) == grad.sizes().slice(2), op,
              ": grad must have the grid's spatial size ",
              shape_text(warp.sizes().slice(1, dims)), ", got ",
              shape_text(grad.sizes().slice(2)));
  check_spatial(op, "input", input.sizes());
  const Backend& backend = backend_of(op, input);

  at::Tensor grad_warp = at::empty(warp.sizes(), warp.options());
  if (grad_warp.numel() == 0) return grad_warp;
  // A step function's derivative; and a sum over nothing.
  if (p.interpolation == Interpolation::nearest || grad.numel() == 0) return grad_warp.zero_();
  copy_spatial(input.sizes().slice(2), p.input_size);
  copy_spatial(grad.sizes().slice(2), p.output_size);
  const bool channels_last =
      input.suggest_memory_format() != at::MemoryFormat::Contiguous;
  const at::Tensor source = readable(grad, channels_last);
  const at::Tensor parameters = p.map == MapKind::grid ? warp : warp.contiguous();
  p.input = image_of(input, p.batch);
  p.output = image_of(source, p.batch);
  p.warp = warp_of(parameters, p.map, p.batch);
  p.grad_warp = warp_of(grad_warp, p.map, p.batch);
  backend.grad_warp(p);
  return grad_warp;
}

at::Tensor warp_grid(const at::Tensor& warp, c10::string_view map, at::IntArrayRef size,
                     bool align_corners) {
  const char* op = "warp_grid";
  GridParams p{};
  p.map = parse_map(op, map);
  p.dims = static_cast<int32_t>(size.size());
  TORCH_CHECK_VALUE(p.dims == 2 || p.dims == 3, op, ": size must be (H, W) or (D, H, W), got ",
                    shape_text(size));
  check_size(op, size, p.dims);
  TORCH_CHECK_VALUE(p.map != MapKind::grid, op, ": map must be a parametric one, got 'grid'");
  check_warp(op, warp, p.map, p.dims, {});
  const Backend& backend = backend_of(op, warp);

  p.align_corners = align_corners;
  p.batch = warp.size(0);
  std::vector<int64_t> shape{p.batch};
  shape.insert(shape.end(), size.begin(), size.end());
  shape.push_back(p.dims);
  at::Tensor grid = at::empty(shape, warp.options());
  if (grid.numel() == 0) return grid;
  copy_spatial(size, p.output_size);
  const at::Tensor parameters = warp.contiguous();
  p.warp = warp_of(parameters, p.map, p.batch);
  p.grid = warp_of(grid, MapKind::grid, p.batch);
  backend.warp_grid(p);
  return grid;
}

at::Tensor warp_grid_backward(const at::Tensor& grad, const at::Tensor& warp, c10::string_view map,
                              bool align_corners) {
  const char* op = "warp_grid_backward";
  GridParams p{};
  p.map = parse_map(op, map);
  const int64_t dims = grad.dim() - 2;
  p.dims = static_cast<int32_t>(dims);
  TORCH_CHECK_VALUE(p.map != MapKind::grid, op, ": map must be a parametric one, got 'grid'");
  TORCH_CHECK((dims == 2 || dims == 3) && grad.size(-1) == dims &&
                  grad.scalar_type() == warp.scalar_type(),
              op, ": grad must be (N, *size, dims) of dtype ", warp.scalar_type(),
              ", got shape ", shape_text(grad.sizes()), " and dtype ", grad.scalar_type());
  check_warp(op, warp, p.map, dims, grad);
  TORCH_CHECK(warp.size(0) == grad.size(0), op, ": grad must have theta's batch size ",
              warp.size(0), ", got ", grad.size(0));
  const Backend& backend = backend_of(op, grad);

  p.align_corners = align_corners;
  p.batch = grad.size(0);
  at::Tensor grad_warp = at::empty(warp.sizes(), warp.options());
  if (grad_warp.numel() == 0) return grad_warp;
  if (grad.numel() == 0) return grad_warp.zero_();
  copy_spatial(grad.sizes().slice(1, dims), p.output_size);
  const at::Tensor parameters = warp.contiguous();
  p.warp = warp_of(parameters, p.map, p.batch);
  p.grid = warp_of(grad, MapKind::grid, p.batch);
  p.grad_warp = warp_of(grad_warp, p.map, p.batch);
  backend.warp_grid_backward(p);
  return grad_warp;
}

}  // namespace stn_cuda

// The same functions for every device: backend_of finds the kernels, or says what is missing.
#define STN_IMPLEMENT(m)                                      \
  m.impl("sample", stn_cuda::sample);                         \
  m.impl("splat", stn_cuda::splat);                           \
  m.impl("sample_grad_warp", stn_cuda::sample_grad_warp);     \
  m.impl("warp_grid", stn_cuda::warp_grid);                   \
  m.impl("warp_grid_backward", stn_cuda::warp_grid_backward)

TORCH_LIBRARY_IMPL(stn_cuda, CPU, m) { STN_IMPLEMENT(m); }
TORCH_LIBRARY_IMPL(stn_cuda, CUDA, m) { STN_IMPLEMENT(m); }
