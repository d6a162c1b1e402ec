#include "ops_kept.h"

#include <ATen/Parallel.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "look.h"

namespace stn_cuda {
namespace {

// What the dispatcher would call after autograd. (It passes by BackendSelect, which is for
// functions that make tensors.)
c10::DispatchKey called_next(const at::Tensor& input, const at::Tensor& warp) {
  const auto local = c10::impl::tls_local_dispatch_key_set();
  const auto keys = ((input.key_set() | warp.key_set() | local.included_) - local.excluded_) &
                    c10::after_ADInplaceOrView_keyset;
  return keys.remove(c10::DispatchKey::BackendSelect).highestPriorityTypeId();
}

// Whether there are elements, none of which stands for several (as those of an expanded tensor do).
bool owns_elements(const at::Tensor& tensor) {
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) > 1 && tensor.stride(d) == 0) return false;
  }
  return tensor.numel() > 0;
}

constexpr int64_t kGrain = 32768;  // points that are worth a thread of their own

// slopes[p, :] *= grad[p]. (at::mul's innermost loop would be over the components.)
template <class T, int D>
void multiply_components(const at::Tensor& slopes, const at::Tensor& grad) {
  T* __restrict to = slopes.data_ptr<T>();
  const T* __restrict from = grad.const_data_ptr<T>();
  at::parallel_for(0, grad.numel(), kGrain, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int d = 0; d < D; ++d) to[i * D + d] *= from[i];
    }
  });
}

}  // namespace

bool is_plain(const at::Tensor& grad) { return called_next(grad, grad) == c10::DispatchKey::CPU; }

bool can_keep_slopes(const at::Tensor& input, const at::Tensor& warp, c10::string_view map,
                     c10::string_view mode) {
  if (!is_free(parse_map("sample", map)) || mode == "nearest") return false;
  if (called_next(input, warp) != c10::DispatchKey::CPU) return false;
  const bool one = input.dim() == warp.dim() && input.dim() > 3 && input.size(1) == 1 &&
                   (input.size(0) == 1 || input.size(0) == warp.size(0));
  const bool wide = warp.scalar_type() == at::kFloat || warp.scalar_type() == at::kDouble;
  return one && wide && owns_elements(input) && owns_elements(warp) &&
         backend(c10::DeviceType::CPU).keeps;
}

std::tuple<at::Tensor, at::Tensor> sample_with_slopes(const at::Tensor& input,
                                                      const at::Tensor& warp, c10::string_view map,
                                                      c10::string_view mode,
                                                      c10::string_view padding_mode,
                                                      bool align_corners) {
  return look("sample", false, input, warp, map, {}, mode, padding_mode, align_corners,
              [&](const Backend& backend, SampleParams& p, at::IntArrayRef shape) {
                at::Tensor output = empty_like_image(shape, input);
                at::Tensor slopes = empty_grad_warp(warp, p.map);
                p.output = image_of(output, p.batch);
                p.grad_warp = warp_of(slopes, p.map, p.batch);
                p.keeps = true;
                backend.grad_warp(p);
                return std::make_tuple(output, slopes);
              });
}

at::Tensor slopes_times(const at::Tensor& slopes, const at::Tensor& grad, bool ours) {
  const at::Tensor result = ours ? slopes : slopes.clone();
  const at::Tensor values = grad.select(1, 0);
  if (!result.is_contiguous() || values.scalar_type() != result.scalar_type()) {
    result.mul_(values.unsqueeze(-1));
    return result;
  }
  const at::Tensor factors = values.contiguous();
  const bool plane = result.size(-1) == 2;
  if (result.scalar_type() == at::kFloat) {
    plane ? multiply_components<float, 2>(result, factors)
          : multiply_components<float, 3>(result, factors);
  } else {
    plane ? multiply_components<double, 2>(result, factors)
          : multiply_components<double, 3>(result, factors);
  }
  return result;
}

}  // namespace stn_cuda
