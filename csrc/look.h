// From a look at an image - sample, its derivatives - to what the kernels are told.
#pragma once

#include <c10/core/DeviceGuard.h>

#include <vector>

#include "arguments.h"
#include "backend.h"
#include "checks.h"
#include "sampling.h"

namespace stn_cuda {

// What sample and its derivatives have in common: `call` makes the results from the output's shape
// and memory format, and hands the kernels' parameters on.
template <class Call>
auto look(const char* op, bool derives, const at::Tensor& input, const at::Tensor& warp,
          c10::string_view map, at::IntArrayRef size, c10::string_view mode,
          c10::string_view padding_mode, bool align_corners, Call&& call) {
  check_sample(op, input, warp, map, c10::fromIntArrayRefSlow(size), mode, padding_mode, derives);
  const Backend& backend = backend_of(op, input);
  SampleParams p = make_params(op, input, map, mode, padding_mode, align_corners);
  p.batch = broadcast_batch(input, warp);
  const at::IntArrayRef output_size = is_free(p.map) ? warp.sizes().slice(1, p.dims) : size;
  std::vector<int64_t> shape{p.batch, p.channels};
  shape.insert(shape.end(), output_size.begin(), output_size.end());
  copy_spatial(input.sizes().slice(2), p.input_size);
  copy_spatial(output_size, p.output_size);
  const at::Tensor parameters = readable_warp(warp, p.map);
  p.input = image_of(input, p.batch);
  p.warp = warp_of(parameters, p.map, p.batch);
  const c10::OptionalDeviceGuard guard(input.device());
  return call(backend, p, shape);
}

}  // namespace stn_cuda
