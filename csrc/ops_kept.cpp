#include "ops_kept.h"

#include <ATen/Parallel.h>

#include "allocate.h"
#include "look.h"
#include "plain.h"

namespace stn_cuda {
namespace {

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

// A free map's slopes become its gradient, in the same memory if it is `ours`.
at::Tensor slopes_times(const at::Tensor& slopes, const at::Tensor& values, bool ours) {
  const at::Tensor result = ours ? slopes : slopes.clone();
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

// A free map's lie as its values do, another one's as a grid's, axis by axis.
at::Tensor empty_slopes(const at::Tensor& warp, MapKind map, at::IntArrayRef shape) {
  if (is_free(map)) return empty_grad_warp(warp, map);
  std::vector<int64_t> planes = shape.vec();
  planes[1] = static_cast<int64_t>(shape.size()) - 2;
  return empty_result(planes, warp.options()).movedim(1, -1);
}

// Whether there are slopes of a parametric map, and they stay in the caches. (Others are not kept:
// a warp writes no grid.)
bool are_few(const at::Tensor& warp, at::IntArrayRef size) {
  constexpr int64_t kMost = int64_t(1) << 21;  // bytes
  const int64_t dims = static_cast<int64_t>(size.size()), points = c10::multiply_integers(size);
  return warp.dim() == 3 && points > 0 &&
         warp.size(0) * dims * points * warp.element_size() <= kMost;
}

}  // namespace

bool can_keep_slopes(const at::Tensor& input, const at::Tensor& warp, c10::string_view map,
                     c10::SymIntArrayRef size, c10::string_view mode) {
  const MapKind kind = parse_map("sample", map);
  if (mode == "nearest") return false;
  if (called_next(input, warp) != c10::DispatchKey::CPU) return false;
  const auto known = c10::asIntArrayRefSlowOpt(size);
  const bool one = input.dim() > 3 && input.size(1) == 1 &&
                   (input.size(0) == 1 || input.size(0) == warp.size(0));
  const bool wide = warp.scalar_type() == at::kFloat || warp.scalar_type() == at::kDouble;
  if (!one || !wide || !known || !owns_elements(input)) return false;
  const bool worth =
      is_free(kind) ? input.dim() == warp.dim() && owns_elements(warp) : are_few(warp, *known);
  return worth && backend(c10::DeviceType::CPU).keeps;
}

std::tuple<at::Tensor, at::Tensor> sample_with_slopes(
    const at::Tensor& input, const at::Tensor& warp, c10::string_view map, c10::SymIntArrayRef size,
    c10::string_view mode, c10::string_view padding_mode, bool align_corners) {
  return look("sample", false, input, warp, map, C10_AS_INTARRAYREF_SLOW(size), mode, padding_mode,
              align_corners, [&](const Backend& backend, SampleParams& p, at::IntArrayRef shape) {
                at::Tensor output = empty_like_image(shape, input);
                at::Tensor slopes = empty_slopes(warp, p.map, shape);
                p.output = image_of(output, p.batch);
                p.grad_warp = warp_of(slopes, MapKind::grid, p.batch);
                p.keeps = true;
                backend.grad_warp(p);
                return std::make_tuple(output, slopes);
              });
}

at::Tensor warp_gradient(const at::Tensor& slopes, bool ours, const at::Tensor& grad,
                         const at::Tensor& input, const at::Tensor& warp, c10::string_view map,
                         c10::string_view mode, c10::string_view padding_mode, bool align_corners) {
  const char* op = "sample_grad_warp";
  if (is_free(parse_map(op, map))) return slopes_times(slopes, grad.select(1, 0), ours);
  return look(op, false, input, warp, map, grad.sizes().slice(2), mode, padding_mode, align_corners,
              [&](const Backend& backend, SampleParams& p, at::IntArrayRef) {
                const at::Tensor values = grad.to(slopes.scalar_type()).contiguous();
                at::Tensor result = empty_grad_warp(warp, p.map);
                p.output = image_of(values, p.batch);
                p.grad_warp = warp_of(result, p.map, p.batch);
                p.slopes = warp_of(slopes, MapKind::pixel_grid, p.batch);
                backend.grad_warp(p);
                return result;
              });
}

}  // namespace stn_cuda
