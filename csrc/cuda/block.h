// What a kernel's body is written against: a block of kThreads threads. On the device it is
// DeviceBlock (stream.h), each of whose threads runs the body; here is SerialBlock, in which one
// thread of the host does the work of all, so that whole launches can be walked without a GPU.
//
//   index(), count()       of the block among those of the launch
//   each(f)                f(thread), by every thread
//   barrier()              waits until all threads have come here
//   once(f)                f() by one thread; then a barrier
//   PerThread<T>           a variable of every thread: v[thread]
//   add_neighbours(log, x) x(thread) of every thread, a reference, becomes the sum over the 2^log
//                          threads that it stands among (log <= 5)
//   largest_of_neighbours  likewise the largest
//
// A body must not rely on the order of the threads between two barriers.
#pragma once

#include "cuda/work.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// The order in which one thread of the host plays the others: a body that is right is right in any.
enum class Order { ascending, descending };

class SerialBlock {
 public:
  SerialBlock(uint32_t index, uint32_t count, Order order)
      : index_(index), count_(count), order_(order) {}

  uint32_t index() const { return index_; }
  uint32_t count() const { return count_; }

  template <class F>
  void each(F&& f) const {
    for (int k = 0; k < kThreads; ++k) f(order_ == Order::ascending ? k : kThreads - 1 - k);
  }
  void barrier() const {}
  template <class F>
  void once(F&& f) const {
    f();
  }

  template <class T>
  class PerThread {
   public:
    T& operator[](int thread) { return of_[thread]; }

   private:
    T of_[kThreads];
  };

  template <class X>
  void add_neighbours(int log, X&& x) const {
    exchange(log, x, [](auto a, auto b) { return a + b; });
  }
  template <class X>
  void largest_of_neighbours(int log, X&& x) const {
    exchange(log, x, [](auto a, auto b) { return a > b ? a : b; });
  }

 private:
  // The exchanges of the device, with the same roundings.
  template <class X, class F>
  void exchange(int log, X&& x, F&& f) const {
    std::decay_t<decltype(x(0))> before[kThreads];
    for (int distance = (1 << log) / 2; distance > 0; distance /= 2) {
      for (int k = 0; k < kThreads; ++k) before[k] = x(k);
      for (int k = 0; k < kThreads; ++k) x(k) = f(before[k], before[k ^ distance]);
    }
  }

  uint32_t index_, count_;
  Order order_;
};

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
