// Chains (params.h): where their maps meet.
#pragma once

#include "math/free_map.h"

namespace stn_cuda {
inline namespace STN_ISA {

// The images in whose pixels positions are on their way, exact where they are as large: the
// field's. With align_corners an axis of one pixel has no extent, and all positions would meet
// there: it is taken for two.
template <class T, int D>
struct Meeting {
  int64_t size[3];
  Frame<T, D> frame;
  Reading<T, D> reading;  // of the displacements: from there to what the outer matrix takes
  Frame<T, D> field;      // the field as an image

  Meeting(const Chain& chain, const Frame<T, D>& input, const int64_t (&output_size)[3],
          bool align_corners)
      : Meeting(chain, room_of(chain, align_corners), input, output_size, align_corners) {}

 private:
  struct Room {
    int64_t size[3];
  };

  static Room room_of(const Chain& chain, bool align_corners) {
    Room room{{chain.size[0], chain.size[1], chain.size[2]}};
    for (int64_t& extent : room.size) extent = align_corners && extent < 2 ? 2 : extent;
    return room;
  }

  Meeting(const Chain& chain, const Room& room, const Frame<T, D>& input,
          const int64_t (&output_size)[3], bool align_corners)
      : size{room.size[0], room.size[1], room.size[2]},
        frame(bordered(size, align_corners)),
        reading(chain.normalized ? MapKind::normalized_flow : MapKind::flow,
                chain.outer.data ? frame : input, chain.inner.data ? room.size : output_size,
                align_corners),
        field(bordered(chain.size, align_corners)) {}

  // Outside of the field its border goes on.
  static Frame<T, D> bordered(const int64_t (&size)[3], bool align_corners) {
    constexpr Padding border[] = {Padding::border, Padding::border, Padding::border};
    return pixel_frame<T, D>(size, align_corners, border);
  }
};

}  // namespace STN_ISA
}  // namespace stn_cuda
