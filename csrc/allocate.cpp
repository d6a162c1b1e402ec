#include "allocate.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "switch.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace stn_cuda {
namespace {

// What glibc maps for itself and hands back when it is freed, so that its pages are always new.
// Smaller memory it keeps, and huge pages gain nothing there (benchmarks/README.md).
constexpr size_t kLarge = size_t(1) << 25;

void prefer_huge_pages([[maybe_unused]] const at::Tensor& tensor) {
#if defined(MADV_HUGEPAGE)
  static const bool wanted = switched("STN_CUDA_HUGE_PAGES", {"0", "1"}, [] { return 1; }) == 1;
  if (!wanted || tensor.nbytes() < kLarge) return;
  // Only pages that are all the tensor's own: what the allocator keeps beside it is not ours.
  constexpr uintptr_t kPage = uintptr_t(1) << 21;
  const auto begin = reinterpret_cast<uintptr_t>(tensor.data_ptr());
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const uintptr_t last = (begin + tensor.nbytes()) / kPage * kPage;
  // Advice: a kernel that does not know it says so, and nothing is lost.
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace

at::Tensor empty_result(at::IntArrayRef shape, const at::TensorOptions& options) {
  at::Tensor result = at::empty(shape, options);
  if (result.device().is_cpu()) prefer_huge_pages(result);
  return result;
}

at::Tensor empty_result_like(const at::Tensor& tensor) {
  at::Tensor result = at::empty_like(tensor);
  if (result.device().is_cpu()) prefer_huge_pages(result);
  return result;
}

}  // namespace stn_cuda
