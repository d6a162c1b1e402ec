// Switches that a user sets in the environment.
#pragma once

#include <c10/util/Exception.h>

#include <cstdlib>
#include <string>

namespace stn_cuda {

// Which of the values the variable has, counted from 0; `usual` where it is not set. usual: a
// function, not called in vain.
template <size_t N, class F>
size_t switched(const char* name, const char* const (&values)[N], F&& usual) {
  const char* set = std::getenv(name);
  if (!set || !*set) return usual();
  std::string known;
  for (size_t k = 0; k < N; ++k) {
    if (values[k] == std::string(set)) return k;
    known += (k == 0 ? "" : (k + 1 < N ? ", " : " or ")) + std::string(values[k]);
  }
  TORCH_CHECK(false, name, " must be ", known, ", got '", set, "'");
}

}  // namespace stn_cuda
