// The derivatives of the sampling ops. They call the ops again, so that what holds for these (fake
// tensors, tracing, functorch, derivatives of derivatives) holds for them.
//
// All are derivatives of one form, linear in g and x:
//   E(g, x, W) = <g, sample(x, W)>,
// by g (sample), by x (splat) or by the warp W (sample_grad_warp); or of its derivative along a
// direction v in which W moves, linear in v, too (the ops *_derivative). The ops of grids are those
// of E(g, W) = <g, grid(W)>. So is what autograd wants
// of them: a cotangent takes the place of the argument by which E was differentiated, or is a
// direction, and E is differentiated by another argument.
#pragma once

#include "autograd_node.h"

#include <ATen/core/grad_mode.h>

#include <array>
#include <mutex>
#include <string>
#include <vector>

#include "arguments.h"
#include "math/parametric.h"
#include "ops.h"
#include "ops_back.h"
#include "plain.h"
#include "sampling.h"

namespace stn_cuda {
namespace form {

using at::Tensor;
using ops::Along;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;
using Sizes = std::vector<c10::SymInt>;
using Name = c10::string_view;
using Tangent = const std::optional<Tensor>&;

enum Argument { kGrad, kImage, kWarp, kTangent, kArguments };
using Arguments = std::array<Tensor, kArguments>;

struct Form {
  std::string map, mode, padding_mode;  // no mode: of a grid
  bool align_corners;
  Argument by;        // by what E is differentiated
  int64_t axis = -1;  // a direction along an axis of the image, where there is no tangent
  c10::SymInt batch;  // of g
  Sizes size;         // of g
  Sizes image_shape;
  bool channels_last;
};

// That of sample and its derivatives.
inline Form form_of_sample(const Tensor& input, const Tensor& warp, int64_t axis, Name map,
                           c10::SymIntArrayRef size, Name mode, Name padding_mode,
                           bool align_corners) {
  const c10::SymInt images = input.sym_size(0);
  return {std::string(map),
          std::string(mode),
          std::string(padding_mode),
          align_corners,
          kGrad,
          axis,
          images == 1 ? warp.sym_size(0) : images,
          size.vec(),
          input.sym_sizes().vec(),
          is_channels_last(input)};
}

// The derivative of a grid's form. Undefined: 0.
inline Tensor derivative_of_grid(const Form& f, Argument by, const Arguments& a,
                                 const std::vector<Along>& along) {
  const Tensor &g = a[kGrad], &w = a[kWarp];
  const int64_t dims = static_cast<int64_t>(f.size.size());
  const size_t order = along.size() + (by == kWarp ? 1 : 0);
  if (order > 1 && facts_of(parse_map("warp_grid", f.map), dims).linear) return {};
  TORCH_CHECK_NOT_IMPLEMENTED(along.size() < 2,
                              "stn_cuda: third derivatives of a warp's grid, and second ones of "
                              "forward-mode in forward-mode, are not implemented");
  if (by == kGrad) {
    return along.empty()
               ? ops::warp_grid(w, f.map, f.size, f.align_corners)
               : ops::warp_grid_derivative(w, along[0].tangent, f.map, f.size, f.align_corners);
  }
  return along.empty()
             ? ops::warp_grid_backward(g, w, f.map, f.align_corners)
             : ops::warp_grid_backward_derivative(g, w, along[0].tangent, f.map, f.align_corners);
}

// The derivative of E, or of its derivative along a direction, by an argument.
inline Tensor derivative(const Form& f, Argument by, const Arguments& a,
                         const std::vector<Along>& along) {
  if (f.mode.empty()) return derivative_of_grid(f, by, a, along);
  TORCH_CHECK_NOT_IMPLEMENTED(
      along.size() < 2,
      "stn_cuda.sample: third derivatives, and second ones of forward-mode in forward-mode, are "
      "not implemented where they involve the warp twice; first and second derivatives are, in "
      "reverse mode and of forward-mode over reverse-mode (torch.func.hessian)");
  const Tensor &g = a[kGrad], &x = a[kImage], &w = a[kWarp];
  if (by == kGrad) {
    const Tensor values =
        along.empty() ? ops::sample(x, w, f.map, f.size, f.mode, f.padding_mode, f.align_corners)
                      : ops::sample_derivative(x, w, along[0], f.map, f.size, f.mode,
                                               f.padding_mode, f.align_corners);
    if (values.sym_size(0) == f.batch) return values;
    Sizes shape = values.sym_sizes().vec();  // every g saw the same
    shape[0] = f.batch;
    return values.expand_symint(shape);
  }
  if (by == kImage) {
    return along.empty()
               ? ops::splat(g, w, f.map, f.image_shape, f.channels_last, f.mode, f.padding_mode,
                            f.align_corners)
               : ops::splat_derivative(g, w, along[0], f.map, f.image_shape, f.channels_last,
                                       f.mode, f.padding_mode, f.align_corners);
  }
  return along.empty()
             ? ops::sample_grad_warp(g, x, w, f.map, f.mode, f.padding_mode, f.align_corners)
             : ops::sample_grad_warp_derivative(g, x, w, along[0], f.map, f.mode, f.padding_mode,
                                                f.align_corners);
}

inline std::vector<Along> directions(const Form& form, const Arguments& arguments) {
  if (arguments[kTangent].defined()) return {{arguments[kTangent]}};
  if (form.axis >= 0) return {{Tensor(), form.axis}};
  return {};
}

// A node whose inputs are those of the arguments that are defined.
struct FormNode : public Node {
  Form form;
  std::array<SavedVariable, kArguments> kept;
  std::array<int, kArguments> place;  // among the inputs; -1 where there is none

  void link(const Arguments& arguments) {
    torch::autograd::edge_list edges;
    for (int k = 0; k < kArguments; ++k) {
      place[k] = -1;
      if (!arguments[k].defined()) continue;
      place[k] = static_cast<int>(edges.size());
      edges.push_back(torch::autograd::impl::gradient_edge(arguments[k]));
    }
    set_next_edges(std::move(edges));
    for (int k = 0; k < kArguments; ++k) {
      // E is linear in all but the warp: its derivative by an argument does not need that.
      bool needed = k == kWarp;
      for (int other = 0; other < kArguments; ++other) needed |= other != k && wanted(other);
      if (place[k] >= 0 && needed) kept[k] = SavedVariable(arguments[k], false);
    }
  }

  bool wanted(int argument) const {
    return place[argument] >= 0 && should_compute_output(place[argument]);
  }

  Arguments saved() {
    std::lock_guard<std::mutex> lock(mutex_);
    Arguments arguments;
    for (int k = 0; k < kArguments; ++k) arguments[k] = kept[k].unpack();
    return arguments;
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& variable : kept) variable.reset_data();
  }

  bool asked_for(Argument argument) {
    return place[argument] >= 0 && task_should_compute_output(place[argument]);
  }

  // f(argument) for each whose gradient is asked for.
  template <class F>
  variable_list gradients(F&& f) {
    variable_list result(num_outputs());
    for (int k = 0; k < kArguments; ++k) {
      const Argument argument = static_cast<Argument>(k);
      if (asked_for(argument)) result[place[k]] = f(argument);
    }
    return result;
  }
};

struct FormBackward : public FormNode {
  std::string name() const override {
    const char* of[] = {form.mode.empty() ? "WarpGrid" : "Sample", "Splat",
                        form.mode.empty() ? "WarpGridBackward" : "SampleGradWarp"};
    const bool moves = place[kTangent] >= 0 || form.axis >= 0;
    return std::string(of[form.by]) + (moves ? "DerivativeBackward" : "Backward");
  }

  variable_list apply(variable_list&& grads) override {
    if (!grads[0].defined()) return variable_list(num_outputs());
    Arguments arguments = saved();
    const std::vector<Along> moves = directions(form, arguments);
    std::vector<Along> rest;  // without the tangent
    std::vector<Along> all = moves;
    if (form.by == kWarp) {
      all.push_back({grads[0]});
      rest.push_back({grads[0]});
    } else {
      arguments[form.by] = grads[0];
    }
    if (is_of_sample() && moves.empty() && asked_for(kImage) && asked_for(kWarp) &&
        !at::GradMode::is_enabled() && are_plain(arguments)) {
      return both_gradients(arguments);
    }
    return gradients([&](Argument by) {
      return by == kTangent ? derivative(form, kWarp, arguments, rest)
                            : derivative(form, by, arguments, all);
    });
  }

 private:
  bool is_of_sample() const { return form.by == kGrad && !form.mode.empty(); }

  static bool are_plain(const Arguments& a) {
    return is_plain(a[kGrad]) && is_plain(a[kImage]) && is_plain(a[kWarp]);
  }

  // The same as one by one, but the kernels may share what they read.
  variable_list both_gradients(const Arguments& a) {
    variable_list result(num_outputs());
    std::tie(result[place[kImage]], result[place[kWarp]]) = sample_gradients(
        a[kGrad], a[kImage], a[kWarp], form.map, form.mode, form.padding_mode, form.align_corners);
    return result;
  }
};

// What forward-mode makes of the arguments' derivatives.
inline Tensor forward_derivative(const Form& form, const Arguments& arguments) {
  Arguments values, moved;
  for (int k = 0; k < kArguments; ++k) {
    if (!arguments[k].defined()) continue;
    values[k] = primal(arguments[k]);
    moved[k] = forward_grad(arguments[k]);
  }
  Tensor total;
  for (int k = 0; k < kArguments; ++k) {
    if (!moved[k].defined()) continue;
    Arguments part = values;
    if (k != kWarp) part[k] = moved[k];
    std::vector<Along> along = directions(form, part);
    if (k == kWarp) along.push_back({moved[k]});
    total = sum_of(total, derivative(form, form.by, part, along));
  }
  return total;
}

inline bool any_forward_grad(const Arguments& arguments) {
  bool any = false;
  for (const Tensor& one : arguments) any |= torch::autograd::isFwGradDefined(one);
  return any;
}

inline bool any_requires_grad(const Arguments& a) {
  return torch::autograd::compute_requires_grad(a[kGrad], a[kImage], a[kWarp], a[kTangent]);
}

// What `call` returns, with its derivatives. make(): the form.
template <class Call, class Make>
Tensor record(const Arguments& arguments, Call&& call, Make&& make) {
  NodePointer node;
  if (any_requires_grad(arguments)) {
    auto made = make_node<FormBackward>();
    made->form = make();
    made->link(arguments);
    node = std::move(made);
  }
  Tensor result = below_autograd(call);
  if (node) torch::autograd::set_history(result, node);
  if (any_forward_grad(arguments)) {
    const Tensor moved = forward_derivative(make(), arguments);
    if (moved.defined()) result._set_fw_grad(moved, 0, false);
  }
  return result;
}

}  // namespace form
}  // namespace stn_cuda
