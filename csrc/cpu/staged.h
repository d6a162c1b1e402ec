// Values of tiles whose vectors are blocks, on their way past the caches: a block's rows are
// shorter than what can be written so.
#pragma once

#include <memory>

#include "cpu/gather.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

template <class Element>
class Staged {
 public:
  explicit Staged(const SampleParams& p, const Plan& plan)
      : pitch_(plan.tile_width),
        of_tile_(pitch_ * plan.tile_rows),
        room_(new unsigned char[p.channels * of_tile_ * sizeof(Element) + kAlign]),
        values_(reinterpret_cast<Element*>((reinterpret_cast<uintptr_t>(room_.get()) + kAlign - 1) /
                                           kAlign * kAlign)) {}

  // The call, but that a tile's values go here.
  SampleParams instead(const SampleParams& p, const Tile<2>& tile) const {
    SampleParams local = p;
    local.output.data = values_ - (tile.first[1] * pitch_ + tile.first[0]);
    local.output.stride_n = 0;
    local.output.stride_c = of_tile_;
    local.output.stride[1] = pitch_;
    return local;
  }

  // From here to image n.
  void write(const SampleParams& p, const Tile<2>& tile, int64_t n) const {
    using V = Native<Accumulate<Element>>;
    constexpr int L = kLanes<Accumulate<Element>>;
    for (int64_t c = 0; c < p.channels; ++c) {
      Element* plane = plane_of<Element>(p.output, n, c);
      tile.for_each_row([&](int, const int32_t (&at)[2]) {
        Element* to = plane + offset_of<2>(at, p.output.stride);
        const Element* from = values_ + c * of_tile_ + (at[1] - tile.first[1]) * pitch_;
        int j = 0;
        for (; j + L <= tile.width; j += L) stream_pixels(to + j, load_pixels<V>(from + j));
        std::copy(from + j, from + tile.width, to + j);
      });
    }
  }

 private:
  static constexpr uintptr_t kAlign = 64;

  int64_t pitch_, of_tile_;
  std::unique_ptr<unsigned char[]> room_;
  Element* values_;
};

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
