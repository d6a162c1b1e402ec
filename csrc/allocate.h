// Memory for results.
#pragma once

#include <ATen/core/Tensor.h>

namespace stn_cuda {

// at::empty, of which a large tensor on the CPU is to come in huge pages: the kernel then zeroes 2
// MiB per fault instead of 4 KiB, and the kernels' scattered accesses miss the TLB less. Linux does
// so on request (transparent_hugepage: madvise, as most distributions have it); elsewhere, or with
// STN_CUDA_HUGE_PAGES=0, this is at::empty.
at::Tensor empty_result(at::IntArrayRef shape, const at::TensorOptions& options);

// The same of at::empty_like, which keeps the order of the strides, and the strides of a tensor
// without gaps.
at::Tensor empty_result_like(const at::Tensor& tensor);

}  // namespace stn_cuda
