// Chains of a field of displacements and matrices (params.h): sample, and the gradients of its
// arguments. Not ops of torch's dispatcher: stn_cuda/_chains.py calls
// them where nothing but autograd looks on.
#include <ATen/SavedTensorHooks.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/graph_task.h>

#include "allocate.h"
#include "arguments.h"
#include "backend.h"
#include "checks.h"
#include "module.h"
#include "ops_kept.h"
#include "sampling.h"

namespace stn_cuda {
namespace {

using at::Tensor;
using Name = const std::string&;
using Size = const std::vector<int64_t>&;
using Matrix = const std::optional<Tensor>&;

// The parts of a chain. The matrices are (N, dims + 1, dims + 1), the field is (N, dims, *size);
// all are of one dtype, that of the coordinates.
struct Parts {
  Matrix outer;
  const Tensor& field;
  Matrix inner;
  bool normalized;
};

// What a chain's kernels are told, and the memory that they read. Stays where it was made.
struct ChainCall {
  SampleParams p;
  Chain chain{};
  int64_t warps;
  Tensor field, outer, inner;

  ChainCall(const char* op, const Tensor& image, const Parts& parts, Name mode, Name padding_mode,
            bool align_corners)
      : p(make_params(op, image, "flow", mode, padding_mode, align_corners)),
        warps(parts.field.size(0)),
        field(parts.field.movedim(1, -1)) {
    const auto read = [&](Matrix from, Tensor& matrix) {
      if (!from) return;
      matrix = from->contiguous();
      warps = std::max(warps, matrix.size(0));
    };
    read(parts.outer, outer);
    read(parts.inner, inner);
    if (outer.defined()) chain.outer = warp_of(outer, MapKind::projective, warps);
    if (inner.defined()) chain.inner = warp_of(inner, MapKind::projective, warps);
    chain.normalized = parts.normalized;
    copy_spatial(parts.field.sizes().slice(2), chain.size);
    p.map = MapKind::chain;
    p.batch = image.size(0) == 1 ? warps : image.size(0);
    p.warp = warp_of(field, MapKind::flow, warps);
    p.warp.batch = warps;
    p.warp.count = chain.outer.count + chain.inner.count;
    p.warp.chain = &chain;
  }
  ChainCall(const ChainCall&) = delete;
};

std::vector<int64_t> shape_of(int64_t batch, int64_t channels, at::IntArrayRef size) {
  std::vector<int64_t> shape{batch, channels};
  shape.insert(shape.end(), size.begin(), size.end());
  return shape;
}

// Whether sample writes slopes, too (as csrc/ops_kept.h), which become the displacements' gradient.
// Hooks of saved tensors may want to have these, which are not known to autograd.
bool can_keep(const Backend& backend, const SampleParams& p, int64_t warps) {
  return backend.keeps && p.channels == 1 && p.batch == warps &&
         p.interpolation != Interpolation::nearest &&
         !at::SavedTensorDefaultHooks::get_hooks().has_value();
}

// The values; and their slopes, (N, dims, *size), if a warp `wants_gradient` and they can be kept.
std::tuple<Tensor, std::optional<Tensor>> sample_chain(const Tensor& input, Matrix outer,
                                                       const Tensor& field, Matrix inner,
                                                       bool normalized, Size size, Name mode,
                                                       Name padding_mode, bool align_corners,
                                                       bool wants_gradient) {
  const char* op = "sample";
  const Tensor values = field.movedim(1, -1);
  check_sample(op, input, values, "flow", {}, mode, padding_mode);
  for (const auto* matrix : {&outer, &inner}) {
    if (!*matrix) continue;
    check_sample(op, input, **matrix, "projective", c10::fromIntArrayRefSlow(size), mode,
                 padding_mode);
  }
  ChainCall call(op, input, {outer, field, inner, normalized}, mode, padding_mode, align_corners);
  SampleParams& p = call.p;
  Tensor output = empty_like_image(shape_of(p.batch, p.channels, size), input);
  if (output.numel() == 0) return {output, std::nullopt};
  copy_spatial(input.sizes().slice(2), p.input_size);
  copy_spatial(size, p.output_size);
  p.input = image_of(input, p.batch);
  p.output = image_of(output, p.batch);
  const c10::OptionalDeviceGuard guard(input.device());
  const Backend& backend = backend_of(op, input);
  if (!wants_gradient || !can_keep(backend, p, call.warps)) {
    backend.sample(p);
    return {output, std::nullopt};
  }
  const Tensor slopes = empty_result(shape_of(call.warps, p.dims, size), field.options());
  p.grad_warp = warp_of(slopes.movedim(1, -1), MapKind::pixel_grid, call.warps);
  p.keeps = true;
  backend.grad_warp(p);
  return {output, slopes};
}

// The gradient of the image, of `shape`.
Tensor splat_chain(const Tensor& grad, Matrix outer, const Tensor& field, Matrix inner,
                   bool normalized, Size shape, bool channels_last, Name mode, Name padding_mode,
                   bool align_corners) {
  const char* op = "splat";
  ChainCall call(op, grad, {outer, field, inner, normalized}, mode, padding_mode, align_corners);
  SampleParams& p = call.p;
  p.batch = grad.size(0);
  const auto format = format_of(channels_last, p.dims);
  Tensor image = empty_result(shape, grad.options().memory_format(format));
  if (image.numel() == 0) return image;
  if (grad.numel() == 0) return image.zero_();
  const Tensor source = readable(grad, channels_last);
  copy_spatial(at::IntArrayRef(shape).slice(2), p.input_size);
  copy_spatial(grad.sizes().slice(2), p.output_size);
  p.input = image_of(image, p.batch);
  p.output = image_of(source, p.batch);
  const c10::OptionalDeviceGuard guard(grad.device());
  backend_of(op, grad).splat(p);
  return image;
}

// The gradients of the outer matrix, of the displacement of every output point, (N, dims, *size),
// and of the inner matrix, each for all warps. From slopes where there are any, in whose memory the
// displacements' gradient comes if they are `ours`.
std::tuple<std::optional<Tensor>, Tensor, std::optional<Tensor>> sample_grad_chain(
    const Tensor& grad, const Tensor& input, Matrix outer, const Tensor& field, Matrix inner,
    bool normalized, Name mode, Name padding_mode, bool align_corners,
    const std::optional<Tensor>& slopes, bool ours) {
  const char* op = "sample_grad_warp";
  ChainCall call(op, input, {outer, field, inner, normalized}, mode, padding_mode, align_corners);
  SampleParams& p = call.p;
  const int64_t order = p.dims + 1;
  const auto empty_matrix = [&](Matrix matrix, Warp& grad_matrix) -> std::optional<Tensor> {
    if (!matrix) return std::nullopt;
    Tensor result = at::zeros({call.warps, order, order}, field.options());
    grad_matrix = warp_of(result, MapKind::projective, call.warps);
    return result;
  };
  const auto grad_outer = empty_matrix(outer, call.chain.grad_outer);
  const auto grad_inner = empty_matrix(inner, call.chain.grad_inner);
  const Tensor moved =
      slopes && ours
          ? *slopes
          : empty_result(shape_of(call.warps, p.dims, grad.sizes().slice(2)), field.options());
  if (moved.numel() > 0) {
    // A step function's derivative; and a sum over nothing.
    if (p.interpolation == Interpolation::nearest || grad.numel() == 0) {
      moved.zero_();
    } else {
      const bool channels_last = input.suggest_memory_format() != at::MemoryFormat::Contiguous;
      const Tensor source =
          slopes ? grad.to(slopes->scalar_type()).contiguous() : readable(grad, channels_last);
      if (slopes) p.slopes = warp_of(slopes->movedim(1, -1), MapKind::pixel_grid, call.warps);
      copy_spatial(input.sizes().slice(2), p.input_size);
      copy_spatial(grad.sizes().slice(2), p.output_size);
      p.input = image_of(input, p.batch);
      p.output = image_of(source, p.batch);
      p.grad_warp = warp_of(moved.movedim(1, -1), MapKind::grid, call.warps);
      const c10::OptionalDeviceGuard guard(input.device());
      backend_of(op, input).grad_warp(p);
    }
  }
  return {grad_outer, moved, grad_inner};
}

[[maybe_unused]] const bool added = add_to_module([](pybind11::module_& m) {
  define(m, "sample_chain", sample_chain);
  define(m, "splat_chain", splat_chain);
  define(m, "sample_grad_chain", sample_grad_chain);
  define(m, "is_plain", is_plain);
  define(m, "graph_is_kept", torch::autograd::get_current_graph_task_keep_graph);
});

}  // namespace
}  // namespace stn_cuda
