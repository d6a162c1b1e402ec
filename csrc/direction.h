// Along what a derivative is taken: from the ops' arguments to what the kernels are told.
#pragma once

#include <ATen/core/Tensor.h>

#include "arguments.h"
#include "checks.h"

namespace stn_cuda {

// What the derivatives along a direction are given more than what they are derivatives of.
struct Way {
  const std::optional<at::Tensor>& tangent;
  int64_t axis;
};

// The direction, if there is one, as the kernels read it; `readable` keeps its memory. p.map and
// p.batch are set.
inline void set_direction(SampleParams& p, const Way* way, at::Tensor& readable) {
  if (!way) return;
  if (way->tangent) {
    readable = readable_warp(*way->tangent, p.map);
    p.direction = Direction::tangent;
    p.tangent = warp_of(readable, p.map, p.batch);
  } else {
    p.direction = Direction::axis;
    p.axis = static_cast<int32_t>(way->axis);
  }
}

inline void check_way(const char* op, const at::Tensor& warp, const Way* way, int64_t dims) {
  if (way) check_direction(op, warp, way->tangent, way->axis, dims);
}

}  // namespace stn_cuda
