// The gradient that reaches a chain: of its matrices, summed in a fixed order; of what the points
// are displaced by, written point by point.
#pragma once

#include "cuda/chain.h"
#include "cuda/grad_warp.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// The outer matrix' sums have the first rows of `partial`, the inner one's as many more.
template <class Chosen>
struct GradChainKernel {
  using Map = typename Chosen::Map;
  using T = typename Chosen::T;
  using A = Accumulate<typename Chosen::Element>;
  using Matrix = typename Map::Matrix;
  static constexpr int D = Chosen::D;
  using Launch = GradWarpLaunch<T, D>;
  struct Shared {
    BlockMap<Map> map;
    BlockSums<Matrix> sums;
  };
  static constexpr int kBlocks = 1;

  template <class Block>
  STN_HD static void run(const Launch& launch, const Block& block, Shared& shared) {
    const SampleLaunch<T, D>& sample = launch.sample;
    const SampleParams& p = sample.p;
    const Place place = place_of(sample.work, block.index());
    const Map map = shared.map.make(block, sample, place.warp);
    typename Block::template PerThread<GradientOf<Chosen>> grad;
    typename Block::template PerThread<Spot<D>> spot;
    typename Block::template PerThread<Numbers<T, D>> flow;  // back, from map to map
    block.each([&](int thread) {
      spot[thread] = spot_of<D>(sample.work, p.output_size, place.tile, thread);
      coordinate_gradient<Chosen, 1>(sample, map, Unmoved(), place, spot[thread], grad[thread]);
    });
    STN_UNROLL
    for (int d = 0; d < D; ++d) {
      block.add_neighbours(sample.work.log_share,
                           [&](int thread) -> A& { return grad[thread].of[d]; });
    }
    block.each([&](int thread) {
      STN_UNROLL
      for (int d = 0; d < D; ++d) flow[thread].of[d] = static_cast<T>(grad[thread].of[d]);
    });
    // f(point, what flows back there) of a thread that has its point's.
    const auto finish = [&](int thread, auto&& f) {
      if (spot[thread].inside && spot[thread].share == 0) f(spot[thread].p, flow[thread].of);
    };
    if (map.outer) {
      const auto add = [&](int thread, auto& sums) {
        finish(thread, [&](const int32_t (&point)[D], T(&g)[D]) {
          T at[D], x[D], pulled[D];
          displace(map, point, at, x);
          STN_UNROLL
          for (int d = 0; d < D; ++d) x[d] = x[d] == x[d] ? x[d] : T(0);  // NaN has no gradient
          map.outer->accumulate(x, g, sums);
          map.outer->pull(x, g, pulled);
          STN_UNROLL
          for (int d = 0; d < D; ++d) g[d] = pulled[d];
        });
      };
      store_block_sums(block, *map.outer, shared.sums, add, Matrix::sums, launch.partial);
      block.barrier();
    }
    block.each([&](int thread) {
      finish(thread, [&](const int32_t (&point)[D], T(&g)[D]) {
        T at[D], own[D];
        const Reading<T, D>& reading = *map.values.reading;
        STN_UNROLL
        for (int d = 0; d < D; ++d) own[d] = g[d] * reading.step[d];
        write_gradient(map.values, p.grad_warp, spot[thread], g);
        if (map.inner) {
          position(point, at);
          T q[D];
          map.inner->coordinate(at, q);
          pull_field(map, q, g, own);
        }
        STN_UNROLL
        for (int d = 0; d < D; ++d) g[d] = own[d];
      });
    });
    if (!map.inner) return;
    const auto add = [&](int thread, auto& sums) {
      finish(thread, [&](const int32_t (&point)[D], T(&g)[D]) {
        T at[D];
        position(point, at);
        map.inner->accumulate(at, g, sums);
      });
    };
    const int64_t rows = sample.work.blocks;
    store_block_sums(block, *map.inner, shared.sums, add, Matrix::sums,
                     launch.partial + rows * Matrix::sums);
  }
};

template <class Chosen, class Launcher>
void grad_chain(const SampleParams& p, void* scratch, Launcher& launcher) {
  using T = typename Chosen::T;
  constexpr int D = Chosen::D;
  using Matrix = ProjectiveMap<double, D>;
  const GradWarpLaunch<T, D> launch{make_gradient_launch<T, D>(p, 1),
                                    static_cast<double*>(scratch)};
  const Work& work = launch.sample.work;
  launcher.template run<GradChainKernel<Chosen>>(work.blocks, launch);
  const Chain& chain = launch.sample.chain;
  const auto frame = pixel_frame<double, D>(p);
  const Meeting<double, D> meeting(chain, frame, p.output_size, p.align_corners);
  const auto finish = [&](const Warp& warp, const Warp& grad, const auto& to, const auto& size,
                          const double* partial) {
    if (!warp.data) return;
    SampleParams matrix = p;
    matrix.map = MapKind::projective;
    matrix.warp = warp;
    matrix.grad_warp = grad;
    for (int d = 0; d < 3; ++d) matrix.output_size[d] = size[d];
    finish_sums<Matrix>(matrix, to, work, partial, launcher);
  };
  finish(chain.outer, chain.grad_outer, frame, meeting.size, launch.partial);
  finish(chain.inner, chain.grad_inner, meeting.frame, p.output_size,
         launch.partial + work.blocks * Matrix::sums);
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
