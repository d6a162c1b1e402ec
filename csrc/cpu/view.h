// What is made of what a group of points sees of the image: through a window (cpu/window.h) or as
// runs of pixels (cpu/runs.h). A pixel's weight follows from its distance, so that the boundary
// needs no case of its own.
#pragma once

#include "cpu/simd.h"
#include "math/interpolation.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// The values of a group in `Channels` planes.
template <int D, int K, int Channels, class View, class V>
STN_HD void values_seen(const View& view, V (&total)[Channels]) {
  using A = Scalar<V>;
  V weight[K], slice[Channels];
  for (int k = 0; k < K; ++k) weight[k] = kernel<K>(V(view.across - A(k)));
  for (int c = 0; c < Channels; ++c) total[c] = slice[c] = V{};
  view.rows(
      [&](auto&& channel, V distance) __attribute__((always_inline)) {
        const V here = kernel<K>(distance);
        V product[K];
        for (int k = 0; k < K; ++k) product[k] = here * weight[k];
        for (int c = 0; c < Channels; ++c) {
          channel(c, [&](auto&& tap) __attribute__((always_inline)) {
            if constexpr (K == 1) {
              slice[c] = here != 0 ? tap(0) : slice[c];
            } else {
              for (int k = 0; k < K; ++k) slice[c] += product[k] * tap(k);
            }
          });
        }
      },
      [&](V distance) __attribute__((always_inline)) {
        if (D == 2) return;
        const V here = kernel<K>(distance);
        for (int c = 0; c < Channels; ++c) {
          if (K == 1) {
            total[c] = here != 0 ? slice[c] : total[c];
          } else {
            total[c] += here * slice[c];
          }
          slice[c] = V{};
        }
      });
  for (int c = 0; c < Channels; ++c) {
    if (D == 2) total[c] = slice[c];
    if (K == 1) total[c] = weight[0] != 0 ? total[c] : V{};
  }
}

// The same, and their derivatives with respect to the coordinates, times `along`. Of a cubic look,
// its four pixels of a row come first.
template <int K, int Channels, class View, class V>
STN_HD void cubic_jet_seen(const View& view, const V (&along)[2], V (&value)[Channels],
                           V (&slope)[2][Channels]) {
  using A = Scalar<V>;
  V weight[K], turn[K];  // of the columns
  for (int k = 0; k < K; ++k) {
    weight[k] = kernel<K>(V(view.across - A(k)));
    turn[k] = kernel_slope_times<K>(V(view.across - A(k)), along[0]);
  }
  for (int c = 0; c < Channels; ++c) value[c] = slope[0][c] = slope[1][c] = V{};
  view.rows(
      [&](auto&& channel, V distance) __attribute__((always_inline)) {
        const V here = kernel<K>(distance), rise = kernel_slope_times<K>(distance, along[1]);
        for (int c = 0; c < Channels; ++c) {
          V level{}, turned{};
          channel(c, [&](auto&& tap) __attribute__((always_inline)) {
            for (int k = 0; k < K; ++k) {
              const V pixel = tap(k);
              level += weight[k] * pixel;
              turned += turn[k] * pixel;
            }
          });
          value[c] += here * level;
          slope[0][c] += here * turned;
          slope[1][c] += rise * level;
        }
      },
      [](V) {});
}

// Of a linear look, a pixel of a row takes one multiplication with the row's weight and one with
// its slope; the columns' come once, at the end.
template <int D, int K, int Channels, class View, class V>
STN_HD void linear_jet_seen(const View& view, const V (&along)[D], V (&value)[Channels],
                            V (&slope)[D][Channels]) {
  using A = Scalar<V>;
  V slice[2][K][Channels] = {};   // the columns' sums, with the weights and the slopes along y
  V volume[D][K][Channels] = {};  // of the slices; at last with the slopes along z
  view.rows(
      [&](auto&& channel, V distance) __attribute__((always_inline)) {
        const V here = kernel<K>(distance), rise = kernel_slope_times<K>(distance, along[1]);
        for (int c = 0; c < Channels; ++c) {
          channel(c, [&](auto&& tap) __attribute__((always_inline)) {
            for (int k = 0; k < K; ++k) {
              const V pixel = tap(k);
              slice[0][k][c] += here * pixel;
              slice[1][k][c] += rise * pixel;
            }
          });
        }
      },
      [&](V distance) __attribute__((always_inline)) {
        if (D == 2) return;
        const V here = kernel<K>(distance), rise = kernel_slope_times<K>(distance, along[D - 1]);
        for (int k = 0; k < K; ++k) {
          for (int c = 0; c < Channels; ++c) {
            volume[0][k][c] += here * slice[0][k][c];
            volume[1][k][c] += here * slice[1][k][c];
            volume[D - 1][k][c] += rise * slice[0][k][c];
            slice[0][k][c] = slice[1][k][c] = V{};
          }
        }
      });
  const auto& seen = [&]() -> auto& {
    if constexpr (D == 2) {
      return slice;
    } else {
      return volume;
    }
  }();
  for (int c = 0; c < Channels; ++c) {
    value[c] = V{};
    for (int d = 0; d < D; ++d) slope[d][c] = V{};
  }
  for (int k = 0; k < K; ++k) {
    const V weight = kernel<K>(V(view.across - A(k)));
    const V turn = kernel_slope_times<K>(V(view.across - A(k)), along[0]);
    for (int c = 0; c < Channels; ++c) {
      value[c] += weight * seen[0][k][c];
      slope[0][c] += turn * seen[0][k][c];
      for (int d = 1; d < D; ++d) slope[d][c] += weight * seen[d][k][c];
    }
  }
}

template <int D, int K, int Channels, class View, class V>
STN_HD void jet_seen(const View& view, const V (&along)[D], V (&value)[Channels],
                     V (&slope)[D][Channels]) {
  if constexpr (K == 4) {
    static_assert(D == 2, "a cubic volume is not here");
    cubic_jet_seen<K>(view, along, value, slope);
  } else {
    linear_jet_seen<D, K>(view, along, value, slope);
  }
}

// The values, and how they change where the coordinates move in a direction: per row, or of the
// four pixels of a cubic look's row first.
template <int D, int K, int Channels, class View, class V>
STN_HD void change_seen(const View& view, const V (&direction)[D], V (&value)[Channels],
                        V (&change)[Channels]) {
  static_assert(K == 2 || D == 2, "a cubic volume is not here");
  using A = Scalar<V>;
  V weight[K], turn[K];  // of the columns, and their changes
  for (int k = 0; k < K; ++k) {
    weight[k] = kernel<K>(V(view.across - A(k)));
    turn[k] = kernel_slope_times<K>(V(view.across - A(k)), direction[0]);
  }
  V slice[Channels], moved[Channels];
  for (int c = 0; c < Channels; ++c) value[c] = change[c] = slice[c] = moved[c] = V{};
  view.rows(
      [&](auto&& channel, V distance) __attribute__((always_inline)) {
        const V here = kernel<K>(distance), rise = kernel_slope_times<K>(distance, direction[1]);
        V first[K], second[K];
        for (int k = 0; k < K; ++k) {
          first[k] = K == 4 ? weight[k] : here * weight[k];
          second[k] = K == 4 ? turn[k] : here * turn[k] + rise * weight[k];
        }
        for (int c = 0; c < Channels; ++c) {
          V level = K == 4 ? V{} : slice[c], turned = K == 4 ? V{} : moved[c];
          channel(c, [&](auto&& tap) __attribute__((always_inline)) {
            for (int k = 0; k < K; ++k) {
              const V pixel = tap(k);
              level += first[k] * pixel;
              turned += second[k] * pixel;
            }
          });
          slice[c] = K == 4 ? V(slice[c] + here * level) : level;
          moved[c] = K == 4 ? V(moved[c] + here * turned + rise * level) : turned;
        }
      },
      [&](V distance) __attribute__((always_inline)) {
        if (D == 2) return;
        const V here = kernel<K>(distance),
                rise = kernel_slope_times<K>(distance, direction[D - 1]);
        for (int c = 0; c < Channels; ++c) {
          value[c] += here * slice[c];
          change[c] += here * moved[c] + rise * slice[c];
          slice[c] = moved[c] = V{};
        }
      });
  for (int c = 0; D == 2 && c < Channels; ++c) {
    value[c] = slice[c];
    change[c] = moved[c];
  }
}

// The derivatives of a group's values with respect to the coordinates, times `grad`, summed over
// `Channels` planes.
template <int D, int K, int Channels, class View, class V>
STN_HD void gradient_seen(const View& view, const V (&grad)[Channels], V (&total)[D]) {
  using A = Scalar<V>;
  V weight[K], slope[K];
  for (int k = 0; k < K; ++k) {
    weight[k] = kernel<K>(V(view.across - A(k)));
    slope[k] = kernel_slope<K>(V(view.across - A(k)));
  }
  V across{}, along{}, value{};
  for (int d = 0; d < D; ++d) total[d] = V{};
  view.rows(
      [&](auto&& channel, V distance) __attribute__((always_inline)) {
        V sum[K];
        for (int k = 0; k < K; ++k) sum[k] = V{};
        for (int c = 0; c < Channels; ++c) {
          channel(c, [&](auto&& tap) __attribute__((always_inline)) {
            for (int k = 0; k < K; ++k) sum[k] += grad[c] * tap(k);
          });
        }
        const V here = kernel<K>(distance);
        V level = weight[0] * sum[0], rise = slope[0] * sum[0];
        for (int k = 1; k < K; ++k) {
          level += weight[k] * sum[k];
          rise += slope[k] * sum[k];
        }
        across += here * rise;
        along += kernel_slope<K>(distance) * level;
        if (D == 3) value += here * level;
      },
      [&](V distance) __attribute__((always_inline)) {
        if (D == 2) return;
        const V here = kernel<K>(distance);
        total[0] += here * across;
        total[1] += here * along;
        total[D - 1] += kernel_slope<K>(distance) * value;
        across = along = value = V{};
      });
  if (D == 2) {
    total[0] = across;
    total[1] = along;
  }
}

// A plane's values, as values_seen has them to the bit, and their derivatives.
template <int D, int K, class View, class V>
STN_HD void value_and_slopes_seen(const View& view, V (&value)[1], V (&slope)[D]) {
  using A = Scalar<V>;
  V weight[K];
  for (int k = 0; k < K; ++k) weight[k] = kernel<K>(V(view.across - A(k)));
  V slice{};
  value[0] = V{};
  const auto both = [&](auto&& row, auto&& end) __attribute__((always_inline)) {
    view.rows(
        [&](auto&& channel, V distance) __attribute__((always_inline)) {
          channel(0, [&](auto&& tap) __attribute__((always_inline)) {
            const V here = kernel<K>(distance);
            V seen[K];
            for (int k = 0; k < K; ++k) {
              seen[k] = tap(k);
              slice += V(here * weight[k]) * seen[k];
            }
            row([&](int, auto&& use)
                    __attribute__((always_inline)) { use([&](int k) { return seen[k]; }); },
                distance);
          });
        },
        [&](V distance) __attribute__((always_inline)) {
          if (D == 3) {
            value[0] += kernel<K>(distance) * slice;
            slice = V{};
          }
          end(distance);
        });
  };
  struct Both {
    const decltype(both)& rows;
    V across;
  };
  const V one[1] = {V{} + A(1)};
  gradient_seen<D, K>(Both{both, view.across}, one, slope);
  if (D == 2) value[0] = slice;
}

// What these do along a direction: its product with the matrix of second derivatives.
template <int D, int K, int Channels, class View, class V>
STN_HD void gradient_seen_along(const View& view, const V (&grad)[Channels],
                                const V (&direction)[D], V (&total)[D]) {
  static_assert(K == 2 || D == 2, "a cubic volume's second derivatives along z are not here");
  using A = Scalar<V>;
  V weight[K], slope[K], curve[K];
  for (int k = 0; k < K; ++k) {
    const V distance = view.across - A(k);
    weight[k] = kernel<K>(distance);
    slope[k] = kernel_slope<K>(distance);
    curve[k] = kernel_curve<K>(distance);
  }
  V xx{}, xy{}, yy{};            // of a slice
  V across{}, along{};           // its first derivatives
  V mixed[3] = {V{}, V{}, V{}};  // of a volume: xy, xz, yz
  view.rows(
      [&](auto&& channel, V distance) __attribute__((always_inline)) {
        V sum[K];
        for (int k = 0; k < K; ++k) sum[k] = V{};
        for (int c = 0; c < Channels; ++c) {
          channel(c, [&](auto&& tap) __attribute__((always_inline)) {
            for (int k = 0; k < K; ++k) sum[k] += grad[c] * tap(k);
          });
        }
        const V here = kernel<K>(distance), here_rise = kernel_slope<K>(distance);
        V level{}, rise{}, bend{};
        for (int k = 0; k < K; ++k) {
          level += weight[k] * sum[k];
          rise += slope[k] * sum[k];
          if (K == 4) bend += curve[k] * sum[k];
        }
        xy += here_rise * rise;
        if (K == 4) {
          xx += here * bend;
          yy += kernel_curve<K>(distance) * level;
        }
        if (D == 3) {
          across += here * rise;
          along += here_rise * level;
        }
      },
      [&](V distance) __attribute__((always_inline)) {
        if (D == 2) return;
        const V here = kernel<K>(distance), here_rise = kernel_slope<K>(distance);
        mixed[0] += here * xy;
        mixed[1] += here_rise * across;
        mixed[2] += here_rise * along;
        xy = across = along = V{};
      });
  if (D == 2) {
    total[0] = direction[0] * xx + direction[1] * xy;
    total[1] = direction[0] * xy + direction[1] * yy;
  } else {
    total[0] = direction[1] * mixed[0] + direction[D - 1] * mixed[1];
    total[1] = direction[0] * mixed[0] + direction[D - 1] * mixed[2];
    total[D - 1] = direction[0] * mixed[1] + direction[1] * mixed[2];
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
