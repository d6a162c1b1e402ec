// cover: a thread has a point, finds how much of its look lies inside the image, and makes of that
// the point's values in some images and channels.
#pragma once

#include "cuda/chain.h"
#include "cuda/channels.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// How much of a point's look lies inside.
template <class T, int D>
STN_HD T cover_of(Interpolation interpolation, const Frame<T, D>& frame, const T (&x)[D]) {
  if (interpolation == Interpolation::nearest) return cover_of<1>(frame, x);
  if (interpolation == Interpolation::bilinear) return cover_of<2>(frame, x);
  return cover_of<4>(frame, x);
}

// A: the type in which the values are computed.
template <class A, class Map, class T, int D>
STN_HD void cover_thread(const SampleLaunch<T, D>& launch, const Map& map, const Place& place,
                         int thread) {
  const SampleParams& p = launch.p;
  const Spot<D> spot = spot_of<D>(launch.work, p.output_size, place.tile, thread);
  if (!spot.inside) return;
  T x[D];
  look(map, spot.p, x);
  const A cover = static_cast<A>(cover_of(p.interpolation, launch.frame, x));
  if (p.around && cover == 1) return;
  const int64_t point = offset_of(spot.p, p.output.stride);
  const int64_t step = int64_t(1) << launch.work.log_share;
  for (int64_t n = place.image_begin; n < place.image_end; ++n) {
    for (int64_t c = place.channel_begin + spot.share; c < place.channel_end; c += step) {
      const A value =
          load_as<A>(p.fill.data, p.fill.type, n * p.fill.stride_n + c * p.fill.stride_c);
      const int64_t at = n * p.output.stride_n + c * p.output.stride_c + point;
      A result = cover != 0 ? cover * value : A(0);
      if (p.around) {
        result = load_as<A>(p.output.data, p.output.type, at) + (1 - cover) * value;
      }
      store_as(p.output.data, p.output.type, at, result);
    }
  }
}

template <class Map, class A>
struct CoverKernel {
  using T = Coordinate<Map>;
  static constexpr int D = CoordinateOf<Map>::dims;
  using Launch = SampleLaunch<T, D>;
  using Shared = BlockMap<Map>;
  static constexpr int kBlocks = Map::linear ? 4 : 1;

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared& shared) {
    const Place place = place_of(launch.work, block.index());
    const auto& map = shared.make(block, launch, place.warp);
    block.each([&](int thread) { cover_thread<A>(launch, map, place, thread); });
  }
};

template <class Launcher>
void cover(const SampleParams& p, Launcher& launcher) {
  const auto run = [&](auto map, auto type) {
    using Kernel = CoverKernel<TypeOf<decltype(map)>, TypeOf<decltype(type)>>;
    SampleParams q = p;  // threads share channels as the output lies
    q.input.stride_c = p.output.stride_c;
    const int log_share = share_of_channels(q, 1);
    auto launch = make_launch<typename Kernel::T, Kernel::D>(p, log_share);
    split(launch.work, int64_t(1) << log_share);
    launcher.template run<Kernel>(launch.work.blocks, launch);
  };
  const auto with_dims = [&](auto dims) {
    with_map<decltype(dims)::value>(p.map, p.warp.type, [&](auto map) {
      p.output.type == ElementType::f64 ? run(map, Type<double>{}) : run(map, Type<float>{});
    });
  };
  p.dims == 2 ? with_dims(Number<2>{}) : with_dims(Number<3>{});
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
