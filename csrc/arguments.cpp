#include "arguments.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <algorithm>

#include "math/parametric.h"

namespace stn_cuda {
namespace {

// Entry k is the name of the enumerator with value k.
#define STN_NAME(name, ...) #name,
constexpr c10::string_view kMaps[] = {STN_FREE_MAPS(STN_NAME) STN_PARAMETRIC_MAPS(STN_NAME)};
#undef STN_NAME
constexpr c10::string_view kModes[] = {"bilinear", "nearest", "bicubic"};
constexpr c10::string_view kPaddings[] = {"zeros", "border", "reflection", "wrap"};

template <class Enum, size_t N>
bool find(const c10::string_view (&names)[N], c10::string_view name, Enum& found) {
  for (size_t k = 0; k < N; ++k) {
    if (names[k] == name) {
      found = static_cast<Enum>(k);
      return true;
    }
  }
  return false;
}

}  // namespace

MapKind parse_map(const char* op, c10::string_view map) {
  MapKind kind{};
  TORCH_CHECK_VALUE(find(kMaps, map, kind), op, ": map must be one of ",
                    c10::Join(", ", c10::ArrayRef<c10::string_view>(kMaps)), ", got '", map, "'");
  return kind;
}

Interpolation parse_mode(const char* op, c10::string_view mode) {
  Interpolation interpolation{};
  TORCH_CHECK_VALUE(find(kModes, mode, interpolation), op,
                    ": expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: '", mode,
                    "'");
  return interpolation;
}

void parse_padding(const char* op, c10::string_view padding_mode, int64_t dims,
                   Padding (&padding)[3]) {
  const int64_t given = 1 + std::count(padding_mode.begin(), padding_mode.end(), ',');
  TORCH_CHECK_VALUE(given == 1 || given == dims, op, ": padding_mode must be one name, or one for ",
                    "each of the ", dims, " spatial axes, got '", padding_mode, "'");
  c10::string_view rest = padding_mode;
  for (int64_t d = dims - 1; d >= 0; --d) {  // the tensor's first spatial axis comes first
    const size_t comma = rest.find(',');
    const c10::string_view name = rest.substr(0, comma);
    TORCH_CHECK_VALUE(
        find(kPaddings, name, padding[d]), op,
        ": padding_mode must be 'zeros', 'border', 'reflection' or 'wrap', or one of ",
        "these for each spatial axis, got '", padding_mode,
        "' (torch's sentence: expected padding_mode to be 'zeros', 'border', or 'reflection', but "
        "got: '",
        name, "')");
    if (given > 1) rest.remove_prefix(std::min(comma, rest.size() - 1) + 1);
  }
}

ElementType element_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return ElementType::f32;
    case at::kDouble:
      return ElementType::f64;
    case at::kHalf:
      return ElementType::f16;
    case at::kByte:
      return ElementType::u8;
    default:
      return ElementType::bf16;
  }
}

void copy_spatial(at::IntArrayRef shape, int64_t (&size)[3]) {
  for (int64_t& extent : size) extent = 1;
  for (size_t d = 0; d < shape.size(); ++d) size[d] = shape[shape.size() - 1 - d];
}

at::Tensor readable_warp(const at::Tensor& warp, MapKind map) {
  if (is_free(map)) return warp;
  const bool grouped = facts_of(map, 2).rows_per_point > 0;
  const bool low = grouped && warp.scalar_type() != at::kDouble;
  return (low ? warp.to(at::kFloat) : warp).contiguous();
}

Image image_of(const at::Tensor& tensor, int64_t batch) {
  Image image{};
  image.data = tensor.data_ptr();
  image.type = element_type(tensor);
  image.batch = tensor.size(0);
  image.stride_n = tensor.size(0) == 1 && batch != 1 ? 0 : tensor.stride(0);
  image.stride_c = tensor.stride(1);
  for (int64_t d = 0; d < tensor.dim() - 2; ++d) image.stride[d] = tensor.stride(-1 - d);
  if (has_linear_points(tensor)) {
    // An axis of one pixel may have any stride: the first one longer than that tells the distance.
    for (int64_t d = 0; d < tensor.dim() - 2; ++d) {
      if (tensor.size(-1 - d) > 1) {
        image.stride[0] = tensor.stride(-1 - d);
        break;
      }
    }
  }
  return image;
}

Warp warp_of(const at::Tensor& tensor, MapKind map, int64_t batch) {
  Warp warp{};
  warp.data = tensor.data_ptr();
  warp.type = element_type(tensor);
  warp.batch = tensor.size(0);
  warp.stride_n = tensor.size(0) == 1 && batch != 1 ? 0 : tensor.stride(0);
  if (is_free(map)) {
    warp.stride_k = tensor.stride(-1);
    for (int64_t d = 0; d < tensor.dim() - 2; ++d) warp.stride[d] = tensor.stride(-2 - d);
  } else {
    warp.count = static_cast<int32_t>(tensor.size(1) * tensor.size(2));
  }
  return warp;
}

bool has_linear_points(const at::Tensor& tensor) {
  int64_t expected = -1;
  for (int64_t d = tensor.dim() - 1; d >= 2; --d) {
    if (tensor.size(d) <= 1) continue;
    if (expected >= 0 && tensor.stride(d) != expected) return false;
    expected = tensor.stride(d) * tensor.size(d);
  }
  return true;
}

}  // namespace stn_cuda
