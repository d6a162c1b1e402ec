// Chooses the instruction set, and how far its gather instructions are used.
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "switch.h"

namespace stn_cuda {
namespace cpu {
namespace {

struct Candidate {
  const Kernels* kernels;
  bool supported;
};

// From the slowest to the fastest.
std::vector<Candidate> candidates() {
  std::vector<Candidate> all{{&baseline_kernels, true}};
#if defined(STN_EXTENSIONS)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  all.push_back({&avx2_kernels, avx2});
  all.push_back({&avx512_kernels, avx512});
#endif
  return all;
}

const Kernels& choose() {
  const char* forced = std::getenv("STN_CUDA_ISA");
  const Kernels* best = nullptr;
  std::string known, usable;
  for (const auto& candidate : candidates()) {
    const std::string name = candidate.kernels->name;
    known += (known.empty() ? "" : ", ") + name;
    if (!candidate.supported) continue;
    usable += (usable.empty() ? "" : ", ") + name;
    if (!forced || !*forced || name == forced) best = candidate.kernels;
  }
  TORCH_CHECK(best, "STN_CUDA_ISA must be an instruction set that this processor has (", usable,
              "; this build knows ", known, "), got '", forced, "'");
  return *best;
}

bool has_long_vectors() {
  const std::vector<Candidate> all = candidates();
  return std::any_of(all.begin(), all.end(), [](const Candidate& candidate) {
    return candidate.supported && candidate.kernels->vector_bytes == 64;
  });
}

bool is_amd() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

// By the processor's maker, not by a measurement: two processes on one machine are to round alike.
// (How long a gather takes is far from where it decides, on all that were measured.)
bool inserts_in_use() {
  constexpr const char* kNames[] = {"0", "1"};
  static const size_t chosen = switched("STN_CUDA_INSERT", kNames, [] { return size_t(is_amd()); });
  return chosen == 1;
}

Gathers gathers_in_use() {
  // Up to where gathers win, measured on five processors (1.0 on two Xeons, 1.5 on a Zen 5, 0.5 to
  // 0.7 on a Zen 4, 0.6 on a Zen 3; benchmarks/README.md): what is copied has to be read again,
  // too. Where a gather is many instructions, windows are sought first; without the instruction,
  // planes always gain. Moving lanes across a vector of 32 bytes takes AMD's processors without
  // AVX-512 two steps, so that pairs of float32 and float64 pixels come first there.
  constexpr double kQuick = 1.25, kPlanes = 2;
  const auto suitable = [] {
    const double cost = kernels().gather_cost();
    if (cost < kQuick && !is_amd()) return Gathers::all;
    if (cost < kQuick) return has_long_vectors() ? Gathers::rest : Gathers::pairs;
    const bool inserts = inserts_in_use() && std::isfinite(cost);
    return cost < kPlanes || inserts ? Gathers::planes : Gathers::none;
  };
  static const size_t chosen =
      switched("STN_CUDA_GATHER", kGatherNames, [&] { return static_cast<size_t>(suitable()); });
  return static_cast<Gathers>(chosen);
}

}  // namespace cpu
}  // namespace stn_cuda
