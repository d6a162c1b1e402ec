// The ops of a parametric map's grid and of its adjoint, and their derivatives: what happens before
// the kernels. The schemas stand in ops.cpp.
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "allocate.h"
#include "arguments.h"
#include "backend.h"
#include "checks.h"

namespace stn_cuda {
namespace {

using at::Tensor;

// What the ops have in common; the arguments are checked. The tensors keep what the kernels read.
struct GridCall {
  const Backend& backend;
  GridParams p{};
  Tensor parameters, moves;

  GridCall(const char* op, const Tensor& warp, const Tensor* tangent, c10::string_view map,
           at::IntArrayRef size, bool align_corners)
      : backend(backend_of(op, warp)) {
    p.dims = static_cast<int32_t>(size.size());
    p.map = parse_map(op, map);
    p.align_corners = align_corners;
    p.batch = warp.size(0);
    copy_spatial(size, p.output_size);
    parameters = readable_warp(warp, p.map);
    p.warp = warp_of(parameters, p.map, p.batch);
    if (tangent) {
      moves = readable_warp(*tangent, p.map);
      p.direction = Direction::tangent;
      p.tangent = warp_of(moves, p.map, p.batch);
    }
  }
};

Tensor write_grid(const char* op, const Tensor& warp, const Tensor* tangent, c10::string_view map,
                  at::IntArrayRef size, bool align_corners) {
  check_warp_grid(op, warp, map, c10::fromIntArrayRefSlow(size));
  if (tangent) check_direction(op, warp, *tangent, -1, static_cast<int64_t>(size.size()));
  GridCall call(op, warp, tangent, map, size, align_corners);
  std::vector<int64_t> shape{call.p.batch};
  shape.insert(shape.end(), size.begin(), size.end());
  shape.push_back(call.p.dims);
  Tensor grid = empty_result(shape, warp.options());
  if (grid.numel() == 0) return grid;
  call.p.grid = warp_of(grid, MapKind::grid, call.p.batch);
  const c10::OptionalDeviceGuard guard(warp.device());
  call.backend.warp_grid(call.p);
  return grid;
}

Tensor sum_grid(const char* op, const Tensor& grad, const Tensor& warp, const Tensor* tangent,
                c10::string_view map, bool align_corners) {
  check_warp_grid_backward(op, grad, warp, map);
  const at::IntArrayRef size = grad.sizes().slice(1, grad.dim() - 2);
  if (tangent) check_direction(op, warp, *tangent, -1, static_cast<int64_t>(size.size()));
  GridCall call(op, warp, tangent, map, size, align_corners);
  Tensor grad_warp = empty_result(warp.sizes(), warp.options());
  if (grad_warp.numel() == 0) return grad_warp;
  if (grad.numel() == 0) return grad_warp.zero_();
  call.p.grid = warp_of(grad, MapKind::grid, call.p.batch);
  call.p.grad_warp = warp_of(grad_warp, call.p.map, call.p.batch);
  const c10::OptionalDeviceGuard guard(grad.device());
  call.backend.warp_grid_backward(call.p);
  return grad_warp;
}

Tensor warp_grid(const Tensor& warp, c10::string_view map, at::IntArrayRef size,
                 bool align_corners) {
  return write_grid("warp_grid", warp, nullptr, map, size, align_corners);
}

Tensor warp_grid_derivative(const Tensor& warp, const Tensor& tangent, c10::string_view map,
                            at::IntArrayRef size, bool align_corners) {
  return write_grid("warp_grid_derivative", warp, &tangent, map, size, align_corners);
}

Tensor warp_grid_backward(const Tensor& grad, const Tensor& warp, c10::string_view map,
                          bool align_corners) {
  return sum_grid("warp_grid_backward", grad, warp, nullptr, map, align_corners);
}

Tensor warp_grid_backward_derivative(const Tensor& grad, const Tensor& warp, const Tensor& tangent,
                                     c10::string_view map, bool align_corners) {
  return sum_grid("warp_grid_backward_derivative", grad, warp, &tangent, map, align_corners);
}

}  // namespace
}  // namespace stn_cuda

#define STN_IMPLEMENT(KEY)                                                            \
  TORCH_LIBRARY_IMPL(stn_cuda, KEY, m) {                                              \
    m.impl("warp_grid", stn_cuda::warp_grid);                                         \
    m.impl("warp_grid_backward", stn_cuda::warp_grid_backward);                       \
    m.impl("warp_grid_derivative", stn_cuda::warp_grid_derivative);                   \
    m.impl("warp_grid_backward_derivative", stn_cuda::warp_grid_backward_derivative); \
  }

STN_FOR_EACH_KEY(STN_IMPLEMENT)
#undef STN_IMPLEMENT
