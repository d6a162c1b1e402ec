// The derivatives of a warp's grid and of its adjoint: each op as a derivative of the form in
// autograd_form.h.
#include "autograd_form.h"

#include <torch/library.h>

namespace stn_cuda {
namespace {

using namespace form;

Form form_of(Argument by, Name map, c10::SymIntArrayRef size, bool align_corners) {
  Form form{};
  form.map = std::string(map);
  form.align_corners = align_corners;
  form.by = by;
  form.axis = -1;
  form.size = size.vec();
  return form;
}

Form form_of_backward(const Tensor& grad, Name map, bool align_corners) {
  return form_of(kWarp, map, grad.sym_sizes().slice(1, grad.dim() - 2), align_corners);
}

Tensor warp_grid_autograd(const Tensor& warp, Name map, c10::SymIntArrayRef size,
                          bool align_corners) {
  return record(
      {Tensor(), Tensor(), warp, Tensor()},
      [&] { return ops::warp_grid(warp, map, size, align_corners); },
      [&] { return form_of(kGrad, map, size, align_corners); });
}

Tensor warp_grid_derivative_autograd(const Tensor& warp, const Tensor& tangent, Name map,
                                     c10::SymIntArrayRef size, bool align_corners) {
  return record(
      {Tensor(), Tensor(), warp, tangent},
      [&] { return ops::warp_grid_derivative(warp, tangent, map, size, align_corners); },
      [&] { return form_of(kGrad, map, size, align_corners); });
}

Tensor warp_grid_backward_autograd(const Tensor& grad, const Tensor& warp, Name map,
                                   bool align_corners) {
  return record(
      {grad, Tensor(), warp, Tensor()},
      [&] { return ops::warp_grid_backward(grad, warp, map, align_corners); },
      [&] { return form_of_backward(grad, map, align_corners); });
}

Tensor warp_grid_backward_derivative_autograd(const Tensor& grad, const Tensor& warp,
                                              const Tensor& tangent, Name map, bool align_corners) {
  return record(
      {grad, Tensor(), warp, tangent},
      [&] { return ops::warp_grid_backward_derivative(grad, warp, tangent, map, align_corners); },
      [&] { return form_of_backward(grad, map, align_corners); });
}

}  // namespace
}  // namespace stn_cuda

TORCH_LIBRARY_IMPL(stn_cuda, Autograd, m) {
  m.impl("warp_grid", stn_cuda::warp_grid_autograd);
  m.impl("warp_grid_backward", stn_cuda::warp_grid_backward_autograd);
  m.impl("warp_grid_derivative", stn_cuda::warp_grid_derivative_autograd);
  m.impl("warp_grid_backward_derivative", stn_cuda::warp_grid_backward_derivative_autograd);
}
