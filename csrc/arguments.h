// The argument checks, once for all ops and devices, and what the kernels are told about tensors.
//
// Messages read "op: X must be ..., got ..."; the words in parentheses are torch's own for the same
// mistake, so that code which matches torch's messages keeps matching.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "params.h"

namespace stn_cuda {

MapKind parse_map(const char* op, c10::string_view map);
Interpolation parse_mode(const char* op, c10::string_view mode);
Padding parse_padding(const char* op, c10::string_view padding_mode);
ElementType element_type(const at::Tensor& tensor);

// (N, C, H, W) or (N, C, D, H, W), a floating type that the kernels know, strided.
void check_image(const char* op, const char* name, const at::Tensor& image);

// A grid or a map's parameters for an image of `dims` spatial dimensions on `like`'s device.
void check_warp(const char* op, const at::Tensor& warp, MapKind map, int64_t dims,
                const at::Tensor& like);

// The batch of a call: equal, or 1 on either side.
int64_t broadcast_batch(const char* op, const at::Tensor& input, const at::Tensor& warp);

// No spatial dimension of the image is 0 or too large for the coordinate arithmetic.
void check_spatial(const char* op, const char* name, at::IntArrayRef shape);

// A spatial size asked for: one entry per dimension, none negative.
void check_size(const char* op, at::IntArrayRef size, int64_t dims);

void check_mode_dims(const char* op, Interpolation interpolation, int64_t dims);

void check_same_device(const char* op, const char* name, const at::Tensor& tensor,
                       const char* like_name, const at::Tensor& like);

std::string shape_text(at::IntArrayRef shape);

// The structs that the kernels read.
Image image_of(const at::Tensor& tensor, int64_t batch);
Warp warp_of(const at::Tensor& tensor, MapKind map, int64_t batch);

// Whether the spatial positions of an image lie at equal distances in memory, so that a linear
// index reaches them all; if so image_of's stride[0] is that distance.
bool has_linear_points(const at::Tensor& tensor);

}  // namespace stn_cuda
