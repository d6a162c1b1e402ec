// The Python module stn_cuda._C: build facts, and entries to the ops that skip torch.ops' argument
// matching (about 5 us a call).
#include "module.h"

#include <ATen/Parallel.h>

#include <map>
#include <string>
#include <vector>

#include "checks.h"
#include "cpu/kernels.h"
#include "cpu/paths.h"
#include "ops.h"

namespace {

using at::Tensor;
using Name = const std::string&;
using Size = const std::vector<c10::SymInt>&;

using stn_cuda::define;

std::vector<void (*)(pybind11::module_&)>& parts() {
  static std::vector<void (*)(pybind11::module_&)> all;
  return all;
}

// For the tests: from now on, counts which ways the CPU kernels go; or no longer.
void count_cpu_paths(bool on) {
  for (auto& count : stn_cuda::cpu::path_counts) count = 0;
  stn_cuda::cpu::counting_paths = on;
}

// How often each way was gone, by its name.
std::map<std::string, int64_t> cpu_paths() {
#define STN_PATH_NAME(NAME) #NAME,
  constexpr const char* kNames[] = {STN_CPU_PATHS(STN_PATH_NAME)};
#undef STN_PATH_NAME
  std::map<std::string, int64_t> counts;
  for (int k = 0; k < static_cast<int>(stn_cuda::cpu::Path::count); ++k) {
    counts[kNames[k]] = stn_cuda::cpu::path_counts[k];
  }
  return counts;
}

// The free maps, and whether the positions of their points count: maps.h.
std::map<std::string, bool> free_maps() {
#define STN_ENTRY(name, in_pixels, relative) {#name, relative},
  return {STN_FREE_MAPS(STN_ENTRY)};
#undef STN_ENTRY
}

}  // namespace

bool stn_cuda::add_to_module(void (*part)(pybind11::module_&)) {
  parts().push_back(part);
  return true;
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.doc() = "Compiled part of stn_cuda.";
  define(m, "sample",
         [](const Tensor& input, const Tensor& warp, Name map, Size size, Name mode,
            Name padding_mode, bool align_corners) {
           return stn_cuda::ops::sample(input, warp, map, size, mode, padding_mode, align_corners);
         });
  define(m, "sample_filled",
         [](const Tensor& input, const Tensor& warp, const Tensor& fill, Name map, Size size,
            Name mode, Name padding_mode, bool align_corners) {
           return stn_cuda::ops::sample_filled(input, warp, fill, map, size, mode, padding_mode,
                                               align_corners);
         });
  define(m, "sample_masked",
         [](const Tensor& input, const Tensor& warp, const std::optional<Tensor>& fill, Name map,
            Size size, Name mode, Name padding_mode, bool align_corners) {
           return stn_cuda::ops::sample_masked(input, warp, fill, map, size, mode, padding_mode,
                                               align_corners);
         });
  define(m, "splat",
         [](const Tensor& values, const Tensor& warp, Name map, Size shape, bool channels_last,
            Name mode, Name padding_mode, bool align_corners) {
           return stn_cuda::ops::splat(values, warp, map, shape, channels_last, mode, padding_mode,
                                       align_corners);
         });
  define(m, "sample_grad_warp",
         [](const Tensor& grad, const Tensor& input, const Tensor& warp, Name map, Name mode,
            Name padding_mode, bool align_corners) {
           return stn_cuda::ops::sample_grad_warp(grad, input, warp, map, mode, padding_mode,
                                                  align_corners);
         });
  define(m, "sample_with_gradient",
         [](const Tensor& input, const Tensor& warp, Name map, Size size, Name mode,
            Name padding_mode, bool align_corners) {
           return stn_cuda::ops::sample_with_gradient(input, warp, map, size, mode, padding_mode,
                                                      align_corners);
         });
  define(m, "warp_grid", [](const Tensor& warp, Name map, Size size, bool align_corners) {
    return stn_cuda::ops::warp_grid(warp, map, size, align_corners);
  });
  // The checks alone, for the fake functions.
  define(m, "check_sample",
         [](const char* op, const Tensor& input, const Tensor& warp, Name map, Size size, Name mode,
            Name padding_mode, bool derives) {
           stn_cuda::check_sample(op, input, warp, map, size, mode, padding_mode, derives);
         });
  define(m, "check_fill",
         [](const char* op, const Tensor& input, const Tensor& warp, const Tensor& fill,
            Name padding_mode) { stn_cuda::check_fill(op, input, warp, fill, padding_mode); });
  define(m, "check_splat",
         [](const char* op, const Tensor& values, const Tensor& warp, Name map, Size shape,
            Name mode, Name padding_mode) {
           stn_cuda::check_splat(op, values, warp, map, shape, mode, padding_mode);
         });
  define(m, "check_sample_grad_warp",
         [](const char* op, const Tensor& grad, const Tensor& input, const Tensor& warp, Name map,
            Name mode, Name padding_mode) {
           stn_cuda::check_sample_grad_warp(op, grad, input, warp, map, mode, padding_mode);
         });
  define(m, "check_direction", stn_cuda::check_direction);
  define(m, "check_warp_grid", [](const char* op, const Tensor& warp, Name map, Size size) {
    stn_cuda::check_warp_grid(op, warp, map, size);
  });
  define(m, "check_warp_grid_backward",
         [](const char* op, const Tensor& grad, const Tensor& warp, Name map) {
           stn_cuda::check_warp_grid_backward(op, grad, warp, map);
         });
  define(m, "free_maps", free_maps);
  define(m, "cpu_isa", [] { return std::string(stn_cuda::cpu::kernels().name); });
  define(m, "cpu_gathers", [] {
    using namespace stn_cuda::cpu;
    return std::string(kGatherNames[static_cast<size_t>(gathers_in_use())]);
  });
  define(m, "cpu_inserts", [] { return stn_cuda::cpu::inserts_in_use(); });
  define(m, "count_cpu_paths", count_cpu_paths);
  define(m, "cpu_paths", cpu_paths);
  define(m, "num_threads", [] { return at::get_num_threads(); });
  for (const auto part : parts()) part(m);
  // A wrong STN_CUDA_ISA is told at import, not in the middle of the first call.
  torch::wrap_pybind_function([] { stn_cuda::cpu::kernels(); })();
}
