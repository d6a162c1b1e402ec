// Both gradients of sample together, for autograd.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace stn_cuda {

// splat(grad), shaped and laid out like the input, and sample_grad_warp(grad): the same results,
// for less than the two of them where the device's kernels can share what they read.
std::tuple<at::Tensor, at::Tensor> sample_gradients(const at::Tensor& grad, const at::Tensor& input,
                                                    const at::Tensor& warp, c10::string_view map,
                                                    c10::string_view mode,
                                                    c10::string_view padding_mode,
                                                    bool align_corners);

}  // namespace stn_cuda
