// The derivatives of the ops, as nodes of autograd's graph. They call the ops again, so that what
// holds for these (fake tensors, tracing, functorch, derivatives of derivatives) holds for them.
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
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

// torch holds nodes by std::shared_ptr, or since 2.13 by its own pointer.
using NodePointer = decltype(torch::autograd::Edge::function);

template <class Derived, class Pointer = NodePointer>
auto make_node() {
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<Node>>) {
    // torch::autograd::deleteNode, found by its argument: newer versions have none.
    return std::shared_ptr<Derived>(new Derived, [](auto* node) { deleteNode(node); });
  } else {
    return c10::make_intrusive<Derived>();
  }
}

// How a sample looks: the arguments that every op hands on.
struct Look {
  std::string map, mode, padding_mode;
  bool align_corners;
};

// A node with up to two saved tensors.
struct Formula : public Node {
  SavedVariable first, second;

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    first.reset_data();
    second.reset_data();
  }

  // The saved tensors; undefined where none was.
  std::pair<Tensor, Tensor> saved() {
    std::lock_guard<std::mutex> lock(mutex_);
    return {first.unpack(), second.unpack()};
  }
};

bool is_channels_last(const Tensor& tensor) {
  return tensor.suggest_memory_format() != at::MemoryFormat::Contiguous;
}

void refuse_forward_mode(const char* op, const Tensor& a, const Tensor& b) {
  using torch::autograd::isFwGradDefined;
  TORCH_CHECK_NOT_IMPLEMENTED(!isFwGradDefined(a) && !isFwGradDefined(b), "stn_cuda.", op,
                              ": forward-mode derivatives are not implemented; those of reverse "
                              "mode are");
}

// The result of `call`, made below autograd, with a node from `make` if a gradient can flow.
template <class Call, class Make>
Tensor record(const char* op, const Tensor& a, const Tensor& b, Call&& call, Make&& make) {
  refuse_forward_mode(op, a, b);
  NodePointer node;
  if (torch::autograd::compute_requires_grad(a, b)) node = make();
  Tensor result = [&] {
    at::AutoDispatchBelowADInplaceOrView guard;
    return call();
  }();
  if (node) torch::autograd::set_history(result, node);
  return result;
}

template <class Derived>
auto linked_node(const Tensor& a, const Tensor& b) {
  auto node = make_node<Derived>();
  node->set_next_edges(torch::autograd::collect_next_edges(a, b));
  return node;
}

SavedVariable save_if(bool needed, const Tensor& tensor) {
  return needed ? SavedVariable(tensor, false) : SavedVariable();
}

struct SampleBackward : public Formula {
  Look look;
  Sizes input_shape;
  bool channels_last;

  std::string name() const override { return "SampleBackward"; }

  variable_list apply(variable_list&& grads) override {
    const Tensor& grad = grads[0];
    if (!grad.defined()) return {Tensor(), Tensor()};
    const auto [input, warp] = saved();
    variable_list result(2);
    if (task_should_compute_output(0)) {
      result[0] = ops::splat(grad, warp, look.map, input_shape, channels_last, look.mode,
                             look.padding_mode, look.align_corners);
    }
    if (task_should_compute_output(1)) {
      result[1] = ops::sample_grad_warp(grad, input, warp, look.map, look.mode, look.padding_mode,
                                        look.align_corners);
    }
    return result;
  }
};

Tensor sample_autograd(const Tensor& input, const Tensor& warp, c10::string_view map,
                       c10::SymIntArrayRef size, c10::string_view mode,
                       c10::string_view padding_mode, bool align_corners) {
  return record(
      "sample", input, warp,
      [&] { return ops::sample(input, warp, map, size, mode, padding_mode, align_corners); },
      [&]() -> NodePointer {
        auto node = linked_node<SampleBackward>(input, warp);
        node->look = {std::string(map), std::string(mode), std::string(padding_mode),
                      align_corners};
        node->input_shape = input.sym_sizes().vec();
        node->channels_last = is_channels_last(input);
        // The image itself is only read by the warp's gradient.
        node->first = save_if(node->should_compute_output(1), input);
        node->second = SavedVariable(warp, false);
        return node;
      });
}

// <splat(v), g> = <v, sample(g)>: linear in v with adjoint sample, and as a function of the warp
// the same bilinear form as sample, with the roles of image and gradient exchanged.
struct SplatBackward : public Formula {
  Look look;
  Sizes size;

  std::string name() const override { return "SplatBackward"; }

  variable_list apply(variable_list&& grads) override {
    const Tensor& grad = grads[0];
    if (!grad.defined()) return {Tensor(), Tensor()};
    const auto [values, warp] = saved();
    variable_list result(2);
    if (task_should_compute_output(0)) {
      result[0] =
          ops::sample(grad, warp, look.map, size, look.mode, look.padding_mode, look.align_corners);
    }
    if (task_should_compute_output(1)) {
      result[1] = ops::sample_grad_warp(values, grad, warp, look.map, look.mode, look.padding_mode,
                                        look.align_corners);
    }
    return result;
  }
};

Tensor splat_autograd(const Tensor& values, const Tensor& warp, c10::string_view map,
                      c10::SymIntArrayRef shape, bool channels_last, c10::string_view mode,
                      c10::string_view padding_mode, bool align_corners) {
  return record(
      "splat", values, warp,
      [&] {
        return ops::splat(values, warp, map, shape, channels_last, mode, padding_mode,
                          align_corners);
      },
      [&]() -> NodePointer {
        auto node = linked_node<SplatBackward>(values, warp);
        node->look = {std::string(map), std::string(mode), std::string(padding_mode),
                      align_corners};
        if (map != "grid") node->size = values.sym_sizes().slice(2).vec();
        node->first = save_if(node->should_compute_output(1), values);
        node->second = SavedVariable(warp, false);
        return node;
      });
}

struct SampleGradWarpBackward : public Formula {
  std::string name() const override { return "SampleGradWarpBackward"; }

  variable_list apply(variable_list&&) override {
    TORCH_CHECK_NOT_IMPLEMENTED(
        false,
        "stn_cuda.sample: the second derivative that involves the warp is not implemented; first "
        "derivatives, and second derivatives through the input alone, are");
  }
};

Tensor sample_grad_warp_autograd(const Tensor& grad, const Tensor& input, const Tensor& warp,
                                 c10::string_view map, c10::string_view mode,
                                 c10::string_view padding_mode, bool align_corners) {
  const auto make = [&]() -> NodePointer {
    auto node = make_node<SampleGradWarpBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(grad, input, warp));
    return node;
  };
  const Tensor& tracked = grad.requires_grad() ? grad : input;
  refuse_forward_mode("sample", grad, input);
  return record(
      "sample", tracked, warp,
      [&] {
        return ops::sample_grad_warp(grad, input, warp, map, mode, padding_mode, align_corners);
      },
      make);
}

struct WarpGridBackward : public Formula {
  std::string map;
  bool align_corners;

  std::string name() const override { return "WarpGridBackward"; }

  variable_list apply(variable_list&& grads) override {
    if (!grads[0].defined()) return {Tensor()};
    return {ops::warp_grid_backward(grads[0], saved().first, map, align_corners)};
  }
};

Tensor warp_grid_autograd(const Tensor& warp, c10::string_view map, c10::SymIntArrayRef size,
                          bool align_corners) {
  return record(
      "Warp.grid", warp, {}, [&] { return ops::warp_grid(warp, map, size, align_corners); },
      [&]() -> NodePointer {
        auto node = make_node<WarpGridBackward>();
        node->set_next_edges(torch::autograd::collect_next_edges(warp));
        node->map = std::string(map);
        node->align_corners = align_corners;
        node->first = SavedVariable(warp, false);
        return node;
      });
}

// The affine grid is linear in theta: the adjoint of its adjoint is itself.
struct WarpGridBackwardBackward : public Formula {
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
  return record(
      "Warp.grid", grad, warp,
      [&] { return ops::warp_grid_backward(grad, warp, map, align_corners); },
      [&]() -> NodePointer {
        auto node = linked_node<WarpGridBackwardBackward>(grad, warp);
        node->map = std::string(map);
        const auto shape = grad.sym_sizes();
        node->size = shape.slice(1, shape.size() - 2).vec();
        node->align_corners = align_corners;
        return node;
      });
}

}  // namespace
}  // namespace stn_cuda

TORCH_LIBRARY_IMPL(stn_cuda, Autograd, m) {
  m.impl("sample", stn_cuda::sample_autograd);
  m.impl("splat", stn_cuda::splat_autograd);
  m.impl("sample_grad_warp", stn_cuda::sample_grad_warp_autograd);
  m.impl("warp_grid", stn_cuda::warp_grid_autograd);
  m.impl("warp_grid_backward", stn_cuda::warp_grid_backward_autograd);
}
