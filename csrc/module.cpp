// The Python module stn_cuda._C: build facts, and entries to the ops that skip torch.ops' argument
// matching (about 5 us a call). The entries call the dispatcher, so autograd, fake tensors, tracing
// and functorch see them as they see torch.ops.stn_cuda.*.
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <optional>
#include <string>
#include <vector>

#include "checks.h"
#include "cpu/kernels.h"
#include "ops.h"

namespace {

using at::Tensor;
using Name = const std::string&;
using Size = const std::vector<c10::SymInt>&;

template <class Signature>
auto find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// Whether the autograd formula (Python) must see the call.
bool needs_autograd(const Tensor& a, const Tensor& b) {
  using c10::DispatchKey;
  if (c10::impl::tls_local_dispatch_key_set().included_.has(
          DispatchKey::FuncTorchDynamicLayerFrontMode)) {
    return true;
  }
  const auto tracked = [](const Tensor& t) { return t.requires_grad() || t._fw_grad(0).defined(); };
  return at::GradMode::is_enabled() && (tracked(a) || tracked(b));
}

template <class F>
Tensor dispatch(const Tensor& a, const Tensor& b, F&& call) {
  if (needs_autograd(a, b)) return call();
  at::AutoDispatchBelowAutograd guard;
  return call();
}

Tensor sample(const Tensor& input, const Tensor& warp, Name map, Size size, Name mode,
              Name padding_mode, bool align_corners) {
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, c10::string_view, c10::SymIntArrayRef,
                     c10::string_view, c10::string_view, bool)>("stn_cuda::sample");
  return dispatch(input, warp, [&] {
    return op.call(input, warp, map, size, mode, padding_mode, align_corners);
  });
}

Tensor splat(const Tensor& values, const Tensor& warp, Name map, Size shape, bool channels_last,
             Name mode, Name padding_mode, bool align_corners) {
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, c10::string_view, c10::SymIntArrayRef, bool,
                     c10::string_view, c10::string_view, bool)>("stn_cuda::splat");
  return dispatch(values, warp, [&] {
    return op.call(values, warp, map, shape, channels_last, mode, padding_mode, align_corners);
  });
}

Tensor sample_grad_warp(const Tensor& grad, const Tensor& input, const Tensor& warp, Name map,
                        Name mode, Name padding_mode, bool align_corners) {
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, const Tensor&, c10::string_view,
                     c10::string_view, c10::string_view, bool)>("stn_cuda::sample_grad_warp");
  const auto call = [&] {
    return op.call(grad, input, warp, map, mode, padding_mode, align_corners);
  };
  return grad.requires_grad() ? call() : dispatch(input, warp, call);
}

Tensor warp_grid(const Tensor& warp, Name map, Size size, bool align_corners) {
  static const auto op =
      find_op<Tensor(const Tensor&, c10::string_view, c10::SymIntArrayRef, bool)>(
          "stn_cuda::warp_grid");
  return dispatch(warp, warp, [&] { return op.call(warp, map, size, align_corners); });
}

template <class F>
void define(pybind11::module& m, const char* name, F&& f) {
  m.def(name, torch::wrap_pybind_function(std::forward<F>(f)));
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.doc() = "Compiled part of stn_cuda.";
  define(m, "sample", sample);
  define(m, "splat", splat);
  define(m, "sample_grad_warp", sample_grad_warp);
  define(m, "warp_grid", warp_grid);
  // The checks alone, for the fake functions.
  define(m, "check_sample",
         [](const Tensor& input, const Tensor& warp, Name map, Size size, Name mode,
            Name padding_mode) {
           stn_cuda::check_sample(input, warp, map, size, mode, padding_mode);
         });
  define(m, "check_splat",
         [](const Tensor& values, const Tensor& warp, Name map, Size shape, Name mode,
            Name padding_mode) {
           stn_cuda::check_splat(values, warp, map, shape, mode, padding_mode);
         });
  define(m, "check_sample_grad_warp",
         [](const Tensor& grad, const Tensor& input, const Tensor& warp, Name map, Name mode,
            Name padding_mode) {
           stn_cuda::check_sample_grad_warp(grad, input, warp, map, mode, padding_mode);
         });
  define(m, "check_warp_grid", [](const Tensor& warp, Name map, Size size) {
    stn_cuda::check_warp_grid(warp, map, size);
  });
  define(m, "check_warp_grid_backward", [](const Tensor& grad, const Tensor& warp, Name map) {
    stn_cuda::check_warp_grid_backward(grad, warp, map);
  });
  define(m, "cpu_isa", [] { return std::string(stn_cuda::cpu::kernels().name); });
  define(m, "num_threads", [] { return at::get_num_threads(); });
  // A wrong STN_CUDA_ISA is told at import, not in the middle of the first call.
  torch::wrap_pybind_function([] { stn_cuda::cpu::kernels(); })();
}
