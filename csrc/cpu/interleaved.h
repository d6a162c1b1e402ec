// Bilinear looks at an image of few channels that lie next to each other, in bytes: a photograph as
// decoders write it. Two neighbouring pixels are one number of 64 bits, of which vectors of points
// take every channel; vectors of channels (sample_channels) would be nearly empty.
#pragma once

#include "cpu/cover.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

constexpr int64_t kPairBytes = sizeof(uint64_t);
constexpr int64_t kPixelBytes = sizeof(uint32_t);

// Whether a pair of pixels is such a number, the second the neighbour of the first, and a pixel of
// the output a part of one of 32 bits.
template <class Frame>
STN_HD bool has_pairs(const SampleParams& p, const Frame& frame) {
  const int64_t step = p.input.stride[0];
  return step >= p.channels && step + p.channels <= kPairBytes && p.input_size[0] > 1 &&
         p.output.stride[0] == p.channels && fits_int32<2>(p) &&
         frame.axis[0].padding != Padding::wrap;
}

// The channels [0, channels) of two pixels `step` bytes apart, and nothing beyond them.
STN_HD uint64_t load_pair(const Byte* from, int64_t step, int64_t channels) {
  const int64_t rest = step + channels - kPixelBytes;  // what the second half is beyond the first
  uint32_t low, high;
  std::memcpy(&low, from, sizeof low);
  std::memcpy(&high, from + rest, sizeof high);
  return low | uint64_t(high) << (8 * rest);
}

// The pairs that a tile's points see, in two rows.
struct alignas(64) Pairs {
  uint64_t of[2][kRoom] = {};
  int32_t offset[2][kRoom];

  template <int D>
  STN_HD void find(const SampleParams& p, const TileTaps<float, 2, D>& taps, int slots) {
    const int32_t step = static_cast<int32_t>(p.input.stride[0]);
    const int32_t stride = static_cast<int32_t>(p.input.stride[1]);
    for (int row = 0; row < 2; ++row) {
      for (int i = 0; i < slots; ++i) {
        offset[row][i] = taps.index[0][0][i] * step + taps.index[1][row][i] * stride;
      }
    }
  }

  // Before any is used: a vector of them would wait for what has just been written.
  __attribute__((noinline)) void copy(const SampleParams& p, const Byte* image, int slots) {
    const int64_t step = p.input.stride[0];
    // The last place in the image from which a whole number may be read.
    const int64_t last = (p.input_size[0] - 1) * step + (p.input_size[1] - 1) * p.input.stride[1] +
                         p.channels - kPairBytes;
    for (int row = 0; row < 2; ++row) {
      int32_t most = 0;
      for (int i = 0; i < slots; ++i) most = most > offset[row][i] ? most : offset[row][i];
      if (most > last) {
        for (int i = 0; i < slots; ++i) {
          of[row][i] = load_pair(image + offset[row][i], step, p.channels);
        }
        continue;
      }
#pragma GCC unroll 4
      for (int i = 0; i < slots; ++i) {
        std::memcpy(&of[row][i], image + offset[row][i], kPairBytes);
        __asm__ volatile("");  // keeps the compiler from turning this loop into gathers
      }
    }
  }
};

// What a tile's points see of image n.
template <int D>
STN_SHARED void sample_pairs(const SampleParams& p, const Tile<D>& tile,
                             const TileTaps<float, 2, D>& taps, const Surroundings<Byte>& around,
                             Pairs& pairs, int64_t n) {
  using V = FloatVector;
  constexpr int L = kLanes<float>;
  took(Path::sample_pairs);
  const int channels = static_cast<int>(p.channels);
  const int step = static_cast<int>(p.input.stride[0]);
  const int slots = tile.slots();
  pairs.copy(p, plane_of<const Byte>(p.input, n, 0), slots);
  uint32_t pixels[kRoom];
  for (int i = 0; i < slots; i += L) {
    WideBits numbers[2][2];  // the first and the second half of each row's
    V weight[2][2];
    for (int row = 0; row < 2; ++row) {
      const auto* halves = reinterpret_cast<const float*>(pairs.of[row] + i);
      const V low = load<V>(halves), high = load<V>(halves + L);
      const IntVector even = truncate(counting<V>()) * 2;
      for (int k = 0; k < 2; ++k) {
        numbers[row][k] = (WideBits)select_lanes(low, high, IntVector(even + k));
        weight[row][k] = load<V>(&taps.weight[0][k][i]) * load<V>(&taps.weight[1][row][i]);
      }
    }
    WideBits pixel{};
    for (int c = 0; c < channels; ++c) {
      V sum{};
      for (int row = 0; row < 2; ++row) {
        for (int k = 0; k < 2; ++k) {
          const int byte = k * step + c;
          const WideBits bits = numbers[row][byte / 4] >> (8 * (byte % 4)) & 0xffu;
          sum += weight[row][k] * to_real<V>((IntVector)bits);
        }
      }
      const V value = around.at_points(sum, i, n, c);
      pixel |= ((WideBits)saturated_byte(value) & 0xffu) << (8 * c);
    }
    std::memcpy(pixels + i, &pixel, sizeof pixel);
  }
  Byte* output = plane_of<Byte>(p.output, n, 0);
  tile.for_each_row([&](int slot, const int32_t (&at)[D]) {
    Byte* to = output + offset_of<D>(at, p.output.stride);
    // Each number's unused bytes are written again by the next one.
    for (int j = 0; j + 1 < tile.width; ++j, to += channels) {
      std::memcpy(to, pixels + slot + j, kPixelBytes);
    }
    std::memcpy(to, pixels + slot + tile.width - 1, channels);
  });
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
