// The ops, for the dispatcher (ops.cpp) and for the direct entries of the Python module.
#pragma once

#include <ATen/core/Tensor.h>

namespace stn_cuda {

at::Tensor sample(const at::Tensor& input, const at::Tensor& warp, c10::string_view map,
                  at::IntArrayRef size, c10::string_view mode, c10::string_view padding_mode,
                  bool align_corners);

at::Tensor splat(const at::Tensor& values, const at::Tensor& warp, c10::string_view map,
                 at::IntArrayRef shape, bool channels_last, c10::string_view mode,
                 c10::string_view padding_mode, bool align_corners);

at::Tensor sample_grad_warp(const at::Tensor& grad, const at::Tensor& input, const at::Tensor& warp,
                            c10::string_view map, c10::string_view mode,
                            c10::string_view padding_mode, bool align_corners);

at::Tensor warp_grid(const at::Tensor& warp, c10::string_view map, at::IntArrayRef size,
                     bool align_corners);

at::Tensor warp_grid_backward(const at::Tensor& grad, const at::Tensor& warp, c10::string_view map,
                              bool align_corners);

}  // namespace stn_cuda
