// Times of what the processor is asked before it is decided how to use it.
#pragma once

#include <algorithm>
#include <chrono>

namespace stn_cuda {
namespace cpu {
namespace {

// Seconds of the fastest of a few runs: the others were interrupted.
template <class F>
double fastest(F&& f) {
  using Clock = std::chrono::steady_clock;
  double least = 1;
  for (int run = 0; run < 8; ++run) {
    const auto start = Clock::now();
    f();
    least = std::min(least, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return least;
}

}  // namespace
}  // namespace cpu
}  // namespace stn_cuda
