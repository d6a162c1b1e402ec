// A parametric map's normalised coordinates, written out as a grid, and the adjoint.
#define STN_ISA device

#include "cuda/block_map.h"
#include "cuda/kernels.h"
#include "cuda/parameter_sums.h"

namespace stn_cuda {
namespace cuda {
namespace {

template <class T, int D>
struct GridLaunch {
  GridParams p;
  Frame<T, D> frame;
  Work work;
};

template <class T, int D>
GridLaunch<T, D> make_grid_launch(const GridParams& p) {
  return {p, normalised_frame<T, D>(), make_work(p.output_size, D, p.batch, 1, 1, 0)};
}

template <class Map, class T, int D>
__global__ void __launch_bounds__(kThreads)
    warp_grid_kernel(const __grid_constant__ GridLaunch<T, D> launch) {
  __shared__ BlockMap<Map> shared;
  const Warp& grid = launch.p.grid;
  const Place place = place_of(launch.work, blockIdx.x);
  const auto& map = shared.make(launch.p, launch.frame, place.warp);
  const Spot<D> spot = spot_of<D>(launch.work, launch.p.output_size, place.tile, threadIdx.x);
  if (!spot.inside) return;
  T x[D];
  look(map, spot.p, x);
  const int64_t at = place.warp * grid.stride_n + offset_of(spot.p, grid.stride);
  for (int d = 0; d < D; ++d) store_as(grid.data, grid.type, at + d * grid.stride_k, x[d]);
}

template <class Map, class T, int D>
__global__ void __launch_bounds__(kThreads)
    warp_grid_backward_kernel(const __grid_constant__ GridLaunch<T, D> launch, double* partial) {
  __shared__ BlockMap<Map> shared;
  const Warp& grid = launch.p.grid;
  const Place place = place_of(launch.work, blockIdx.x);
  const auto& map = shared.make(launch.p, launch.frame, place.warp);
  const Spot<D> spot = spot_of<D>(launch.work, launch.p.output_size, place.tile, threadIdx.x);
  T g[D] = {};
  if (spot.inside) {
    const int64_t at = place.warp * grid.stride_n + offset_of(spot.p, grid.stride);
    for (int d = 0; d < D; ++d) g[d] = load_as<T>(grid.data, grid.type, at + d * grid.stride_k);
  }
  store_block_sums(map, spot, g, spot.inside, partial);
}

// f(Type<map>, Number<dims>) for the parametric maps; ops.cpp refuses grids here.
template <class F>
cudaError_t with_parametric(const GridParams& p, F&& f) {
  const auto with_dims = [&](auto dims) {
    return with_map<decltype(dims)::value>(p.map, p.warp.type, [&](auto map) {
      if constexpr (decltype(map)::type::parametric) {
        return f(map, dims);
      } else {
        return cudaErrorInvalidValue;
      }
    });
  };
  return p.dims == 2 ? with_dims(Number<2>{}) : with_dims(Number<3>{});
}

}  // namespace

cudaError_t warp_grid(const GridParams& p, cudaStream_t stream) {
  return with_parametric(p, [&](auto map, auto dims) {
    using Map = typename decltype(map)::type;
    const auto launch = make_grid_launch<Coordinate<Map>, decltype(dims)::value>(p);
    if (launch.work.blocks > kLargestGrid) return cudaErrorInvalidConfiguration;
    const auto blocks = static_cast<unsigned>(launch.work.blocks);
    warp_grid_kernel<Map><<<blocks, kThreads, 0, stream>>>(launch);
    return cudaGetLastError();
  });
}

int64_t warp_grid_backward_scratch(const GridParams& p) {
  return sums_bytes(make_work(p.output_size, p.dims, p.batch, 1, 1, 0), p.dims * (p.dims + 1));
}

cudaError_t warp_grid_backward(const GridParams& p, void* scratch, cudaStream_t stream) {
  return with_parametric(p, [&](auto map, auto dims) {
    using Map = typename decltype(map)::type;
    constexpr int D = decltype(dims)::value;
    double* partial = static_cast<double*>(scratch);
    const auto launch = make_grid_launch<Coordinate<Map>, D>(p);
    if (launch.work.blocks > kLargestGrid) return cudaErrorInvalidConfiguration;
    const auto blocks = static_cast<unsigned>(launch.work.blocks);
    warp_grid_backward_kernel<Map><<<blocks, kThreads, 0, stream>>>(launch, partial);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
    return finish<InDouble<Map>>(p, normalised_frame<double, D>(), launch.work, partial, stream);
  });
}

}  // namespace cuda
}  // namespace stn_cuda
