// Whether anybody stands between autograd and the kernels, who wants to see what is called.
#pragma once

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/functions/utils.h>

namespace stn_cuda {

// What the dispatcher would call after autograd. (It passes by BackendSelect, which is for
// functions that make tensors.)
inline c10::DispatchKey called_next(const at::Tensor& input, const at::Tensor& warp) {
  const auto local = c10::impl::tls_local_dispatch_key_set();
  const auto keys = ((input.key_set() | warp.key_set() | local.included_) - local.excluded_) &
                    c10::after_ADInplaceOrView_keyset;
  return keys.remove(c10::DispatchKey::BackendSelect).highestPriorityTypeId();
}

// Whether nobody else wants to see what is done with what flows back, which may come in batches, as
// a fake or as a dual number.
inline bool is_plain(const at::Tensor& grad) {
  const c10::DispatchKey next = called_next(grad, grad);
  const bool kernels = next == c10::DispatchKey::CPU || next == c10::DispatchKey::CUDA;
  return kernels && !torch::autograd::isFwGradDefined(grad);
}

}  // namespace stn_cuda
