// The launches as launch.cpp sees them. Each queues its kernels on the stream and returns the
// error of a launch that was refused. `scratch` has the bytes that the function beside it asks for.
#pragma once

#include <cuda_runtime_api.h>

#include "params.h"

namespace stn_cuda {
namespace cuda {

cudaError_t queue_sample(const SampleParams& p, cudaStream_t stream);

cudaError_t queue_sample_derivative(const SampleParams& p, cudaStream_t stream);

cudaError_t queue_cover(const SampleParams& p, cudaStream_t stream);

int64_t splat_scratch(const SampleParams& p);
cudaError_t queue_splat(const SampleParams& p, void* scratch, cudaStream_t stream);

int64_t grad_warp_scratch(const SampleParams& p);
cudaError_t queue_grad_warp(const SampleParams& p, void* scratch, cudaStream_t stream);

cudaError_t queue_warp_grid(const GridParams& p, cudaStream_t stream);

int64_t warp_grid_backward_scratch(const GridParams& p);
cudaError_t queue_warp_grid_backward(const GridParams& p, void* scratch, cudaStream_t stream);

}  // namespace cuda
}  // namespace stn_cuda
