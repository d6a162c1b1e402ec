// The kernels of splat.cu and splat_deterministic.cu, and their launch.
#pragma once

#include "cuda/block_map.h"
#include "cuda/splat.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

template <class Element, int K, class Index, class Map, class Sums, class T, int D>
__global__ void __launch_bounds__(kThreads)
    splat_kernel(const __grid_constant__ SampleLaunch<T, D> launch, const Sums sums) {
  __shared__ BlockMap<Map> shared;
  const Place place = place_of(launch.work, blockIdx.x);
  splat_thread<Element, K, Index>(launch, sums, shared.make(launch.p, launch.frame, place.warp),
                                  place, threadIdx.x);
}

template <class Element, int K, class Index, class Map, int D, class Sums>
cudaError_t add_values_as(const SampleParams& p, const Sums& sums, cudaStream_t stream) {
  const auto launch = make_splat_launch<Coordinate<Map>, D>(p);
  if (launch.work.blocks > kLargestGrid) return cudaErrorInvalidConfiguration;
  const auto blocks = static_cast<unsigned>(launch.work.blocks);
  splat_kernel<Element, K, Index, Map><<<blocks, kThreads, 0, stream>>>(launch, sums);
  return cudaGetLastError();
}

// Adds all values to `sums`.
template <class Element, class Sums>
cudaError_t add_values(const SampleParams& p, const Sums& sums, cudaStream_t stream) {
  return with_taps(p.interpolation, p.dims, [&](auto taps, auto dims) {
    constexpr int K = decltype(taps)::value, D = decltype(dims)::value;
    return with_map<D>(p.map, p.warp.type, [&](auto map) {
      using Map = typename decltype(map)::type;
      // The fast form for the usual coordinates; one kernel serves all images of the others.
      if constexpr (sizeof(Coordinate<Map>) == sizeof(float)) {
        if (fits_int32(p)) return add_values_as<Element, K, int32_t, Map, D>(p, sums, stream);
      }
      return add_values_as<Element, K, int64_t, Map, D>(p, sums, stream);
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
