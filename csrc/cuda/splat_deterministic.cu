// splat, bitwise repeatable: fixed-point sums (fixed_point.h) in three passes, the largest value,
// the additions, and the conversion of the sums.
#define STN_ISA device

#include "cuda/splat_deterministic.h"

#include "cuda/splat_kernel.h"

namespace stn_cuda {
namespace cuda {
namespace {

// The largest finite magnitude among the values.
template <class Element>
__global__ void __launch_bounds__(kThreads)
    largest_kernel(const Element* values, const Axes axes, int64_t count, Fixed* largest) {
  const int64_t step = int64_t(gridDim.x) * kThreads;
  const bool linear = axes.size[1] == 1 && axes.size[2] == 1;
  Fixed most = 0;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    int64_t offset = i * axes.stride[0];
    if (!linear) {
      const int64_t row = i / axes.size[0];
      const int64_t plane = row / axes.size[1];
      offset = (i - row * axes.size[0]) * axes.stride[0] +
               (row - plane * axes.size[1]) * axes.stride[1] + plane * axes.stride[2];
    }
    const Fixed bits = magnitude_bits(widen(values[offset]));
    most = most > bits ? most : bits;
  }
  for (int lane = 16; lane > 0; lane /= 2) {
    const Fixed other = __shfl_xor_sync(0xffffffffu, most, lane);
    most = most > other ? most : other;
  }
  if (threadIdx.x % 32 == 0) atomicMax(largest, most);
}

template <class Element, class A>
__global__ void __launch_bounds__(kThreads)
    convert_kernel(const FixedSums<A> sums, Element* image, int64_t count) {
  const FixedScale<A> scale(sums);
  const int64_t step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    image[i] = Narrow<Element>::from(fixed_value(sums, scale, i));
  }
}

constexpr int64_t kHeader = 256;  // the largest value, with the alignment of an allocation

// The scratch memory: header, limbs, and for 16-bit images the sums of what is not finite; those
// of wider images are made in the image itself.
template <class Element>
struct Scratch {
  using A = Accumulate<Element>;
  static constexpr bool separate = sizeof(Element) != sizeof(A);

  static int64_t bytes(int64_t count) {
    return kHeader + count * (kLimbs<A> * sizeof(Fixed) + (separate ? sizeof(A) : 0));
  }
  static FixedSums<A> sums(const SampleParams& p, void* scratch, int64_t count) {
    FixedSums<A> sums{};
    char* next = static_cast<char*>(scratch);
    sums.largest = reinterpret_cast<const Fixed*>(next);
    next += kHeader;
    for (Fixed*& limb : sums.limb) {
      limb = reinterpret_cast<Fixed*>(next);
      next += count * sizeof(Fixed);
    }
    sums.not_finite = static_cast<A*>(separate ? static_cast<void*>(next) : p.input.data);
    sums.log_points = log_points(p);
    return sums;
  }
};

template <class Element>
cudaError_t run(const SampleParams& p, void* scratch, cudaStream_t stream) {
  using A = Accumulate<Element>;
  using Memory = Scratch<Element>;
  const int64_t count = image_elements(p);
  const int64_t values = p.batch * p.channels * points(p.output_size, p.dims);
  const FixedSums<A> sums = Memory::sums(p, scratch, count);
  cudaError_t error = cudaMemsetAsync(scratch, 0, Memory::bytes(count), stream);
  if (error == cudaSuccess && !Memory::separate) {
    error = cudaMemsetAsync(sums.not_finite, 0, count * sizeof(A), stream);
  }
  if (error != cudaSuccess) return error;
  largest_kernel<<<striding_blocks(values), kThreads, 0, stream>>>(
      static_cast<const Element*>(p.output.data), axes_of_values(p), values,
      static_cast<Fixed*>(scratch));
  error = cudaGetLastError();
  if (error != cudaSuccess) return error;
  error = add_values<Element>(p, RepeatableSums<A>{sums}, stream);
  if (error != cudaSuccess) return error;
  convert_kernel<<<striding_blocks(count), kThreads, 0, stream>>>(
      sums, static_cast<Element*>(p.input.data), count);
  return cudaGetLastError();
}

}  // namespace

int64_t repeatable_scratch(const SampleParams& p) {
  return with_element(p.input.type, [&](auto element) {
    return Scratch<typename decltype(element)::type>::bytes(image_elements(p));
  });
}

cudaError_t repeatable_splat(const SampleParams& p, void* scratch, cudaStream_t stream) {
  return with_element(p.input.type, [&](auto element) {
    return run<typename decltype(element)::type>(p, scratch, stream);
  });
}

}  // namespace cuda
}  // namespace stn_cuda
