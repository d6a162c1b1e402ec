// How an instruction set's windows (cpu/window.h) do against gathered runs on the processor at
// hand.
#pragma once

#include <vector>

#include "cpu/fastest.h"
#include "cpu/plan.h"

namespace stn_cuda {
namespace cpu {

// The time of a small forward by windows, where gathers take 1: four channels in as many dimensions
// as windows are of use in, under a map that slants rows of points a little.
inline double window_cost(const Kernels& kernels, bool inserts) {
  constexpr int64_t kChannels = 4, kVolume[] = {32, 8, 8}, kPlane[] = {64, 32, 1};
  constexpr float kSlant = 0.1f;
  const int dims = kernels.window_dims;
  SampleParams p{};
  p.dims = dims;
  p.map = MapKind::affine;
  p.batch = 1;
  p.channels = kChannels;
  std::copy_n(dims == 3 ? kVolume : kPlane, 3, p.input_size);
  std::copy_n(p.input_size, 3, p.output_size);
  const int64_t pixels = points(p.input_size, dims);
  std::vector<float> input(pixels * kChannels), output(input.size()), theta(dims * (dims + 1));
  for (int d = 0; d < dims; ++d) {
    theta[d * (dims + 1) + d] = 1;
    if (d > 0) theta[d * (dims + 1)] = kSlant;
  }
  const int64_t row = p.input_size[0];
  const Image image{input.data(), ElementType::f32, 1, 0, pixels, {1, row, row * p.input_size[1]}};
  p.input = p.output = image;
  p.output.data = output.data();
  p.warp.data = theta.data();
  p.warp.batch = 1;
  p.warp.count = static_cast<int32_t>(theta.size());

  Plan plan = tile_plan(rows_of(p.output_size, dims), 1, 4, true, kTile);
  plan.gather = true;
  plan.inserts = inserts;
  plan.window_rows = 8;
  const auto time = [&](bool windows) {
    plan.windows = windows;
    return fastest([&] { kernels.sample(p, plan, 0, plan.tasks); });
  };
  const double by_windows = time(true);
  return by_windows / time(false);
}

}  // namespace cpu
}  // namespace stn_cuda
