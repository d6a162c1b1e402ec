// splat, bitwise repeatable: what splat.cu hands over under torch.use_deterministic_algorithms.
#pragma once

#include <cuda_runtime_api.h>

#include "params.h"

namespace stn_cuda {
namespace cuda {

int64_t repeatable_scratch(const SampleParams& p);
cudaError_t repeatable_splat(const SampleParams& p, void* scratch, cudaStream_t stream);

}  // namespace cuda
}  // namespace stn_cuda
