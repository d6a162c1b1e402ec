// The ops as C++ calls through the dispatcher: autograd, fake tensors, tracing and functorch see
// them as they see torch.ops.stn_cuda.*. The schemas stand in ops.cpp.
#pragma once

#include <ATen/core/Tensor.h>

namespace stn_cuda {
namespace ops {

at::Tensor sample(const at::Tensor& input, const at::Tensor& warp, c10::string_view map,
                  c10::SymIntArrayRef size, c10::string_view mode, c10::string_view padding_mode,
                  bool align_corners);

at::Tensor sample_filled(const at::Tensor& input, const at::Tensor& warp, const at::Tensor& fill,
                         c10::string_view map, c10::SymIntArrayRef size, c10::string_view mode,
                         c10::string_view padding_mode, bool align_corners);

std::tuple<at::Tensor, at::Tensor> sample_masked(const at::Tensor& input, const at::Tensor& warp,
                                                 const std::optional<at::Tensor>& fill,
                                                 c10::string_view map, c10::SymIntArrayRef size,
                                                 c10::string_view mode,
                                                 c10::string_view padding_mode, bool align_corners);

at::Tensor splat(const at::Tensor& values, const at::Tensor& warp, c10::string_view map,
                 c10::SymIntArrayRef shape, bool channels_last, c10::string_view mode,
                 c10::string_view padding_mode, bool align_corners);

at::Tensor sample_grad_warp(const at::Tensor& grad, const at::Tensor& input, const at::Tensor& warp,
                            c10::string_view map, c10::string_view mode,
                            c10::string_view padding_mode, bool align_corners);

// Along what a derivative is taken: a tangent of the warp, shaped like it, or an axis of the image
// (0 = x), in pixels.
struct Along {
  at::Tensor tangent;
  int64_t axis = -1;
};

at::Tensor sample_derivative(const at::Tensor& input, const at::Tensor& warp, const Along& along,
                             c10::string_view map, c10::SymIntArrayRef size, c10::string_view mode,
                             c10::string_view padding_mode, bool align_corners);

at::Tensor splat_derivative(const at::Tensor& values, const at::Tensor& warp, const Along& along,
                            c10::string_view map, c10::SymIntArrayRef shape, bool channels_last,
                            c10::string_view mode, c10::string_view padding_mode,
                            bool align_corners);

at::Tensor sample_grad_warp_derivative(const at::Tensor& grad, const at::Tensor& input,
                                       const at::Tensor& warp, const Along& along,
                                       c10::string_view map, c10::string_view mode,
                                       c10::string_view padding_mode, bool align_corners);

std::tuple<at::Tensor, at::Tensor> sample_with_derivative(
    const at::Tensor& input, const at::Tensor& warp, const at::Tensor& tangent,
    c10::string_view map, c10::SymIntArrayRef size, c10::string_view mode,
    c10::string_view padding_mode, bool align_corners);

std::tuple<at::Tensor, at::Tensor> sample_with_gradient(
    const at::Tensor& input, const at::Tensor& warp, c10::string_view map, c10::SymIntArrayRef size,
    c10::string_view mode, c10::string_view padding_mode, bool align_corners);

at::Tensor warp_grid(const at::Tensor& warp, c10::string_view map, c10::SymIntArrayRef size,
                     bool align_corners);

at::Tensor warp_grid_backward(const at::Tensor& grad, const at::Tensor& warp, c10::string_view map,
                              bool align_corners);

at::Tensor warp_grid_derivative(const at::Tensor& warp, const at::Tensor& tangent,
                                c10::string_view map, c10::SymIntArrayRef size, bool align_corners);

at::Tensor warp_grid_backward_derivative(const at::Tensor& grad, const at::Tensor& warp,
                                         const at::Tensor& tangent, c10::string_view map,
                                         bool align_corners);

}  // namespace ops
}  // namespace stn_cuda
