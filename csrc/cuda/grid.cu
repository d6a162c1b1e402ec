// warp_grid and its adjoint on the device.
#define STN_ISA device

#include "cuda/grid.h"

#include "cuda/kernels.h"
#include "cuda/stream.h"

namespace stn_cuda {
namespace cuda {

cudaError_t queue_warp_grid(const GridParams& p, cudaStream_t stream) {
  Stream launcher(stream);
  warp_grid(p, launcher);
  return launcher.error();
}

int64_t warp_grid_backward_scratch(const GridParams& p) { return warp_grid_backward_bytes(p); }

cudaError_t queue_warp_grid_backward(const GridParams& p, void* scratch, cudaStream_t stream) {
  Stream launcher(stream);
  warp_grid_backward(p, scratch, launcher);
  return launcher.error();
}

}  // namespace cuda
}  // namespace stn_cuda
