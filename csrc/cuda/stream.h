// Kernels on the device: a block's threads, and the launches of a call, queued on a CUDA stream.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/work.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// block.h says what these are. Their bodies are the device's alone: on the host nobody calls them.
class DeviceBlock {
 public:
#if defined(__CUDA_ARCH__)
  STN_HD uint32_t index() const { return blockIdx.x; }
  STN_HD uint32_t count() const { return gridDim.x; }
  STN_HD void barrier() const { __syncthreads(); }
  STN_HD static int thread() { return static_cast<int>(threadIdx.x); }
  template <class T>
  STN_HD static T of_neighbour(T x, int distance) {
    return __shfl_xor_sync(0xffffffffu, x, distance);
  }
#else
  uint32_t index() const { return 0; }
  uint32_t count() const { return 0; }
  void barrier() const {}
  static int thread() { return 0; }
  template <class T>
  static T of_neighbour(T x, int) {
    return x;
  }
#endif

  template <class F>
  STN_HD void each(F&& f) const {
    f(thread());
  }
  template <class F>
  STN_HD void once(F&& f) const {
    if (thread() == 0) f();
    barrier();
  }

  template <class T>
  class PerThread {
   public:
    STN_HD T& operator[](int) { return own_; }

   private:
    T own_;
  };

  template <class X>
  STN_HD void add_neighbours(int log, X&& x) const {
    auto& own = x(thread());
    for (int distance = (1 << log) / 2; distance > 0; distance /= 2) {
      own += of_neighbour(own, distance);
    }
  }
  template <class X>
  STN_HD void largest_of_neighbours(int log, X&& x) const {
    auto& own = x(thread());
    for (int distance = (1 << log) / 2; distance > 0; distance /= 2) {
      const auto other = of_neighbour(own, distance);
      own = own > other ? own : other;
    }
  }
};

// A kernel is a struct: Launch, what it is told; Shared, a block's memory, not initialised;
// kBlocks, and run(launch, block, shared).
//
// kBlocks: of these, how many a multiprocessor has to have registers for. 0 leaves it to the
// compiler, which spills a few bytes where that makes room for one more block; the kernels where it
// does name the number that they fit without (CI fails where one spills). At most 4, since older
// multiprocessors hold 1024 threads.
template <class Kernel>
__global__ void __launch_bounds__(kThreads, Kernel::kBlocks)
    device_kernel(const __grid_constant__ typename Kernel::Launch launch) {
  __shared__ typename Kernel::Shared shared;
  Kernel::run(launch, DeviceBlock{}, shared);
}

// The launches of a call. After an error nothing more is queued.
class Stream {
 public:
  explicit Stream(cudaStream_t stream) : stream_(stream) {}

  template <class Kernel>
  void run(int64_t blocks, const typename Kernel::Launch& launch) {
    if (error_ == cudaSuccess && blocks > kLargestGrid) error_ = cudaErrorInvalidConfiguration;
    if (error_ != cudaSuccess) return;
    device_kernel<Kernel><<<static_cast<unsigned>(blocks), kThreads, 0, stream_>>>(launch);
    error_ = cudaGetLastError();
  }

  void zero(void* memory, int64_t bytes) {
    if (error_ != cudaSuccess) return;
    error_ = cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream_);
  }

  // Whether the device adds four neighbouring float32 numbers with one atomic operation.
  bool adds_vectors() {
    int device = 0, major = 0;
    if (error_ == cudaSuccess) error_ = cudaGetDevice(&device);
    if (error_ == cudaSuccess) {
      error_ = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    }
    return major >= 9;
  }

  cudaError_t error() const { return error_; }

 private:
  cudaStream_t stream_;
  cudaError_t error_ = cudaSuccess;
};

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
