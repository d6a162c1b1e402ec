// sample's derivatives on the device.
#define STN_ISA device

#include "cuda/derivative.h"

#include "cuda/kernels.h"
#include "cuda/stream.h"

namespace stn_cuda {
namespace cuda {

cudaError_t queue_sample_derivative(const SampleParams& p, cudaStream_t stream) {
  Stream launcher(stream);
  sample_derivative(p, launcher);
  return launcher.error();
}

}  // namespace cuda
}  // namespace stn_cuda
