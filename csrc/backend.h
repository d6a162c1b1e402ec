// The kernels of each device, found by the ops above the device split.
#pragma once

#include <ATen/core/Tensor.h>

#include "params.h"

namespace stn_cuda {

// Called while the library loads, once per device that the build has kernels for.
bool register_backend(c10::DeviceType device, const Backend& backend);

// The kernels in use for a device that has been registered.
Backend& backend(c10::DeviceType device);

// Those for a tensor, or a sentence that says what is missing.
const Backend& backend_of(const char* op, const at::Tensor& tensor);

}  // namespace stn_cuda

// The dispatch keys at which the ops' functions are registered, the same for all: backend_of finds
// the kernels. The layouts that the checks refuse are here so that these get to say so.
#define STN_FOR_EACH_KEY(IMPLEMENT) \
  IMPLEMENT(CPU)                    \
  IMPLEMENT(CUDA)                   \
  IMPLEMENT(SparseCPU)              \
  IMPLEMENT(SparseCUDA)             \
  IMPLEMENT(SparseCsrCPU)           \
  IMPLEMENT(SparseCsrCUDA)          \
  IMPLEMENT(MkldnnCPU)
