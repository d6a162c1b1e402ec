// The launches of a call on the host: every block of every kernel, one after the other, by one
// thread. What the device would do is proved so where there is none.
#pragma once

#include <cstring>
#include <stdexcept>

#include "cuda/block.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

class Walk {
 public:
  Walk(Order order, bool vectors) : order_(order), vectors_(vectors) {}

  template <class Kernel>
  void run(int64_t blocks, const typename Kernel::Launch& launch) {
    if (blocks > kLargestGrid) throw std::invalid_argument("a launch has too many blocks");
    typename Kernel::Shared shared;
    for (int64_t k = 0; k < blocks; ++k) {
      const int64_t index = order_ == Order::ascending ? k : blocks - 1 - k;
      // What a block finds in its memory is whatever was there.
      std::memset(static_cast<void*>(&shared), 0xff, sizeof shared);
      const SerialBlock block(static_cast<uint32_t>(index), static_cast<uint32_t>(blocks), order_);
      Kernel::run(launch, block, shared);
    }
  }

  void zero(void* memory, int64_t bytes) { std::memset(memory, 0, static_cast<size_t>(bytes)); }

  bool adds_vectors() const { return vectors_; }

 private:
  Order order_;
  bool vectors_;
};

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
