// How many planes are looked at together through windows.
#pragma once

#include "cpu/window.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// The lines of planes read together that may stand in one place of the L1 cache, whose sets come
// again every 4 KiB: measured, benchmarks/README.md.
constexpr int kLinesOfValues = 9, kLinesOfSlopes = 12;

// As many planes as have no more than so many: rows of pixels may be so far apart that many of a
// window's share their part of the cache, where those of several planes are in each other's way.
// (The weights of a volume's many rows are dearer than that.)
template <class Element, class A, int D>
STN_HD int planes_together(const SampleParams& p, const WindowTile<A, D>& windows, int lines) {
  constexpr int64_t kAll = 4096, kNear = 128;
  if (D == 3) return lines;
  const int64_t row = p.input.stride[1] * static_cast<int64_t>(sizeof(Element));
  int meet = 0;
  for (int r = 0; r < windows.rows[0]; ++r) {
    const int64_t apart = r * row % kAll;
    meet += apart < kNear || apart > kAll - kNear;
  }
  const int together = std::max(1, lines / meet);
  if (together < kChannelBlock && together < p.channels) took(Path::windows_apart);
  return together;
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
