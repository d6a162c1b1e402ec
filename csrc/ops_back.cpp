// The ops that take what flows back to sample's arguments: splat, to the input, and
// sample_grad_warp, to the warp.
#include "ops_back.h"

#include <ATen/record_function.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "allocate.h"
#include "backend.h"
#include "direction.h"
#include "sampling.h"

namespace stn_cuda {
namespace {

// What a kernel is told, and what it reads; or the result alone, if that is all.
struct Flow {
  at::Tensor result;
  at::Tensor values, parameters, direction;
  SampleParams p;
  bool wanted = false;

  at::Tensor run(void (*kernel)(const SampleParams&)) const {
    if (wanted) {
      const c10::OptionalDeviceGuard guard(result.device());
      kernel(p);
    }
    return result;
  }
};

// What both ways have in common.
void begin_at(Flow& flow, const at::Tensor& values, const at::Tensor& warp, const Way* way) {
  SampleParams& p = flow.p;
  copy_spatial(values.sizes().slice(2), p.output_size);
  flow.values = values;
  flow.parameters = readable_warp(warp, p.map);
  p.output = image_of(flow.values, p.batch);
  p.warp = warp_of(flow.parameters, p.map, p.batch);
  set_direction(p, way, flow.direction);
  flow.wanted = true;
}

// The arguments are checked. `values` are readable.
Flow to_image(const char* op, const at::Tensor& values, const at::Tensor& warp, const Way* way,
              c10::string_view map, at::IntArrayRef shape, bool channels_last,
              c10::string_view mode, c10::string_view padding_mode, bool align_corners) {
  Flow flow;
  SampleParams& p = flow.p = make_params(op, values, map, mode, padding_mode, align_corners);
  p.batch = values.size(0);
  const auto format = format_of(channels_last, p.dims);
  flow.result = empty_result(shape, values.options().memory_format(format));
  if (flow.result.numel() == 0) return flow;
  const bool step = p.interpolation == Interpolation::nearest && way;
  if (values.numel() == 0 || step) {
    flow.result.zero_();
    return flow;
  }
  copy_spatial(shape.slice(2), p.input_size);
  p.input = image_of(flow.result, p.batch);
  begin_at(flow, values, warp, way);
  return flow;
}

Flow to_warp(const char* op, const at::Tensor& values, const at::Tensor& input,
             const at::Tensor& warp, const Way* way, c10::string_view map, c10::string_view mode,
             c10::string_view padding_mode, bool align_corners) {
  Flow flow;
  SampleParams& p = flow.p = make_params(op, input, map, mode, padding_mode, align_corners);
  p.batch = broadcast_batch(input, warp);
  flow.result = empty_grad_warp(warp, p.map);
  if (flow.result.numel() == 0) return flow;
  // A step function's derivative; and a sum over nothing.
  if (p.interpolation == Interpolation::nearest || values.numel() == 0) {
    flow.result.zero_();
    return flow;
  }
  copy_spatial(input.sizes().slice(2), p.input_size);
  p.input = image_of(input, p.batch);
  p.grad_warp = warp_of(flow.result, p.map, p.batch);
  begin_at(flow, values, warp, way);
  return flow;
}

at::Tensor splat_along(const char* op, const at::Tensor& values, const at::Tensor& warp,
                       const Way* way, c10::string_view map, at::IntArrayRef shape,
                       bool channels_last, c10::string_view mode, c10::string_view padding_mode,
                       bool align_corners) {
  check_splat(op, values, warp, map, c10::fromIntArrayRefSlow(shape), mode, padding_mode);
  check_way(op, warp, way, values.dim() - 2);
  const Backend& backend = backend_of(op, values);
  return to_image(op, readable(values, channels_last), warp, way, map, shape, channels_last, mode,
                  padding_mode, align_corners)
      .run(backend.splat);
}

at::Tensor splat(const at::Tensor& values, const at::Tensor& warp, c10::string_view map,
                 at::IntArrayRef shape, bool channels_last, c10::string_view mode,
                 c10::string_view padding_mode, bool align_corners) {
  return splat_along("splat", values, warp, nullptr, map, shape, channels_last, mode, padding_mode,
                     align_corners);
}

at::Tensor splat_derivative(const at::Tensor& values, const at::Tensor& warp,
                            const std::optional<at::Tensor>& tangent, int64_t axis,
                            c10::string_view map, at::IntArrayRef shape, bool channels_last,
                            c10::string_view mode, c10::string_view padding_mode,
                            bool align_corners) {
  const Way way{tangent, axis};
  return splat_along("splat_derivative", values, warp, &way, map, shape, channels_last, mode,
                     padding_mode, align_corners);
}

at::Tensor grad_warp_along(const char* op, const at::Tensor& grad, const at::Tensor& input,
                           const at::Tensor& warp, const Way* way, c10::string_view map,
                           c10::string_view mode, c10::string_view padding_mode,
                           bool align_corners) {
  check_sample_grad_warp(op, grad, input, warp, map, mode, padding_mode);
  check_way(op, warp, way, input.dim() - 2);
  const Backend& backend = backend_of(op, input);
  return to_warp(op, readable(grad, is_channels_last(input)), input, warp, way, map, mode,
                 padding_mode, align_corners)
      .run(backend.grad_warp);
}

at::Tensor sample_grad_warp(const at::Tensor& grad, const at::Tensor& input, const at::Tensor& warp,
                            c10::string_view map, c10::string_view mode,
                            c10::string_view padding_mode, bool align_corners) {
  return grad_warp_along("sample_grad_warp", grad, input, warp, nullptr, map, mode, padding_mode,
                         align_corners);
}

at::Tensor sample_grad_warp_derivative(const at::Tensor& grad, const at::Tensor& input,
                                       const at::Tensor& warp,
                                       const std::optional<at::Tensor>& tangent, int64_t axis,
                                       c10::string_view map, c10::string_view mode,
                                       c10::string_view padding_mode, bool align_corners) {
  const Way way{tangent, axis};
  return grad_warp_along("sample_grad_warp_derivative", grad, input, warp, &way, map, mode,
                         padding_mode, align_corners);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> sample_gradients(const at::Tensor& grad, const at::Tensor& input,
                                                    const at::Tensor& warp, c10::string_view map,
                                                    c10::string_view mode,
                                                    c10::string_view padding_mode,
                                                    bool align_corners) {
  RECORD_FUNCTION("stn_cuda::sample_gradients", std::vector<c10::IValue>({grad, input, warp}));
  const char* op = "sample_grad_warp";
  check_sample_grad_warp(op, grad, input, warp, map, mode, padding_mode);
  const Backend& backend = backend_of(op, input);
  const bool channels_last = is_channels_last(input);
  const at::Tensor values = readable(grad, channels_last);
  const Flow back_to_warp =
      to_warp(op, values, input, warp, nullptr, map, mode, padding_mode, align_corners);
  const Flow back_to_image = to_image("splat", values, warp, nullptr, map, input.sizes(),
                                      channels_last, mode, padding_mode, align_corners);
  if (back_to_warp.wanted && back_to_image.wanted && backend.gradients) {
    backend.gradients(back_to_warp.p, back_to_image.p);
  } else {
    back_to_warp.run(backend.grad_warp);
    back_to_image.run(backend.splat);
  }
  return {back_to_image.result, back_to_warp.result};
}

}  // namespace stn_cuda

#define STN_IMPLEMENT(KEY)                                                        \
  TORCH_LIBRARY_IMPL(stn_cuda, KEY, m) {                                          \
    m.impl("splat", stn_cuda::splat);                                             \
    m.impl("sample_grad_warp", stn_cuda::sample_grad_warp);                       \
    m.impl("splat_derivative", stn_cuda::splat_derivative);                       \
    m.impl("sample_grad_warp_derivative", stn_cuda::sample_grad_warp_derivative); \
  }

STN_FOR_EACH_KEY(STN_IMPLEMENT)
#undef STN_IMPLEMENT
