// The forward kernels.
#define STN_ISA device

#include "cuda/sample.h"

#include "cuda/block_map.h"
#include "cuda/kernels.h"

namespace stn_cuda {
namespace cuda {
namespace {

template <class Element, int K, int N, class Index, class Map, class T, int D>
__global__ void __launch_bounds__(kThreads)
    sample_kernel(const __grid_constant__ SampleLaunch<T, D> launch) {
  __shared__ BlockMap<Map> shared;
  const Place place = place_of(launch.work, blockIdx.x);
  sample_thread<Element, K, N, Index>(launch, shared.make(launch.p, launch.frame, place.warp),
                                      place, threadIdx.x);
}

template <class Element, int K, int N, class Index, class Map, int D>
cudaError_t run(const SampleParams& p, cudaStream_t stream) {
  using T = Coordinate<Map>;
  const auto launch = make_sample_launch<T, D>(p, N, unrolled_steps<K, D, N>());
  if (launch.work.blocks > kLargestGrid) return cudaErrorInvalidConfiguration;
  const auto blocks = static_cast<unsigned>(launch.work.blocks);
  sample_kernel<Element, K, N, Index, Map><<<blocks, kThreads, 0, stream>>>(launch);
  return cudaGetLastError();
}

}  // namespace

cudaError_t sample(const SampleParams& p, cudaStream_t stream) {
  return with_element(p.input.type, [&](auto element) {
    using Element = typename decltype(element)::type;
    return with_taps(p.interpolation, p.dims, [&](auto taps, auto dims) {
      constexpr int K = decltype(taps)::value, D = decltype(dims)::value;
      return with_map<D>(p.map, p.warp.type, [&](auto map) {
        using Map = typename decltype(map)::type;
        // The fast forms for the usual coordinates; one kernel serves all images of the others.
        if constexpr (sizeof(Coordinate<Map>) == sizeof(float)) {
          constexpr int N = 16 / sizeof(Element);
          if (fits_int32(p)) {
            return packed<Element>(p) ? run<Element, K, N, int32_t, Map, D>(p, stream)
                                      : run<Element, K, 1, int32_t, Map, D>(p, stream);
          }
        }
        return run<Element, K, 1, int64_t, Map, D>(p, stream);
      });
    });
  });
}

}  // namespace cuda
}  // namespace stn_cuda
