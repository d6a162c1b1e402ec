// The kernels of each device, found by the ops above the device split.
#pragma once

#include <c10/core/DeviceType.h>

#include "params.h"

namespace stn_cuda {

// Called while the library loads, once per device that the build has kernels for.
bool register_backend(c10::DeviceType device, const Backend& backend);

// The kernels in use for a device that has been registered.
Backend& backend(c10::DeviceType device);

}  // namespace stn_cuda
