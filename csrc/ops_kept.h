// sample where a warp wants a gradient, and images have one channel: the values and their slopes in
// one look at the image. Going back, they only have to be multiplied, and a parametric map's
// summed.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace stn_cuda {

// Whether there is such a kernel for these arguments of sample, and nobody between autograd and the
// kernels (fake tensors, tracing, functorch) wants to see its call.
bool can_keep_slopes(const at::Tensor& input, const at::Tensor& warp, c10::string_view map,
                     c10::SymIntArrayRef size, c10::string_view mode);

// sample, and the derivative of each value by where it looks.
std::tuple<at::Tensor, at::Tensor> sample_with_slopes(
    const at::Tensor& input, const at::Tensor& warp, c10::string_view map, c10::SymIntArrayRef size,
    c10::string_view mode, c10::string_view padding_mode, bool align_corners);

// The warp's gradient, out of the slopes and the values' gradient; in the slopes' memory where that
// can be, and is `ours`.
at::Tensor warp_gradient(const at::Tensor& slopes, bool ours, const at::Tensor& grad,
                         const at::Tensor& input, const at::Tensor& warp, c10::string_view map,
                         c10::string_view mode, c10::string_view padding_mode, bool align_corners);

}  // namespace stn_cuda
