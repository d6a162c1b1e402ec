// Over the tiles of a warp, one after the other.
#pragma once

#include "cpu/share.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Those of the tiles [first, last) of warp n that may see one of `rows` (null: all). Where the
// points of the following one look is found before the work of each, so that it can be announced.
// Nothing here depends on what is done with them: one copy serves all kernels.
template <class T, int D>
class Tiles {
 public:
  STN_SHARED Tiles(const SampleParams& p, const Plan& plan, Basis& basis, int64_t n, int64_t first,
                   int64_t last, const Rows* rows)
      : p_(p),
        plan_(plan),
        basis_(basis),
        n_(n),
        last_(last),
        frame_(pixel_frame<T, D>(p)),
        rows_(rows && tells_share(frame_.axis[D - 1]) ? rows : nullptr),
        map_(p.map, p.warp, n, frame_, p.output_size, p.align_corners),
        far_(is_far(p)),
        ruled_(!only_zeros(p)),
        tile_(plan, first),
        following_(tile_) {
    for (Looks<T, D>& looks : both_) {
      looks.frame = frame_;
      looks.monotonic = map_.monotonic() && !plan.fold;
    }
    find_following();
  }

  // Goes on to the next tile. Whether there is one.
  STN_SHARED bool step() {
    if (following_.index >= last_) return false;
    tile_ = following_;
    now_ = 1 - now_;
    if (ruled_) choose_rules(p_, both_[now_]);
    following_.step(plan_);
    find_following();
    next_.known = false;
    if (far_ && following_.index < last_) next_.find(both_[1 - now_], following_.slots());
    if (next_.known) took(Path::announced);
    return true;
  }

  STN_HD const Tile<D>& tile() const { return tile_; }
  STN_HD const Looks<T, D>& looks() const { return both_[now_]; }
  STN_HD const AnyMap<T, D>& map() const { return map_; }
  // What the following tile sees of the image.
  STN_HD const Box<D>& next() const { return next_; }

 private:
  STN_HD void find_following() {
    while (following_.index < last_ && is_passed_over()) following_.step(plan_);
    if (following_.index < last_) look_through(map_, following_, both_[1 - now_], basis_, n_);
  }

  STN_HD bool is_passed_over() const {
    if (!rows_ || may_see(*rows_, frame_.axis[D - 1], map_, following_)) return false;
    took(Path::splat_passed_over);
    return true;
  }

  const SampleParams& p_;
  const Plan& plan_;
  Basis& basis_;
  int64_t n_, last_;
  Frame<T, D> frame_;
  const Rows* rows_;
  AnyMap<T, D> map_;
  bool far_, ruled_;
  Tile<D> tile_, following_;
  Looks<T, D> both_[2];
  int now_ = 1;  // which of both the tile's are
  Box<D> next_;
};

// Calls f(tiles) at each of them. Coordinates are computed in float32, in float64 where the grid or
// theta is float64.
template <int D, class F>
STN_HD void for_each_tile(const SampleParams& p, const Plan& plan, Basis& basis, int64_t n,
                          int64_t first, int64_t last, F&& f, const Rows* rows = nullptr) {
  const auto go = [&](auto type) {
    Tiles<decltype(type), D> tiles(p, plan, basis, n, first, last, rows);
    while (tiles.step()) f(tiles);
  };
  p.warp.type == ElementType::f64 ? go(double{}) : go(float{});
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
