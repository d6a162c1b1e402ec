// The argument checks, once for all ops and devices, real and fake tensors: sizes may be symbolic.
//
// Messages read "op: X must be ..., got ..."; the words in parentheses are torch's own for the same
// mistake, so that code which matches torch's messages keeps matching.
#pragma once

#include <ATen/core/Tensor.h>

namespace stn_cuda {

// Each takes an op's arguments as far as they can be wrong. `op`: the op itself, or one that takes
// the same arguments. derives: whether it is of derivatives, which images of bytes do not have.
void check_sample(const char* op, const at::Tensor& input, const at::Tensor& warp,
                  c10::string_view map, c10::SymIntArrayRef size, c10::string_view mode,
                  c10::string_view padding_mode, bool derives = false);
// Raises where a derivative would be asked of an image of bytes.
void check_still(const char* op, const at::Tensor& input, bool moves);
// What lies around an image, for each of it or of a batch, and each channel, in the image's dtype
// (of bytes, in float32). The others are checked.
void check_fill(const char* op, const at::Tensor& input, const at::Tensor& warp,
                const at::Tensor& fill, c10::string_view padding_mode);
void check_splat(const char* op, const at::Tensor& values, const at::Tensor& warp,
                 c10::string_view map, c10::SymIntArrayRef shape, c10::string_view mode,
                 c10::string_view padding_mode);
void check_sample_grad_warp(const char* op, const at::Tensor& grad, const at::Tensor& input,
                            const at::Tensor& warp, c10::string_view map, c10::string_view mode,
                            c10::string_view padding_mode);
// The derivatives' further arguments: a tangent of the warp, or an axis of the image. The others
// are checked.
void check_direction(const char* op, const at::Tensor& warp,
                     const std::optional<at::Tensor>& tangent, int64_t axis, int64_t dims);
void check_warp_grid(const char* op, const at::Tensor& warp, c10::string_view map,
                     c10::SymIntArrayRef size);
void check_warp_grid_backward(const char* op, const at::Tensor& grad, const at::Tensor& warp,
                              c10::string_view map);

}  // namespace stn_cuda
