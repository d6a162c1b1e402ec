// sample_filled's derivatives. With the value f around the image x it is, but for rounding,
//   sample(x - f, W) + f,
// whose derivatives by x and W are sample's of another image, and by f what 1 - sample(1, W) says.
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rsub.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <torch/library.h>

#include "autograd_form.h"
#include "checks.h"
#include "sampling.h"

namespace stn_cuda {
namespace {

using namespace form;

// f as an image of one pixel: (N or 1, C, 1, 1(, 1)).
Tensor as_image(const Tensor& fill, int64_t dims) {
  Sizes shape = fill.sym_sizes().vec();
  shape.insert(shape.end(), static_cast<size_t>(dims), c10::SymInt(1));
  return fill.view_symint(shape);
}

// What is subtracted, or summed up, of 16 bits is to be rounded once, at the end.
Tensor widened(const Tensor& tensor) {
  const auto type = tensor.scalar_type();
  return type == at::kHalf || type == at::kBFloat16 ? tensor.to(at::kFloat) : tensor;
}

struct Filled {
  const Form& form;  // of sample
  int64_t dims = static_cast<int64_t>(form.image_shape.size()) - 2;

  // x - f
  Tensor above(const Tensor& input, const Tensor& fill) const {
    return at::sub(widened(input), as_image(widened(fill), dims));
  }

  // How much of each point's look is not inside, (N or 1, 1, *size).
  Tensor outside(const Tensor& like, const Tensor& warp) const {
    Sizes shape(static_cast<size_t>(dims) + 2, c10::SymInt(1));
    const Tensor one = at::ones_symint(shape, like.options());
    std::copy(form.image_shape.begin() + 2, form.image_shape.end(), shape.begin() + 2);
    const Tensor ones = one.expand_symint(shape);
    return at::rsub(ops::sample(ones, warp, form.map, form.size, form.mode, form.padding_mode,
                                form.align_corners),
                    1);
  }

  Tensor by_fill(const Tensor& grad, const Tensor& warp, const c10::SymInt& batch) const {
    const Tensor wide = widened(grad);
    std::vector<int64_t> points;
    if (batch == 1) points.push_back(0);
    for (int64_t d = 0; d < dims; ++d) points.push_back(d + 2);
    Sizes shape{batch, grad.sym_size(1)};
    return at::sum(at::mul(wide, outside(wide, warp)), points)
        .reshape_symint(shape)
        .to(grad.scalar_type());
  }
};

// The fill has the place of the tangent, which there is none of.
constexpr Argument kFill = kTangent;

struct SampleFilledBackward : public FormNode {
  c10::SymInt fill_batch;

  std::string name() const override { return "SampleFilledBackward"; }

  variable_list apply(variable_list&& grads) override {
    if (!grads[0].defined()) return variable_list(num_outputs());
    Arguments arguments = saved();
    const Tensor& grad = grads[0];
    const Tensor &input = arguments[kImage], &warp = arguments[kWarp], &fill = arguments[kFill];
    const Filled filled{form};
    return gradients([&](Argument by) {
      if (by == kFill) return filled.by_fill(grad, warp, fill_batch);
      Arguments linear{grad, Tensor(), warp, Tensor()};
      if (by == kImage) return derivative(form, kImage, linear, {});
      linear[kGrad] = widened(grad);
      linear[kImage] = filled.above(input, fill);
      return derivative(form, kWarp, linear, {});
    });
  }
};

// What forward-mode makes of the arguments' derivatives.
Tensor moved_by(const Filled& filled, const Tensor& input, const Tensor& warp, const Tensor& fill) {
  const Form& form = filled.form;
  const Tensor x = primal(input), w = primal(warp), f = primal(fill);
  const Tensor dx = forward_grad(input), dw = forward_grad(warp), df = forward_grad(fill);
  Tensor total;
  if (dx.defined()) total = derivative(form, kGrad, {Tensor(), dx, w, Tensor()}, {});
  if (dw.defined()) {
    const Arguments moving{Tensor(), filled.above(x, f), w, Tensor()};
    total = sum_of(total, derivative(form, kGrad, moving, {{dw}}));
  }
  if (df.defined()) {
    const Tensor around = as_image(widened(df), filled.dims);
    total = sum_of(total, at::mul(around, filled.outside(around, w)));
  }
  return total;
}

// What `call` returns, with the derivatives of sample_filled.
template <class Call>
Tensor record_filled(const Tensor& input, const Tensor& warp, const Tensor& fill, Name map,
                     c10::SymIntArrayRef size, Name mode, Name padding_mode, bool align_corners,
                     Call&& call) {
  const Arguments arguments{Tensor(), input, warp, fill};
  check_still("sample", input, any_requires_grad(arguments) || any_forward_grad(arguments));
  const auto form = [&] {
    return form_of_sample(input, warp, -1, map, size, mode, padding_mode, align_corners);
  };
  NodePointer node;
  if (any_requires_grad(arguments)) {
    auto made = make_node<SampleFilledBackward>();
    made->form = form();
    made->fill_batch = fill.sym_size(0);
    made->link(arguments);
    node = std::move(made);
  }
  const Tensor result = below_autograd(call);
  if (node) torch::autograd::set_history(result, node);
  if (any_forward_grad(arguments)) {
    const Form of_sample = form();
    const Tensor moved = moved_by(Filled{of_sample}, input, warp, fill);
    if (moved.defined()) {
      const Tensor whole = moved.to(input.scalar_type()).expand_symint(result.sym_sizes());
      result._set_fw_grad(whole, 0, false);
    }
  }
  return result;
}

Tensor sample_filled_autograd(const Tensor& input, const Tensor& warp, const Tensor& fill, Name map,
                              c10::SymIntArrayRef size, Name mode, Name padding_mode,
                              bool align_corners) {
  return record_filled(input, warp, fill, map, size, mode, padding_mode, align_corners, [&] {
    return ops::sample_filled(input, warp, fill, map, size, mode, padding_mode, align_corners);
  });
}

// The output's derivatives are those of sample or sample_filled, the mask's those of what it is.
std::tuple<Tensor, Tensor> sample_masked_autograd(const Tensor& input, const Tensor& warp,
                                                  const std::optional<Tensor>& fill, Name map,
                                                  c10::SymIntArrayRef size, Name mode,
                                                  Name padding_mode, bool align_corners) {
  const Name mask_mode = mode_of_mask(mode);
  const Arguments arguments{Tensor(), input, warp, fill.value_or(Tensor())};
  check_still("sample", input, any_requires_grad(arguments) || any_forward_grad(arguments));
  if (any_forward_grad(arguments)) {
    const Tensor output =
        fill ? ops::sample_filled(input, warp, *fill, map, size, mode, padding_mode, align_corners)
             : ops::sample(input, warp, map, size, mode, padding_mode, align_corners);
    const Tensor ones = image_of_ones(input);
    return {output, ops::sample(ones, warp, map, size, mask_mode, "zeros", align_corners)};
  }
  const auto [output, mask] = below_autograd([&] {
    return ops::sample_masked(input, warp, fill, map, size, mode, padding_mode, align_corners);
  });
  const auto made = [](const Tensor& tensor) { return [&tensor] { return tensor; }; };
  if (!any_requires_grad(arguments)) return {output, mask};
  const Tensor recorded =
      fill ? record_filled(input, warp, *fill, map, size, mode, padding_mode, align_corners,
                           made(output))
           : record({Tensor(), input, warp, Tensor()}, made(output), [&] {
               return form_of_sample(input, warp, -1, map, size, mode, padding_mode, align_corners);
             });
  const Tensor ones = image_of_ones(input);
  return {recorded, record({Tensor(), ones, warp, Tensor()}, made(mask), [&] {
            return form_of_sample(ones, warp, -1, map, size, mask_mode, "zeros", align_corners);
          })};
}

}  // namespace
}  // namespace stn_cuda

TORCH_LIBRARY_IMPL(stn_cuda, Autograd, m) {
  m.impl("sample_masked", stn_cuda::sample_masked_autograd);
  m.impl("sample_filled", stn_cuda::sample_filled_autograd);
}
