#include "backend.h"

#include <c10/util/Exception.h>

#include <map>

namespace stn_cuda {
namespace {

std::map<c10::DeviceType, Backend>& backends() {
  static std::map<c10::DeviceType, Backend> all;
  return all;
}

}  // namespace

bool register_backend(c10::DeviceType device, const Backend& backend) {
  return backends().emplace(device, backend).second;
}

Backend& backend(c10::DeviceType device) { return backends().at(device); }

const Backend& backend_of(const char* op, const at::Tensor& tensor) {
  const auto found = backends().find(tensor.device().type());
  TORCH_CHECK(found != backends().end(), op, ": input must be on a device that this build of ",
              "stn_cuda has kernels for, got ", tensor.device(),
              "; for CUDA rebuild with STN_CUDA_BUILD=cuda (see stn_cuda.build_info())");
  return found->second;
}

}  // namespace stn_cuda
