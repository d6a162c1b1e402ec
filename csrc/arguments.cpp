#include "arguments.h"

#include <c10/util/Exception.h>

#include <sstream>

namespace stn_cuda {
namespace {

constexpr int64_t kLargestAxis = int64_t(1) << 29;  // boundary.h: coordinate_limit, with room

// Entry k is the name of the enumerator with value k.
constexpr c10::string_view kMaps[] = {"grid", "affine"};
constexpr c10::string_view kModes[] = {"bilinear", "nearest", "bicubic"};
constexpr c10::string_view kPaddings[] = {"zeros", "border", "reflection"};

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

bool supported(const at::Tensor& tensor) {
  const auto type = tensor.scalar_type();
  return type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16;
}

void check_storage(const char* op, const char* name, const at::Tensor& tensor) {
  TORCH_CHECK(tensor.defined(), op, ": ", name, " must be a tensor, got None");
  TORCH_CHECK(tensor.layout() == at::kStrided, op, ": ", name,
              " must be a dense tensor, got layout ", tensor.layout(),
              " (expected input and grid to have torch.strided layout)");
  TORCH_CHECK(supported(tensor), op, ": ", name,
              " must be float32, float64, float16 or bfloat16, got ", tensor.scalar_type(),
              " (not implemented for '", tensor.scalar_type(), "')");
}

std::string parameters_text(int64_t dims) {
  return "(N, " + std::to_string(dims) + ", " + std::to_string(dims + 1) + ")";
}

}  // namespace

std::string shape_text(at::IntArrayRef shape) {
  std::ostringstream text;
  text << "(";
  for (size_t k = 0; k < shape.size(); ++k) text << (k ? ", " : "") << shape[k];
  text << (shape.size() == 1 ? ",)" : ")");
  return text.str();
}

MapKind parse_map(const char* op, c10::string_view map) {
  MapKind kind{};
  TORCH_CHECK_VALUE(find(kMaps, map, kind), op, ": map must be 'grid' or 'affine', got '", map,
                    "'");
  return kind;
}

Interpolation parse_mode(const char* op, c10::string_view mode) {
  Interpolation interpolation{};
  TORCH_CHECK_VALUE(find(kModes, mode, interpolation), op,
                    ": expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: '", mode,
                    "'");
  return interpolation;
}

Padding parse_padding(const char* op, c10::string_view padding_mode) {
  Padding padding{};
  TORCH_CHECK_VALUE(find(kPaddings, padding_mode, padding), op,
                    ": expected padding_mode to be 'zeros', 'border', or 'reflection', but got: '",
                    padding_mode, "'");
  return padding;
}

ElementType element_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return ElementType::f32;
    case at::kDouble:
      return ElementType::f64;
    case at::kHalf:
      return ElementType::f16;
    default:
      return ElementType::bf16;
  }
}

void check_image(const char* op, const char* name, const at::Tensor& image) {
  TORCH_CHECK(image.defined(), op, ": ", name, " must be a tensor, got None");
  TORCH_CHECK(image.dim() == 4 || image.dim() == 5, op, ": ", name,
              " must be (N, C, H, W) or (N, C, D, H, W), got shape ", shape_text(image.sizes()),
              " (expected 4D or 5D input and grid with same number of dimensions)");
  check_storage(op, name, image);
}

void check_warp(const char* op, const at::Tensor& warp, MapKind map, int64_t dims,
                const at::Tensor& like) {
  const char* name = map == MapKind::grid ? "grid" : "theta";
  TORCH_CHECK(warp.defined(), op, ": ", name, " must be a tensor, got None");
  if (map == MapKind::grid) {
    TORCH_CHECK(warp.dim() == dims + 2, op, ": grid must have ", dims + 2, " dimensions for a ",
                dims + 2, "-D input, got shape ", shape_text(warp.sizes()),
                " (expected 4D or 5D input and grid with same number of dimensions)");
    TORCH_CHECK(warp.size(-1) == dims, op, ": grid must have last dimension ", dims, " for a ",
                dims + 2, "-D input, got shape ", shape_text(warp.sizes()),
                " (expected grid to have size ", dims, " in last dimension)");
    for (int64_t d = 1; d <= dims; ++d) {
      TORCH_CHECK(warp.size(d) <= kLargestAxis, op, ": grid must have at most ", kLargestAxis,
                  " points along each dimension, got shape ", shape_text(warp.sizes()));
    }
  } else {
    TORCH_CHECK_VALUE(warp.dim() == 3 && warp.size(1) == dims && warp.size(2) == dims + 1, op,
                      ": theta must have shape ", parameters_text(dims), " for ", dims,
                      " spatial dimensions, got shape ", shape_text(warp.sizes()));
  }
  check_storage(op, name, warp);
  if (like.defined()) check_same_device(op, name, warp, "input", like);
}

void check_same_device(const char* op, const char* name, const at::Tensor& tensor,
                       const char* like_name, const at::Tensor& like) {
  TORCH_CHECK(tensor.device() == like.device(), op, ": ", name, " must be on ", like_name,
              "'s device ", like.device(), ", got ", tensor.device(),
              " (expected input and grid to be on same device)");
}

int64_t broadcast_batch(const char* op, const at::Tensor& input, const at::Tensor& warp) {
  const int64_t a = input.size(0), b = warp.size(0);
  TORCH_CHECK(a == b || a == 1 || b == 1, op,
              ": input and warp must have the same batch size, or 1 on either side, got ", a,
              " and ", b, " (expected grid and input to have same batch size, but got input with "
              "sizes ", input.sizes(), " and grid with sizes ", warp.sizes(), ")");
  return a == 1 ? b : a;
}

void check_spatial(const char* op, const char* name, at::IntArrayRef shape) {
  for (size_t d = 2; d < shape.size(); ++d) {
    TORCH_CHECK(shape[d] > 0, op, ": ", name, " must have no empty spatial dimension, got shape ",
                shape_text(shape), " (expected ", name, " to have non-empty spatial dimensions)");
    TORCH_CHECK(shape[d] <= kLargestAxis, op, ": ", name, " must have at most ", kLargestAxis,
                " pixels along each dimension, got shape ", shape_text(shape));
  }
}

void check_size(const char* op, at::IntArrayRef size, int64_t dims) {
  TORCH_CHECK_VALUE(static_cast<int64_t>(size.size()) == dims, op, ": size must have ", dims,
                    " entries, the output's spatial size, got ", shape_text(size));
  for (const int64_t extent : size) {
    TORCH_CHECK_VALUE(extent >= 0 && extent <= kLargestAxis, op, ": size must be between 0 and ",
                      kLargestAxis, " in each dimension, got ", shape_text(size));
  }
}

void check_mode_dims(const char* op, Interpolation interpolation, int64_t dims) {
  TORCH_CHECK(interpolation != Interpolation::bicubic || dims == 2, op,
              ": mode 'bicubic' must be used with a 4-D input, got a ", dims + 2,
              "-D input (bicubic interpolation only supports 4D input)");
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
  if (map == MapKind::grid) {
    warp.stride_k = tensor.stride(-1);
    for (int64_t d = 0; d < tensor.dim() - 2; ++d) warp.stride[d] = tensor.stride(-2 - d);
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
