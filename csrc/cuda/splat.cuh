// The kernels of splat.cu and splat_deterministic.cu, and their launch.
#pragma once

#include "cuda/block_map.h"
#include "cuda/splat.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

template <class Sums, class Element, int K, class Map, class T, int D>
__global__ void __launch_bounds__(kThreads)
    splat_kernel(const __grid_constant__ SampleLaunch<T, D> launch, const Sums sums) {
  __shared__ BlockMap<Map> shared;
  const Place place = place_of(launch.work, blockIdx.x);
  splat_thread<Sums, Element, K>(launch, sums, shared.make(launch.p, launch.frame, place.warp),
                                 place, threadIdx.x);
}

// Adds all values to `sums`.
template <class Element, class Sums>
cudaError_t add_values(const SampleParams& p, const Sums& sums, cudaStream_t stream) {
  return with_taps(p.interpolation, p.dims, [&](auto taps, auto dims) {
    constexpr int K = decltype(taps)::value, D = decltype(dims)::value;
    return with_map<D>(p.map, p.warp.type, [&](auto map) {
      using Map = typename decltype(map)::type;
      const auto launch = make_sample_launch<Coordinate<Map>, D>(p, 1, 1);
      if (launch.work.blocks > kLargestGrid) return cudaErrorInvalidConfiguration;
      const auto blocks = static_cast<unsigned>(launch.work.blocks);
      splat_kernel<Sums, Element, K, Map><<<blocks, kThreads, 0, stream>>>(launch, sums);
      return cudaGetLastError();
    });
  });
}

// Blocks of a kernel that strides over n elements.
inline unsigned striding_blocks(int64_t n) {
  const int64_t blocks = ceil_div(n, kThreads);
  return static_cast<unsigned>(blocks < 4 * kBusyBlocks ? blocks : 4 * kBusyBlocks);
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
