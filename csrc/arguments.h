// From the ops' arguments to what the kernels are told.
#pragma once

#include <ATen/core/Tensor.h>

#include "params.h"

namespace stn_cuda {

// Each refuses an unknown name with a sentence that lists the known ones.
MapKind parse_map(const char* op, c10::string_view map);
Interpolation parse_mode(const char* op, c10::string_view mode);
// A name for all axes, or one for each, in the order of the tensor's axes, with commas between.
void parse_padding(const char* op, c10::string_view padding_mode, int64_t dims,
                   Padding (&padding)[3]);
ElementType element_type(const at::Tensor& tensor);

// (D, H, W) or (H, W) in the kernels' order, x first; 1 where there is no axis.
void copy_spatial(at::IntArrayRef shape, int64_t (&size)[3]);

// A warp as the kernels read it: parameters as one block, those of a grouped map in the type of its
// coordinates; a grid by its strides.
at::Tensor readable_warp(const at::Tensor& warp, MapKind map);

// The structs that the kernels read.
Image image_of(const at::Tensor& tensor, int64_t batch);
Warp warp_of(const at::Tensor& tensor, MapKind map, int64_t batch);

// Whether the spatial positions of an image lie at equal distances in memory, so that a linear
// index reaches them all; if so image_of's stride[0] is that distance.
bool has_linear_points(const at::Tensor& tensor);

}  // namespace stn_cuda
