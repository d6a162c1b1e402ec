// Chooses the instruction set, and how far its gather instructions are used.
#include <c10/util/Exception.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "cpu/trial.h"
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

const GatherCosts& gather_costs() {
  static const GatherCosts measured = kernels().gather_costs();
  return measured;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

bool inserts_in_use() {
  constexpr const char* kNames[] = {"0", "1"};
  static const size_t chosen = switched("STN_CUDA_INSERT", kNames, [] {
    constexpr double kClearly = 0.9;
    return size_t(gather_costs().inserts < kClearly * gather_costs().instruction);
  });
  return chosen == 1;
}

Gathers gathers_in_use() {
  // Up to where gathers win against copies, measured on three processors (1.0, 1.5 and 0.7;
  // benchmarks/README.md): what is copied has to be read again, too. And from where on windows
  // clearly win against gathers.
  constexpr double kQuick = 1.25, kPlanes = 2, kFirst = 0.85;
  const auto measured = [] {
    const GatherCosts& costs = gather_costs();
    if (std::min(costs.instruction, costs.inserts) >= kPlanes) return Gathers::none;
    if (costs.instruction >= kQuick) return Gathers::planes;
    return window_cost(kernels(), inserts_in_use()) < kFirst ? Gathers::rest : Gathers::all;
  };
  static const size_t chosen =
      switched("STN_CUDA_GATHER", kGatherNames, [&] { return static_cast<size_t>(measured()); });
  return static_cast<Gathers>(chosen);
}

}  // namespace cpu
}  // namespace stn_cuda
