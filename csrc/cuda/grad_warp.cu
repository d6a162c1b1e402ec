// The warp's gradient on the device.
#define STN_ISA device

#include "cuda/grad_chain.h"

#include "cuda/kernels.h"
#include "cuda/stream.h"

namespace stn_cuda {
namespace cuda {

int64_t grad_warp_scratch(const SampleParams& p) { return grad_warp_bytes(p); }

cudaError_t queue_grad_warp(const SampleParams& p, void* scratch, cudaStream_t stream) {
  Stream launcher(stream);
  grad_warp(p, scratch, launcher);
  return launcher.error();
}

}  // namespace cuda
}  // namespace stn_cuda
