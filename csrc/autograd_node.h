// Nodes of autograd's graph, and forward-mode derivatives, for ops that are differentiated by hand.
#pragma once

#include <ATen/ops/add.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <memory>

namespace stn_cuda {

// torch holds nodes by std::shared_ptr, or since 2.13 by its own pointer.
using NodePointer = decltype(torch::autograd::Edge::function);

template <class Derived, class Pointer = NodePointer>
auto make_node() {
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<torch::autograd::Node>>) {
    // torch::autograd::deleteNode, found by its argument: newer versions have none.
    return std::shared_ptr<Derived>(new Derived, [](auto* node) { deleteNode(node); });
  } else {
    return c10::make_intrusive<Derived>();
  }
}

// What `call` returns, made below autograd.
template <class Call>
auto below_autograd(Call&& call) {
  at::AutoDispatchBelowADInplaceOrView guard;
  return call();
}

// A tensor without its forward-mode derivative, and that derivative, which is undefined if it is 0.
inline at::Tensor primal(const at::Tensor& tensor) {
  return torch::autograd::isFwGradDefined(tensor) ? tensor._fw_primal(0) : tensor;
}
inline at::Tensor forward_grad(const at::Tensor& tensor) {
  if (!torch::autograd::isFwGradDefined(tensor)) return {};
  const at::Tensor& grad = tensor._fw_grad(0);
  return grad._is_zerotensor() ? at::Tensor() : grad;
}

inline at::Tensor sum_of(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() ? (b.defined() ? at::add(a, b) : a) : b;
}

}  // namespace stn_cuda
