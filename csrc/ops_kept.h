// sample where a free map's values want a gradient, and images have one channel: the values and
// their slopes in one look at the image. Going back, the slopes only have to be multiplied.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace stn_cuda {

// Whether there is such a kernel for these arguments of sample, and nobody between autograd and the
// kernels (fake tensors, tracing, functorch) wants to see its call.
bool can_keep_slopes(const at::Tensor& input, const at::Tensor& warp, c10::string_view map,
                     c10::string_view mode);

// sample, and the derivative of each value by the warp's values, which lies as these do.
std::tuple<at::Tensor, at::Tensor> sample_with_slopes(const at::Tensor& input,
                                                      const at::Tensor& warp, c10::string_view map,
                                                      c10::string_view mode,
                                                      c10::string_view padding_mode,
                                                      bool align_corners);

// Whether that is so of what flows back, too (which may come in batches, or as a fake).
bool is_plain(const at::Tensor& grad);

// The warp's gradient, out of the slopes and the values' gradient; in the slopes' memory if it is
// `ours`.
at::Tensor slopes_times(const at::Tensor& slopes, const at::Tensor& grad, bool ours);

}  // namespace stn_cuda
