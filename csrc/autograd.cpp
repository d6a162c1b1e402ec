// The sampling ops' derivatives: each op as a derivative of the form in autograd_form.h.
#include "autograd_form.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/library.h>

#include "checks.h"
#include "ops_kept.h"

namespace stn_cuda {
namespace {

using namespace form;

// The forms of splat and its derivatives, and of those of the warp's gradient.
Sizes size_of(const Tensor& values) { return values.sym_sizes().slice(2).vec(); }

Form form_of_splat(const Tensor& values, int64_t axis, Name map, c10::SymIntArrayRef shape,
                   bool channels_last, Name mode, Name padding_mode, bool align_corners) {
  return {std::string(map),
          std::string(mode),
          std::string(padding_mode),
          align_corners,
          kImage,
          axis,
          values.sym_size(0),
          size_of(values),
          shape.vec(),
          channels_last};
}

Form form_of_grad_warp(const Tensor& grad, const Tensor& input, int64_t axis, Name map, Name mode,
                       Name padding_mode, bool align_corners) {
  return {std::string(map),
          std::string(mode),
          std::string(padding_mode),
          align_corners,
          kWarp,
          axis,
          grad.sym_size(0),
          size_of(grad),
          input.sym_sizes().vec(),
          is_channels_last(input)};
}

// sample where the slopes are kept. A gradient that is to be differentiated, or of many at once,
// comes as usual.
struct SampleKeptBackward : public FormBackward {
  SavedVariable slopes;

  variable_list apply(variable_list&& grads) override {
    if (at::GradMode::is_enabled() || !grads[0].defined() || !is_plain(grads[0])) {
      return FormBackward::apply(std::move(grads));
    }
    Arguments arguments = saved();
    arguments[kGrad] = grads[0];
    return gradients([&](Argument by) {
      return by == kWarp ? gradient_of_warp(arguments) : derivative(form, by, arguments, {});
    });
  }

  Tensor gradient_of_warp(const Arguments& arguments) {
    Tensor factors;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      factors = slopes.unpack();
      if (!torch::autograd::get_current_graph_task_keep_graph()) slopes.reset_data();
    }
    return warp_gradient(factors, factors.use_count() == 1, arguments[kGrad], arguments[kImage],
                         arguments[kWarp], form.map, form.mode, form.padding_mode,
                         form.align_corners);
  }

  void release_variables() override {
    FormBackward::release_variables();
    std::lock_guard<std::mutex> lock(mutex_);
    slopes.reset_data();
  }
};

Tensor sample_kept(const Arguments& arguments, Form form, Name map, c10::SymIntArrayRef size,
                   Name mode, Name padding_mode, bool align_corners) {
  auto node = make_node<SampleKeptBackward>();
  node->form = std::move(form);
  node->link(arguments);
  auto [value, slopes] = below_autograd([&] {
    return sample_with_slopes(arguments[kImage], arguments[kWarp], map, size, mode, padding_mode,
                              align_corners);
  });
  node->slopes = SavedVariable(slopes, false);
  torch::autograd::set_history(value, NodePointer(std::move(node)));
  return value;
}

Tensor sample_autograd(const Tensor& input, const Tensor& warp, Name map, c10::SymIntArrayRef size,
                       Name mode, Name padding_mode, bool align_corners) {
  const bool recorded = torch::autograd::compute_requires_grad(input, warp);
  const Tensor moves = forward_grad(warp);
  check_still("sample", input, recorded || moves.defined());
  // One pass for the value and its derivative. Not where reverse mode keeps what it needs: that
  // would be without its forward-mode derivatives.
  if (moves.defined() && !recorded) {
    const Tensor image = primal(input), place = primal(warp), change = forward_grad(input);
    auto [value, moved] = ops::sample_with_derivative(image, place, moves, map, size, mode,
                                                      padding_mode, align_corners);
    if (change.defined()) {
      moved =
          at::add(moved, ops::sample(change, place, map, size, mode, padding_mode, align_corners));
    }
    value._set_fw_grad(moved, 0, false);
    return value;
  }
  const Arguments arguments{Tensor(), input, warp, Tensor()};
  if (recorded && warp.requires_grad() && !any_forward_grad(arguments) &&
      can_keep_slopes(input, warp, map, size, mode)) {
    return sample_kept(
        arguments, form_of_sample(input, warp, -1, map, size, mode, padding_mode, align_corners),
        map, size, mode, padding_mode, align_corners);
  }
  return record(
      arguments,
      [&] { return ops::sample(input, warp, map, size, mode, padding_mode, align_corners); },
      [&] {
        return form_of_sample(input, warp, -1, map, size, mode, padding_mode, align_corners);
      });
}

Tensor sample_derivative_autograd(const Tensor& input, const Tensor& warp, Tangent tangent,
                                  int64_t axis, Name map, c10::SymIntArrayRef size, Name mode,
                                  Name padding_mode, bool align_corners) {
  const Along along{tangent.value_or(Tensor()), axis};
  return record(
      {Tensor(), input, warp, along.tangent},
      [&] {
        return ops::sample_derivative(input, warp, along, map, size, mode, padding_mode,
                                      align_corners);
      },
      [&] {
        return form_of_sample(input, warp, axis, map, size, mode, padding_mode, align_corners);
      });
}

Tensor splat_autograd(const Tensor& values, const Tensor& warp, Name map, c10::SymIntArrayRef shape,
                      bool channels_last, Name mode, Name padding_mode, bool align_corners) {
  return record(
      {values, Tensor(), warp, Tensor()},
      [&] {
        return ops::splat(values, warp, map, shape, channels_last, mode, padding_mode,
                          align_corners);
      },
      [&] {
        return form_of_splat(values, -1, map, shape, channels_last, mode, padding_mode,
                             align_corners);
      });
}

Tensor splat_derivative_autograd(const Tensor& values, const Tensor& warp, Tangent tangent,
                                 int64_t axis, Name map, c10::SymIntArrayRef shape,
                                 bool channels_last, Name mode, Name padding_mode,
                                 bool align_corners) {
  const Along along{tangent.value_or(Tensor()), axis};
  return record(
      {values, Tensor(), warp, along.tangent},
      [&] {
        return ops::splat_derivative(values, warp, along, map, shape, channels_last, mode,
                                     padding_mode, align_corners);
      },
      [&] {
        return form_of_splat(values, axis, map, shape, channels_last, mode, padding_mode,
                             align_corners);
      });
}

Tensor sample_grad_warp_autograd(const Tensor& grad, const Tensor& input, const Tensor& warp,
                                 Name map, Name mode, Name padding_mode, bool align_corners) {
  return record(
      {grad, input, warp, Tensor()},
      [&] {
        return ops::sample_grad_warp(grad, input, warp, map, mode, padding_mode, align_corners);
      },
      [&] { return form_of_grad_warp(grad, input, -1, map, mode, padding_mode, align_corners); });
}

Tensor sample_grad_warp_derivative_autograd(const Tensor& grad, const Tensor& input,
                                            const Tensor& warp, Tangent tangent, int64_t axis,
                                            Name map, Name mode, Name padding_mode,
                                            bool align_corners) {
  const Along along{tangent.value_or(Tensor()), axis};
  return record(
      {grad, input, warp, along.tangent},
      [&] {
        return ops::sample_grad_warp_derivative(grad, input, warp, along, map, mode, padding_mode,
                                                align_corners);
      },
      [&] { return form_of_grad_warp(grad, input, axis, map, mode, padding_mode, align_corners); });
}

// Forward-mode's own op: where it is itself to be differentiated, two ops that are.
std::tuple<Tensor, Tensor> sample_with_derivative_autograd(const Tensor& input, const Tensor& warp,
                                                           const Tensor& tangent, Name map,
                                                           c10::SymIntArrayRef size, Name mode,
                                                           Name padding_mode, bool align_corners) {
  const Arguments arguments{Tensor(), input, warp, tangent};
  if (any_requires_grad(arguments) || any_forward_grad(arguments)) {
    return {ops::sample(input, warp, map, size, mode, padding_mode, align_corners),
            ops::sample_derivative(input, warp, {tangent}, map, size, mode, padding_mode,
                                   align_corners)};
  }
  return below_autograd([&] {
    return ops::sample_with_derivative(input, warp, tangent, map, size, mode, padding_mode,
                                       align_corners);
  });
}

// The values' part, and that of each axis.
struct SampleWithGradientBackward : public FormNode {
  std::string name() const override { return "SampleWithGradientBackward"; }

  variable_list apply(variable_list&& grads) override {
    Arguments arguments = saved();
    const int64_t dims = static_cast<int64_t>(form.image_shape.size()) - 2;
    return gradients([&](Argument by) {
      Tensor total;
      if (grads[0].defined()) {
        arguments[kGrad] = grads[0];
        total = derivative(form, by, arguments, {});
      }
      for (int64_t d = 0; grads[1].defined() && d < dims; ++d) {
        arguments[kGrad] = grads[1].select(2, d);
        total = sum_of(total, derivative(form, by, arguments, {{Tensor(), d}}));
      }
      return total;
    });
  }
};

std::tuple<Tensor, Tensor> sample_with_gradient_autograd(const Tensor& input, const Tensor& warp,
                                                         Name map, c10::SymIntArrayRef size,
                                                         Name mode, Name padding_mode,
                                                         bool align_corners) {
  const Arguments arguments{Tensor(), input, warp, Tensor()};
  if (any_forward_grad(arguments)) {
    std::vector<Tensor> slopes;
    for (int64_t d = 0; d < input.dim() - 2; ++d) {
      slopes.push_back(ops::sample_derivative(input, warp, {Tensor(), d}, map, size, mode,
                                              padding_mode, align_corners));
    }
    return {ops::sample(input, warp, map, size, mode, padding_mode, align_corners),
            at::stack(slopes, 2)};
  }
  NodePointer node;
  if (any_requires_grad(arguments)) {
    auto made = make_node<SampleWithGradientBackward>();
    made->form = form_of_sample(input, warp, -1, map, size, mode, padding_mode, align_corners);
    made->link(arguments);
    node = std::move(made);
  }
  auto [value, gradient] = below_autograd([&] {
    return ops::sample_with_gradient(input, warp, map, size, mode, padding_mode, align_corners);
  });
  if (node) {
    torch::autograd::set_history(value, node);
    torch::autograd::set_history(gradient, node);
  }
  return {value, gradient};
}

}  // namespace
}  // namespace stn_cuda

TORCH_LIBRARY_IMPL(stn_cuda, Autograd, m) {
  m.impl("sample", stn_cuda::sample_autograd);
  m.impl("splat", stn_cuda::splat_autograd);
  m.impl("sample_grad_warp", stn_cuda::sample_grad_warp_autograd);
  m.impl("sample_derivative", stn_cuda::sample_derivative_autograd);
  m.impl("splat_derivative", stn_cuda::splat_derivative_autograd);
  m.impl("sample_grad_warp_derivative", stn_cuda::sample_grad_warp_derivative_autograd);
  m.impl("sample_with_derivative", stn_cuda::sample_with_derivative_autograd);
  m.impl("sample_with_gradient", stn_cuda::sample_with_gradient_autograd);
}
