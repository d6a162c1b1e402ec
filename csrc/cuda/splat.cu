// splat, where the order of the additions is free.
#define STN_ISA device

#include "cuda/kernels.h"
#include "cuda/splat_deterministic.h"
#include "cuda/splat_kernel.h"

namespace stn_cuda {
namespace cuda {
namespace {

template <class Element>
__global__ void __launch_bounds__(kThreads)
    round_kernel(const float* sums, Element* image, int64_t count) {
  const int64_t step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    image[i] = Narrow<Element>::from(sums[i]);
  }
}

template <class Element>
constexpr bool kDirect = sizeof(Element) == sizeof(Accumulate<Element>);

template <class Element>
cudaError_t run(const SampleParams& p, void* scratch, cudaStream_t stream) {
  using A = Accumulate<Element>;
  const int64_t count = image_elements(p);
  A* sums = static_cast<A*>(kDirect<Element> ? p.input.data : scratch);
  cudaError_t error = cudaMemsetAsync(sums, 0, count * sizeof(A), stream);
  if (error != cudaSuccess) return error;
  error = add_values<Element>(p, FloatSums<A>{sums}, stream);
  if constexpr (!kDirect<Element>) {
    if (error != cudaSuccess) return error;
    round_kernel<<<striding_blocks(count), kThreads, 0, stream>>>(
        sums, static_cast<Element*>(p.input.data), count);
    error = cudaGetLastError();
  }
  return error;
}

}  // namespace

int64_t splat_scratch(const SampleParams& p) {
  return with_element(p.input.type, [&](auto element) -> int64_t {
    using Element = typename decltype(element)::type;
    if (p.deterministic) return repeatable_scratch(p);
    return kDirect<Element> ? 0 : image_elements(p) * sizeof(float);
  });
}

cudaError_t splat(const SampleParams& p, void* scratch, cudaStream_t stream) {
  if (p.deterministic) return repeatable_splat(p, scratch, stream);
  return with_element(p.input.type, [&](auto element) {
    return run<typename decltype(element)::type>(p, scratch, stream);
  });
}

}  // namespace cuda
}  // namespace stn_cuda
