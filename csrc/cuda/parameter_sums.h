// The sums from which a parametric map's gradient is made: over a block, then over the blocks of a
// warp, always in the same order.
#pragma once

#include "cuda/dispatch.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// The sum over the block of each s[k]; of use in thread k.
template <int S, class T>
__device__ double block_sum(const T (&s)[S]) {
  constexpr int kGroups = kThreads / 32;
  __shared__ double group_sum[kGroups][S];
#pragma unroll
  for (int k = 0; k < S; ++k) {
    T sum = s[k];
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lane);
    if (threadIdx.x % 32 == 0) group_sum[threadIdx.x / 32][k] = static_cast<double>(sum);
  }
  __syncthreads();
  double total = 0;
  if (threadIdx.x < S) {
    for (int g = 0; g < kGroups; ++g) total += group_sum[g][threadIdx.x];
  }
  return total;
}

template <class Map, class T, int D>
__device__ void store_block_sums(const Map& map, const Spot<D>& spot, const T (&g)[D], bool counts,
                                 double* partial) {
  T at[D], s[Map::sums] = {};
  position(spot.p, at);
  if (counts) map.accumulate(at, g, s);
  const double sum = block_sum(s);
  if (threadIdx.x < Map::sums) partial[int64_t(blockIdx.x) * Map::sums + threadIdx.x] = sum;
}

// What the last step is told: `per_warp` consecutive rows of partial sums for each warp.
template <int D>
struct FinishLaunch {
  Warp warp, grad_warp;
  Frame<double, D> frame;
  int64_t output_size[3];
  bool align_corners;
  const double* partial;
  int64_t per_warp;
};

// A block for each warp.
template <class Map, int D>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(const __grid_constant__ FinishLaunch<D> launch) {
  const int64_t n = blockIdx.x;
  const double* partial = launch.partial + n * launch.per_warp * Map::sums;
  double s[Map::sums] = {};
  for (int64_t row = threadIdx.x; row < launch.per_warp; row += kThreads) {
#pragma unroll
    for (int k = 0; k < Map::sums; ++k) s[k] += partial[row * Map::sums + k];
  }
  const double sum = block_sum(s);
  const int k = threadIdx.x;
  if (k < Map::sums) {
    const Map map(launch.warp, n, launch.frame, launch.output_size, launch.align_corners);
    store_as(launch.grad_warp.data, launch.grad_warp.type, n * launch.grad_warp.stride_n + k,
             map.finish(k, sum));
  }
}

template <class Map, class Params, int D>
cudaError_t finish(const Params& p, const Frame<double, D>& frame, const Work& work,
                   const double* partial, cudaStream_t stream) {
  const FinishLaunch<D> launch{p.warp,
                               p.grad_warp,
                               frame,
                               {p.output_size[0], p.output_size[1], p.output_size[2]},
                               p.align_corners,
                               partial,
                               work.blocks / work.warps};
  finish_kernel<Map><<<static_cast<unsigned>(work.warps), kThreads, 0, stream>>>(launch);
  return cudaGetLastError();
}

inline int64_t sums_bytes(const Work& work, int sums) {
  return work.blocks * sums * static_cast<int64_t>(sizeof(double));
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
