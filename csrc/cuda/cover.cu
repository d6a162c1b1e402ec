// cover on the device.
#define STN_ISA device

#include "cuda/cover.h"

#include "cuda/kernels.h"
#include "cuda/stream.h"

namespace stn_cuda {
namespace cuda {

cudaError_t queue_cover(const SampleParams& p, cudaStream_t stream) {
  Stream launcher(stream);
  cover(p, launcher);
  return launcher.error();
}

}  // namespace cuda
}  // namespace stn_cuda
