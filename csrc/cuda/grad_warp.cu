// The gradient that reaches the warp: of a grid, written point by point; of a map's parameters,
// summed in a fixed order. Repeatable in any mode.
#define STN_ISA device

#include "cuda/grad_warp.h"

#include "cuda/block_map.h"
#include "cuda/kernels.h"
#include "cuda/parameter_sums.h"

namespace stn_cuda {
namespace cuda {
namespace {

template <class Element, int K, class Index, class Map, class T, int D>
__global__ void __launch_bounds__(kThreads)
    grad_warp_kernel(const __grid_constant__ SampleLaunch<T, D> launch, double* partial) {
  using A = Accumulate<Element>;
  __shared__ BlockMap<Map> shared;
  const Place place = place_of(launch.work, blockIdx.x);
  const auto& map = shared.make(launch.p, launch.frame, place.warp);
  const Spot<D> spot = spot_of<D>(launch.work, launch.p.output_size, place.tile, threadIdx.x);
  A grad[D];
  coordinate_gradient<Element, K, Index>(launch, map, place, spot, grad);
  T g[D];
#pragma unroll
  for (int d = 0; d < D; ++d) {
    for (int lane = (1 << launch.work.log_share) / 2; lane > 0; lane /= 2) {
      grad[d] += __shfl_xor_sync(0xffffffffu, grad[d], lane);
    }
    g[d] = static_cast<T>(grad[d]);
  }
  const bool first = spot.inside && spot.share == 0;
  if constexpr (Map::parametric) {
    store_block_sums(map, spot, g, first, partial);
  } else {
    if (first) write_gradient(map, launch.p.grad_warp, spot, g);
  }
}

template <class Element, int K, class Index, class Map, int D>
cudaError_t run(const SampleParams& p, double* partial, cudaStream_t stream) {
  const auto launch = make_gradient_launch<Coordinate<Map>, D>(p);
  if (launch.work.blocks > kLargestGrid) return cudaErrorInvalidConfiguration;
  const auto blocks = static_cast<unsigned>(launch.work.blocks);
  grad_warp_kernel<Element, K, Index, Map><<<blocks, kThreads, 0, stream>>>(launch, partial);
  const cudaError_t error = cudaGetLastError();
  if constexpr (Map::parametric) {
    if (error != cudaSuccess) return error;
    return finish<InDouble<Map>>(p, pixel_frame<double, D>(p.input_size, p.align_corners),
                                 launch.work, partial, stream);
  }
  return error;
}

}  // namespace

int64_t grad_warp_scratch(const SampleParams& p) {
  return with_map<2>(p.map, ElementType::f32, [&](auto map) -> int64_t {
    if (!decltype(map)::type::parametric) return 0;
    const int sums = p.dims * (p.dims + 1);
    return p.dims == 2 ? sums_bytes(make_gradient_launch<float, 2>(p).work, sums)
                       : sums_bytes(make_gradient_launch<float, 3>(p).work, sums);
  });
}

cudaError_t grad_warp(const SampleParams& p, void* scratch, cudaStream_t stream) {
  return with_element(p.input.type, [&](auto element) {
    using Element = typename decltype(element)::type;
    return with_taps(p.interpolation, p.dims, [&](auto taps, auto dims) {
      constexpr int K = decltype(taps)::value, D = decltype(dims)::value;
      // The gradient of nearest is 0: ops.cpp returns zeros.
      if constexpr (K == 1) {
        return cudaErrorInvalidValue;
      } else {
        return with_map<D>(p.map, p.warp.type, [&](auto map) {
          using Map = typename decltype(map)::type;
          double* partial = static_cast<double*>(scratch);
          // The fast form for the usual coordinates; one kernel serves all images of the others.
          if constexpr (sizeof(Coordinate<Map>) == sizeof(float)) {
            if (fits_int32(p)) return run<Element, K, int32_t, Map, D>(p, partial, stream);
          }
          return run<Element, K, int64_t, Map, D>(p, partial, stream);
        });
      }
    });
  });
}

}  // namespace cuda
}  // namespace stn_cuda
