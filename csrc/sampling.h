// What the ops that sample have in common before their kernels are called.
#pragma once

#include <ATen/core/Tensor.h>

#include "params.h"

namespace stn_cuda {

at::MemoryFormat format_of(bool channels_last, int64_t dims);

inline bool is_channels_last(const at::Tensor& image) {
  return image.suggest_memory_format() != at::MemoryFormat::Contiguous;
}

// What sample, splat and sample_grad_warp have in common. The arguments are checked.
SampleParams make_params(const char* op, const at::Tensor& image, c10::string_view map,
                         c10::string_view mode, c10::string_view padding_mode, bool align_corners);

int64_t broadcast_batch(const at::Tensor& input, const at::Tensor& warp);

// A result of sample: an image in the input's dtype and memory format.
at::Tensor empty_like_image(at::IntArrayRef shape, const at::Tensor& input);

// The warp's gradient: a free map's lies as its values do.
at::Tensor empty_grad_warp(const at::Tensor& warp, MapKind map);

// A mask's dtype: the image's, of bytes float32. It is that of an image of ones, one element in
// memory, sampled in a mode of its own with zeros around.
at::ScalarType mask_type(const at::Tensor& input);
at::Tensor image_of_ones(const at::Tensor& input);
c10::string_view mode_of_mask(c10::string_view mode);

// Flowing back: the values at the output points, in a layout that the kernels read.
at::Tensor readable(const at::Tensor& values, bool channels_last);

}  // namespace stn_cuda
