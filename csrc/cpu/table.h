// Included last by each instruction set's translation unit: its copy of the kernels as a table.
#pragma once

#include "cpu/chain.h"
#include "cpu/cover.h"
#include "cpu/cuts.h"
#include "cpu/derivative.h"
#include "cpu/grid.h"
#include "cpu/sample.h"
#include "cpu/slopes.h"
#include "cpu/splat.h"

#define STN_KERNELS(NAME)                                                            \
  const ::stn_cuda::cpu::Kernels stn_cuda::cpu::NAME##_kernels = {                   \
      #NAME,                                                                         \
      STN_VECTOR_BYTES,                                                              \
      ::stn_cuda::cpu::kWindowDims,                                                  \
      {::stn_cuda::cpu::kChannelBlock,                                               \
       {::stn_cuda::cpu::kDerivedBlock<2, 2>, ::stn_cuda::cpu::kDerivedBlock<2, 3>}, \
       ::stn_cuda::cpu::kChannelBlock,                                               \
       ::stn_cuda::cpu::kBendBlock},                                                 \
      ::stn_cuda::cpu::gather_cost,                                                  \
      ::stn_cuda::cpu::sees_columns_of,                                              \
      ::stn_cuda::cpu::is_scattered_of,                                              \
      ::stn_cuda::cpu::is_sparse,                                                    \
      ::stn_cuda::cpu::cut_slabs_of,                                                 \
      ::stn_cuda::cpu::weave_images,                                                 \
      ::stn_cuda::cpu::sample,                                                       \
      ::stn_cuda::cpu::sample_derivative,                                            \
      ::stn_cuda::cpu::cover,                                                        \
      ::stn_cuda::cpu::splat,                                                        \
      ::stn_cuda::cpu::grad_warp,                                                    \
      ::stn_cuda::cpu::sum_slopes,                                                   \
      ::stn_cuda::cpu::warp_grid,                                                    \
      ::stn_cuda::cpu::warp_grid_backward,                                           \
      ::stn_cuda::cpu::finish_grad_warp,                                             \
      ::stn_cuda::cpu::finish_warp_grid_backward}
