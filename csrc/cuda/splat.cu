// splat on the device.
#define STN_ISA device

#include "cuda/splat_launch.h"

#include "cuda/kernels.h"
#include "cuda/stream.h"

namespace stn_cuda {
namespace cuda {

int64_t splat_scratch(const SampleParams& p) { return splat_bytes(p); }

cudaError_t queue_splat(const SampleParams& p, void* scratch, cudaStream_t stream) {
  Stream launcher(stream);
  splat(p, scratch, launcher);
  return launcher.error();
}

}  // namespace cuda
}  // namespace stn_cuda
