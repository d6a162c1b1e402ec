#include <ATen/core/dispatch/Dispatcher.h>

#include "ops.h"

namespace stn_cuda {
namespace ops {
namespace {

using at::Tensor;
using Size = c10::SymIntArrayRef;
using Name = c10::string_view;

template <class Signature>
auto find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace

Tensor sample(const Tensor& input, const Tensor& warp, Name map, Size size, Name mode,
              Name padding_mode, bool align_corners) {
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, Name, Size, Name, Name, bool)>(
          "stn_cuda::sample");
  return op.call(input, warp, map, size, mode, padding_mode, align_corners);
}

Tensor sample_filled(const Tensor& input, const Tensor& warp, const Tensor& fill, Name map,
                     Size size, Name mode, Name padding_mode, bool align_corners) {
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, const Tensor&, Name, Size, Name, Name, bool)>(
          "stn_cuda::sample_filled");
  return op.call(input, warp, fill, map, size, mode, padding_mode, align_corners);
}

std::tuple<Tensor, Tensor> sample_masked(const Tensor& input, const Tensor& warp,
                                         const std::optional<Tensor>& fill, Name map, Size size,
                                         Name mode, Name padding_mode, bool align_corners) {
  static const auto op =
      find_op<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const std::optional<Tensor>&,
                                         Name, Size, Name, Name, bool)>("stn_cuda::sample_masked");
  return op.call(input, warp, fill, map, size, mode, padding_mode, align_corners);
}

Tensor splat(const Tensor& values, const Tensor& warp, Name map, Size shape, bool channels_last,
             Name mode, Name padding_mode, bool align_corners) {
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, Name, Size, bool, Name, Name, bool)>(
          "stn_cuda::splat");
  return op.call(values, warp, map, shape, channels_last, mode, padding_mode, align_corners);
}

Tensor sample_grad_warp(const Tensor& grad, const Tensor& input, const Tensor& warp, Name map,
                        Name mode, Name padding_mode, bool align_corners) {
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, const Tensor&, Name, Name, Name, bool)>(
          "stn_cuda::sample_grad_warp");
  return op.call(grad, input, warp, map, mode, padding_mode, align_corners);
}

namespace {

// As the schemas have it: None where an axis is meant.
std::optional<Tensor> optional(const Tensor& tangent) {
  return tangent.defined() ? std::optional<Tensor>(tangent) : std::nullopt;
}

using Tangent = const std::optional<Tensor>&;
using Pair = std::tuple<Tensor, Tensor>;

}  // namespace

Tensor sample_derivative(const Tensor& input, const Tensor& warp, const Along& along, Name map,
                         Size size, Name mode, Name padding_mode, bool align_corners) {
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, Tangent, int64_t, Name, Size, Name, Name, bool)>(
          "stn_cuda::sample_derivative");
  return op.call(input, warp, optional(along.tangent), along.axis, map, size, mode, padding_mode,
                 align_corners);
}

Tensor splat_derivative(const Tensor& values, const Tensor& warp, const Along& along, Name map,
                        Size shape, bool channels_last, Name mode, Name padding_mode,
                        bool align_corners) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, Tangent, int64_t, Name, Size,
                                        bool, Name, Name, bool)>("stn_cuda::splat_derivative");
  return op.call(values, warp, optional(along.tangent), along.axis, map, shape, channels_last, mode,
                 padding_mode, align_corners);
}

Tensor sample_grad_warp_derivative(const Tensor& grad, const Tensor& input, const Tensor& warp,
                                   const Along& along, Name map, Name mode, Name padding_mode,
                                   bool align_corners) {
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, const Tensor&, Tangent, int64_t, Name, Name,
                     Name, bool)>("stn_cuda::sample_grad_warp_derivative");
  return op.call(grad, input, warp, optional(along.tangent), along.axis, map, mode, padding_mode,
                 align_corners);
}

Pair sample_with_derivative(const Tensor& input, const Tensor& warp, const Tensor& tangent,
                            Name map, Size size, Name mode, Name padding_mode, bool align_corners) {
  static const auto op =
      find_op<Pair(const Tensor&, const Tensor&, const Tensor&, Name, Size, Name, Name, bool)>(
          "stn_cuda::sample_with_derivative");
  return op.call(input, warp, tangent, map, size, mode, padding_mode, align_corners);
}

Pair sample_with_gradient(const Tensor& input, const Tensor& warp, Name map, Size size, Name mode,
                          Name padding_mode, bool align_corners) {
  static const auto op = find_op<Pair(const Tensor&, const Tensor&, Name, Size, Name, Name, bool)>(
      "stn_cuda::sample_with_gradient");
  return op.call(input, warp, map, size, mode, padding_mode, align_corners);
}

Tensor warp_grid(const Tensor& warp, Name map, Size size, bool align_corners) {
  static const auto op = find_op<Tensor(const Tensor&, Name, Size, bool)>("stn_cuda::warp_grid");
  return op.call(warp, map, size, align_corners);
}

Tensor warp_grid_backward(const Tensor& grad, const Tensor& warp, Name map, bool align_corners) {
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, Name, bool)>("stn_cuda::warp_grid_backward");
  return op.call(grad, warp, map, align_corners);
}

Tensor warp_grid_derivative(const Tensor& warp, const Tensor& tangent, Name map, Size size,
                            bool align_corners) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, Name, Size, bool)>(
      "stn_cuda::warp_grid_derivative");
  return op.call(warp, tangent, map, size, align_corners);
}

Tensor warp_grid_backward_derivative(const Tensor& grad, const Tensor& warp, const Tensor& tangent,
                                     Name map, bool align_corners) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, const Tensor&, Name, bool)>(
      "stn_cuda::warp_grid_backward_derivative");
  return op.call(grad, warp, tangent, map, align_corners);
}

}  // namespace ops
}  // namespace stn_cuda
