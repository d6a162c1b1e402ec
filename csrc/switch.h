// Switches that a user sets in the environment.
#pragma once

#include <c10/util/Exception.h>

#include <cstdlib>
#include <string>

namespace stn_cuda {

// What the variable says, 0 or 1; `usual` where it is not set. usual: a function, not called in
// vain.
template <class F>
bool switched(const char* name, F&& usual) {
  const char* set = std::getenv(name);
  if (!set || !*set) return usual();
  const std::string value = set;
  TORCH_CHECK(value == "0" || value == "1", name, " must be 0 or 1, got '", value, "'");
  return value == "1";
}

}  // namespace stn_cuda
