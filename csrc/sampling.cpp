#include "sampling.h"

#include <ATen/Context.h>
#include <ATen/ops/new_ones.h>

#include "allocate.h"
#include "arguments.h"

namespace stn_cuda {

at::MemoryFormat format_of(bool channels_last, int64_t dims) {
  if (!channels_last) return at::MemoryFormat::Contiguous;
  return dims == 2 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::ChannelsLast3d;
}

SampleParams make_params(const char* op, const at::Tensor& image, c10::string_view map,
                         c10::string_view mode, c10::string_view padding_mode, bool align_corners) {
  SampleParams p{};
  p.dims = static_cast<int32_t>(image.dim() - 2);
  p.channels = image.size(1);
  p.map = parse_map(op, map);
  p.interpolation = parse_mode(op, mode);
  parse_padding(op, padding_mode, p.dims, p.padding);
  p.align_corners = align_corners;
  p.deterministic = at::globalContext().deterministicAlgorithms();
  return p;
}

int64_t broadcast_batch(const at::Tensor& input, const at::Tensor& warp) {
  return input.size(0) == 1 ? warp.size(0) : input.size(0);
}

at::Tensor empty_like_image(at::IntArrayRef shape, const at::Tensor& input) {
  return empty_result(shape, input.options().memory_format(input.suggest_memory_format()));
}

at::ScalarType mask_type(const at::Tensor& input) {
  return input.scalar_type() == at::kByte ? at::kFloat : input.scalar_type();
}

at::Tensor image_of_ones(const at::Tensor& input) {
  std::vector<c10::SymInt> shape(static_cast<size_t>(input.dim()), c10::SymInt(1));
  const at::Tensor one = input.new_ones_symint(shape, mask_type(input));
  for (int64_t d = 2; d < input.dim(); ++d) shape[d] = input.sym_size(d);
  return one.expand_symint(shape);
}

at::Tensor empty_grad_warp(const at::Tensor& warp, MapKind map) {
  return is_free(map) ? empty_result_like(warp) : empty_result(warp.sizes(), warp.options());
}

c10::string_view mode_of_mask(c10::string_view mode) {
  return mode == "nearest" ? mode : "bilinear";
}

at::Tensor readable(const at::Tensor& values, bool channels_last) {
  const auto format = format_of(channels_last, values.dim() - 2);
  if (channels_last && values.size(1) > 1 && values.stride(1) != 1) {
    return values.contiguous(format);
  }
  return has_linear_points(values) ? values : values.contiguous(format);
}

}  // namespace stn_cuda
