// The kernels for any processor: x86-64 without extensions, ARM, and others.
#define STN_ISA baseline
#include "cpu/table.h"

STN_KERNELS(baseline);
