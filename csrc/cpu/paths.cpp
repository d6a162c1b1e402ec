#include "cpu/paths.h"

namespace stn_cuda {
namespace cpu {

std::atomic<bool> counting_paths{false};
std::atomic<int64_t> path_counts[static_cast<int>(Path::count)];

}  // namespace cpu
}  // namespace stn_cuda
