// Every standard header that the kernels use. The instruction-set specific translation units
// include this before they switch the target, so that the library's inline code keeps to the
// baseline: it may be shared with the rest of the binary.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

// Whether there are kernels for the extensions of x86-64 (STN_CUDA_CPU in setup.py).
#if defined(__x86_64__) && !defined(STN_BASELINE_ONLY)
#define STN_EXTENSIONS 1
#endif

#if defined(__x86_64__)
// GCC 12's own intrinsics use variables that they do not initialise (its bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif
