// The derivatives of a warp's grid and of its adjoint.
#include "autograd_node.h"

#include <torch/library.h>

#include <mutex>
#include <string>
#include <vector>

#include "ops.h"

namespace stn_cuda {
namespace {

using at::Tensor;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;
using Sizes = std::vector<c10::SymInt>;

struct WarpGridBackward : public Node {
  SavedVariable warp;
  std::string map;
  bool align_corners;

  std::string name() const override { return "WarpGridBackward"; }

  variable_list apply(variable_list&& grads) override {
    if (!grads[0].defined()) return {Tensor()};
    const Tensor parameters = [&] {
      std::lock_guard<std::mutex> lock(mutex_);
      return warp.unpack();
    }();
    return {ops::warp_grid_backward(grads[0], parameters, map, align_corners)};
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    warp.reset_data();
  }
};

Tensor warp_grid_autograd(const Tensor& warp, c10::string_view map, c10::SymIntArrayRef size,
                          bool align_corners) {
  NodePointer node;
  if (torch::autograd::compute_requires_grad(warp)) {
    auto made = make_node<WarpGridBackward>();
    made->set_next_edges(torch::autograd::collect_next_edges(warp));
    made->map = std::string(map);
    made->align_corners = align_corners;
    made->warp = SavedVariable(warp, false);
    node = std::move(made);
  }
  Tensor grid = below_autograd([&] { return ops::warp_grid(warp, map, size, align_corners); });
  if (node) torch::autograd::set_history(grid, node);
  // The affine grid is linear in theta.
  const Tensor moves = forward_grad(warp);
  if (moves.defined()) {
    grid._set_fw_grad(ops::warp_grid(moves, map, size, align_corners), 0, false);
  }
  return grid;
}

// The adjoint of the adjoint is the grid itself.
struct WarpGridBackwardBackward : public Node {
  std::string map;
  Sizes size;
  bool align_corners;

  std::string name() const override { return "WarpGridBackwardBackward"; }

  variable_list apply(variable_list&& grads) override {
    variable_list result(2);
    if (grads[0].defined() && task_should_compute_output(0)) {
      result[0] = ops::warp_grid(grads[0], map, size, align_corners);
    }
    return result;
  }
};

Tensor warp_grid_backward_autograd(const Tensor& grad, const Tensor& warp, c10::string_view map,
                                   bool align_corners) {
  NodePointer node;
  if (torch::autograd::compute_requires_grad(grad, warp)) {
    auto made = make_node<WarpGridBackwardBackward>();
    made->set_next_edges(torch::autograd::collect_next_edges(grad, warp));
    made->map = std::string(map);
    const auto shape = grad.sym_sizes();
    made->size = shape.slice(1, shape.size() - 2).vec();
    made->align_corners = align_corners;
    node = std::move(made);
  }
  Tensor result =
      below_autograd([&] { return ops::warp_grid_backward(grad, warp, map, align_corners); });
  if (node) torch::autograd::set_history(result, node);
  const Tensor moves = forward_grad(grad);
  if (moves.defined()) {
    result._set_fw_grad(ops::warp_grid_backward(moves, primal(warp), map, align_corners), 0, false);
  }
  return result;
}

}  // namespace
}  // namespace stn_cuda

TORCH_LIBRARY_IMPL(stn_cuda, Autograd, m) {
  m.impl("warp_grid", stn_cuda::warp_grid_autograd);
  m.impl("warp_grid_backward", stn_cuda::warp_grid_backward_autograd);
}
