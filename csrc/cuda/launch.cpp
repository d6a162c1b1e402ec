// The CUDA backend: the stream, scratch memory, and errors of a launch. Nothing here waits for the
// device. The current device is the tensors': ops.cpp sees to that.
#include <c10/core/DeviceType.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

#include "backend.h"
#include "cuda/kernels.h"

namespace stn_cuda {
namespace cuda {
namespace {

void check(const char* op, cudaError_t error) {
  TORCH_CHECK(error == cudaSuccess, op, ": CUDA kernels must be accepted by the device, got ",
              cudaGetErrorName(error), " (", cudaGetErrorString(error), ")");
}

cudaStream_t current_stream() { return c10::cuda::getCurrentCUDAStream(); }

// Memory for the kernels queued next on the current stream: later ones may reuse it as soon as the
// stream has come past them.
c10::DataPtr scratch(int64_t bytes) {
  return c10::cuda::CUDACachingAllocator::get()->allocate(static_cast<size_t>(bytes));
}

void run_cover(const SampleParams& p) { check("sample", queue_cover(p, current_stream())); }

void run_sample(const SampleParams& p) {
  check("sample", queue_sample(p, current_stream()));
  if (is_covered_after(p)) run_cover(p);
}

void run_sample_derivative(const SampleParams& p) {
  check("sample_derivative", queue_sample_derivative(p, current_stream()));
}

void run_splat(const SampleParams& p) {
  const c10::DataPtr memory = scratch(splat_scratch(p));
  check("splat", queue_splat(p, memory.get(), current_stream()));
}

void run_grad_warp(const SampleParams& p) {
  const c10::DataPtr memory = scratch(grad_warp_scratch(p));
  check("sample_grad_warp", queue_grad_warp(p, memory.get(), current_stream()));
}

void run_warp_grid(const GridParams& p) {
  check("warp_grid", queue_warp_grid(p, current_stream()));
}

void run_warp_grid_backward(const GridParams& p) {
  const c10::DataPtr memory = scratch(warp_grid_backward_scratch(p));
  check("warp_grid_backward", queue_warp_grid_backward(p, memory.get(), current_stream()));
}

[[maybe_unused]] const bool registered =
    register_backend(c10::DeviceType::CUDA,
                     Backend{run_sample, run_sample_derivative, run_cover, run_splat, run_grad_warp,
                             run_warp_grid, run_warp_grid_backward, nullptr, false, false});

}  // namespace
}  // namespace cuda
}  // namespace stn_cuda
