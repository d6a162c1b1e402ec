// For the tests: while walking is on, CPU tensors are worked on by the device's kernels, walked on
// the host. Compiled with STN_CUDA_WALK=1 only (setup.py).
#define STN_ISA walk
// Its speed does not count, but the time that it takes to compile.
#define STN_HD inline
#if defined(__GNUC__) && !defined(__clang__)
// Without modref, by which GCC 12 takes what make_taps writes (point.h) for not written.
#pragma GCC optimize("O1", "no-ipa-modref")
// Loops that are not unrolled hide from this warning that they fill an array.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "cuda/walk.h"

#include <c10/util/Exception.h>

#include <vector>

#include "backend.h"
#include "cuda/cover.h"
#include "cuda/derivative.h"
#include "cuda/grad_chain.h"
#include "cuda/grid.h"
#include "cuda/sample.h"
#include "cuda/splat_launch.h"
#include "module.h"

namespace stn_cuda {
namespace cuda {
namespace {

// How the next calls are walked.
struct Settings {
  bool deterministic;  // in place of torch's setting, by which tests fill new memory with NaN
  Order order;
  bool vectors;  // whether the device is one that adds vectors
} settings;

Walk make_walk() { return Walk(settings.order, settings.vectors); }

// Memory as a call finds it: full of what others left there.
std::vector<double> scratch(int64_t bytes) {
  return std::vector<double>(static_cast<size_t>(bytes / 8 + 1), std::nan(""));
}

SampleParams as_set(SampleParams p) {
  p.deterministic = settings.deterministic;
  return p;
}

void walk_cover(const SampleParams& p) {
  Walk walk = make_walk();
  cover(p, walk);
}

void walk_sample(const SampleParams& p) {
  Walk walk = make_walk();
  sample(p, walk);
  if (is_covered_after(p)) walk_cover(p);
}

void walk_sample_derivative(const SampleParams& p) {
  Walk walk = make_walk();
  sample_derivative(p, walk);
}

void walk_splat(const SampleParams& given) {
  const SampleParams p = as_set(given);
  Walk walk = make_walk();
  splat(p, scratch(splat_bytes(p)).data(), walk);
}

void walk_grad_warp(const SampleParams& p) {
  Walk walk = make_walk();
  grad_warp(p, scratch(grad_warp_bytes(p)).data(), walk);
}

void walk_warp_grid(const GridParams& p) {
  Walk walk = make_walk();
  warp_grid(p, walk);
}

void walk_warp_grid_backward(const GridParams& p) {
  Walk walk = make_walk();
  warp_grid_backward(p, scratch(warp_grid_backward_bytes(p)).data(), walk);
}

// From now on walks; or no longer.
void walk_cuda_kernels(bool on, bool deterministic, bool descending, bool vectors) {
  static const Backend usual = backend(c10::DeviceType::CPU);
  settings = {deterministic, descending ? Order::descending : Order::ascending, vectors};
  backend(c10::DeviceType::CPU) =
      on ? Backend{walk_sample,    walk_sample_derivative,  walk_cover, walk_splat, walk_grad_warp,
                   walk_warp_grid, walk_warp_grid_backward, nullptr,    false,      false}
         : usual;
}

int64_t cuda_divide(int64_t n, int64_t divisor) {
  return make_divisor(divisor).divide(static_cast<uint32_t>(n));
}

[[maybe_unused]] const bool added = add_to_module([](pybind11::module_& m) {
  define(m, "walk_cuda_kernels", walk_cuda_kernels);
  define(m, "cuda_divide", cuda_divide);
});

}  // namespace
}  // namespace cuda
}  // namespace stn_cuda
