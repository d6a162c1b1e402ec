// The forward kernels.
#define STN_ISA device

#include "cuda/sample.h"

#include "cuda/block_map.h"
#include "cuda/kernels.h"

namespace stn_cuda {
namespace cuda {
namespace {

template <class Element, int K, int N, class Map, class T, int D>
__global__ void __launch_bounds__(kThreads)
    sample_kernel(const __grid_constant__ SampleLaunch<T, D> launch) {
  __shared__ BlockMap<Map> shared;
  const Place place = place_of(launch.work, blockIdx.x);
  sample_thread<Element, K, N>(launch, shared.make(launch.p, launch.frame, place.warp), place,
                               threadIdx.x);
}

template <class Element, int K, int N, class Map, int D>
cudaError_t run(const SampleParams& p, cudaStream_t stream) {
  using T = Coordinate<Map>;
  const auto launch = make_sample_launch<T, D>(p, N, unrolled_steps<K, D, N>());
  if (launch.work.blocks > kLargestGrid) return cudaErrorInvalidConfiguration;
  const auto blocks = static_cast<unsigned>(launch.work.blocks);
  sample_kernel<Element, K, N, Map><<<blocks, kThreads, 0, stream>>>(launch);
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
        // Packs for the usual coordinates only: one kernel serves all layouts of the others.
        if constexpr (sizeof(Coordinate<Map>) == sizeof(float)) {
          constexpr int N = 16 / sizeof(Element);
          if (packable(p, p.input, sizeof(Element), 16) &&
              packable(p, p.output, sizeof(Element), 16)) {
            return run<Element, K, N, Map, D>(p, stream);
          }
        }
        return run<Element, K, 1, Map, D>(p, stream);
      });
    });
  });
}

}  // namespace cuda
}  // namespace stn_cuda
