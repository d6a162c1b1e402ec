#include "checks.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "arguments.h"
#include "math/parametric.h"

namespace stn_cuda {
namespace {

using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;

// boundary.h: coordinate_limit, with room.
constexpr int64_t kLargestAxis = int64_t(1) << 29;

std::string shape_text(SymIntArrayRef shape) {
  std::ostringstream text;
  text << "(";
  for (size_t k = 0; k < shape.size(); ++k) text << (k ? ", " : "") << shape[k];
  text << (shape.size() == 1 ? ",)" : ")");
  return text.str();
}

std::string shape_text(const Tensor& tensor) { return shape_text(tensor.sym_sizes()); }

void check_defined(const char* op, const char* name, const Tensor& tensor) {
  TORCH_CHECK(tensor.defined(), op, ": ", name, " must be a tensor, got None");
}

// Whether an image may be of bytes.
enum class Bytes { refused, taken };

void check_storage(const char* op, const char* name, const Tensor& tensor,
                   Bytes bytes = Bytes::refused) {
  TORCH_CHECK(tensor.layout() == at::kStrided, op, ": ", name,
              " must be a dense tensor, got layout ", tensor.layout(),
              " (expected input and grid to have torch.strided layout)");
  const auto type = tensor.scalar_type();
  const bool taken = bytes == Bytes::taken;
  TORCH_CHECK(type == at::kFloat || type == at::kDouble || type == at::kHalf ||
                  type == at::kBFloat16 || (taken && type == at::kByte),
              op, ": ", name, " must be float32, float64, float16 or bfloat16",
              taken ? " (or uint8)" : "", ", got ", type, " (not implemented for '", type, "')");
}

void check_same_device(const char* op, const char* name, const Tensor& tensor,
                       const char* like_name, const Tensor& like) {
  TORCH_CHECK(tensor.device() == like.device(), op, ": ", name, " must be on ", like.device(),
              ", like ", like_name, ", got ", tensor.device(),
              " (expected input and grid to be on same device)");
}

// What torch says where the numbers of dimensions do not fit: it looks at the grid's last dimension
// first.
std::string torch_dimensions_text(int64_t image_dims, const Tensor& grid) {
  if (grid.defined() && grid.dim() > 0 && grid.sym_size(-1) != image_dims - 2) {
    return "(expected grid to have size " + std::to_string(image_dims - 2) + " in last dimension)";
  }
  return "(expected 4D or 5D input and grid with same number of dimensions)";
}

// (N, C, H, W) or (N, C, D, H, W). `grid`: what comes with it, if that is a grid.
void check_image(const char* op, const char* name, const Tensor& image, const Tensor& grid = {},
                 Bytes bytes = Bytes::refused) {
  check_defined(op, name, image);
  TORCH_CHECK(image.dim() == 4 || image.dim() == 5, op, ": ", name,
              " must be (N, C, H, W) or (N, C, D, H, W), got shape ", shape_text(image), " ",
              torch_dimensions_text(image.dim(), grid));
  check_storage(op, name, image, bytes);
}

// Whether an extent is larger than that. One that is not known yet is asked when it is.
bool is_too_long(const SymInt& extent) {
  const auto known = extent.maybe_as_int();
  return known && *known > kLargestAxis;
}

// No spatial dimension of the image is 0, or too large for the coordinate arithmetic.
void check_spatial(const char* op, const char* name, SymIntArrayRef shape) {
  for (size_t d = 2; d < shape.size(); ++d) {
    TORCH_CHECK(shape[d] > 0, op, ": ", name, " must have no empty spatial dimension, got shape ",
                shape_text(shape), " (expected ", name, " to have non-empty spatial dimensions)");
    TORCH_CHECK(!is_too_long(shape[d]), op, ": ", name, " must have at most ", kLargestAxis,
                " pixels along each dimension, got shape ", shape_text(shape));
  }
}

// A spatial size asked for: one entry per dimension, none negative.
void check_size(const char* op, SymIntArrayRef size, int64_t dims) {
  TORCH_CHECK_VALUE(static_cast<int64_t>(size.size()) == dims, op, ": size must have ", dims,
                    " entries, the output's spatial size, got ", shape_text(size));
  for (const SymInt& extent : size) {
    TORCH_CHECK_VALUE(extent >= 0 && !is_too_long(extent), op, ": size must be between 0 and ",
                      kLargestAxis, " in each dimension, got ", shape_text(size));
  }
}

// The shape of a map's parameters.
void check_parameters(const char* op, const char* name, const Tensor& warp, const MapFacts& facts,
                      int64_t dims) {
  TORCH_CHECK_VALUE(dims <= facts.most_dims, op, ": this warp must be used with a 4-D input, ",
                    "images (N, C, H, W), got ", dims, " spatial dimensions");
  const bool flat = warp.dim() == 3 && warp.sym_size(2) == facts.columns;
  if (facts.rows_per_point == 0) {
    TORCH_CHECK_VALUE(flat && warp.sym_size(1) == facts.rows, op, ": ", name,
                      " must have shape (N, ", facts.rows, ", ", facts.columns, ") for ", dims,
                      " spatial dimensions, got shape ", shape_text(warp));
    return;
  }
  const int step = facts.rows_per_point;
  const bool fits = flat && warp.sym_size(1) >= facts.rows + step * facts.least_points &&
                    warp.sym_size(1) <= facts.rows + step * facts.most_points + 1 &&
                    (warp.sym_size(1) - facts.rows) % step <= 1;
  TORCH_CHECK_VALUE(fits, op, ": ", name, " must have shape (N, ", step, " K + ", facts.rows, ", ",
                    facts.columns, ") for K points, of which there are ", facts.least_points,
                    " to ", facts.most_points, ", or a row more if these are fixed, got shape ",
                    shape_text(warp));
}

// What a map's tensor is called.
const char* name_of(MapKind map) {
  const FreeFacts facts = free_facts(map);
  return facts.relative ? "displacement" : (facts.free ? "grid" : "theta");
}

// The shape of a map's tensor as the user has it: displacements have their components before the
// points.
std::string warp_shape_text(const Tensor& warp, MapKind map) {
  std::vector<SymInt> shape = warp.sym_sizes().vec();
  if (free_facts(map).relative && shape.size() > 2) {
    std::rotate(shape.begin() + 1, shape.end() - 1, shape.end());
  }
  return shape_text(shape);
}

// A free map's values, or a map's parameters, for `dims` spatial dimensions.
void check_warp(const char* op, const Tensor& warp, MapKind map, int64_t dims) {
  const char* name = name_of(map);
  check_defined(op, name, warp);
  if (free_facts(map).relative) {
    TORCH_CHECK(warp.dim() == dims + 2 && warp.sym_size(-1) == dims, op,
                ": displacement must be (N, ", dims, dims == 2 ? ", H, W)" : ", D, H, W)",
                " for a ", dims + 2, "-D input, got shape ", warp_shape_text(warp, map));
    check_size(op, warp.sym_sizes().slice(1, dims), dims);
  } else if (is_free(map)) {
    TORCH_CHECK(warp.dim() == dims + 2, op, ": grid must have ", dims + 2, " dimensions for a ",
                dims + 2, "-D input, got shape ", shape_text(warp), " ",
                torch_dimensions_text(dims + 2, warp));
    TORCH_CHECK(warp.sym_size(-1) == dims, op, ": grid must have last dimension ", dims, " for a ",
                dims + 2, "-D input, got shape ", shape_text(warp), " (expected grid to have size ",
                dims, " in last dimension)");
    check_size(op, warp.sym_sizes().slice(1, dims), dims);
  } else {
    check_parameters(op, name, warp, facts_of(map, dims), dims);
  }
  check_storage(op, name, warp);
}

// Equal, or 1 on either side.
void check_batch(const char* op, const Tensor& input, const Tensor& warp) {
  const SymInt a = input.sym_size(0), b = warp.sym_size(0);
  TORCH_CHECK(a == b || a == 1 || b == 1, op,
              ": input and warp must have the same batch size, or 1 on either side, got ", a,
              " and ", b, " (expected grid and input to have same batch size)");
}

void check_modes(const char* op, c10::string_view mode, c10::string_view padding_mode,
                 int64_t dims) {
  const Interpolation interpolation = parse_mode(op, mode);
  Padding padding[3];
  parse_padding(op, padding_mode, dims, padding);
  TORCH_CHECK(interpolation != Interpolation::bicubic || dims == 2, op,
              ": mode 'bicubic' must be used with a 4-D input, got a ", dims + 2,
              "-D input (bicubic interpolation only supports 4D input)");
}

// The image, the warp and the modes: what all the sampling ops share. Returns the map.
MapKind check_sampling(const char* op, const char* name, const Tensor& image, const Tensor& warp,
                       c10::string_view map, c10::string_view mode, c10::string_view padding_mode,
                       Bytes bytes = Bytes::refused) {
  const MapKind kind = parse_map(op, map);
  check_image(op, name, image, needs_position(kind) ? Tensor() : warp, bytes);
  check_modes(op, mode, padding_mode, image.dim() - 2);
  check_warp(op, warp, kind, image.dim() - 2);
  check_same_device(op, name_of(kind), warp, name, image);
  return kind;
}

// Values at the output points of a free map have its size.
void check_map_size(const char* op, const char* name, const Tensor& values, const Tensor& warp,
                    MapKind map) {
  if (!is_free(map)) return;
  const SymIntArrayRef size = warp.sym_sizes().slice(1, warp.dim() - 2);
  TORCH_CHECK(values.sym_sizes().slice(2) == size, op, ": ", name, " must have the ", name_of(map),
              "'s spatial size ", shape_text(size), ", got shape ", shape_text(values));
}

MapKind check_parametric(const char* op, c10::string_view map) {
  const MapKind kind = parse_map(op, map);
  TORCH_CHECK_VALUE(!is_free(kind), op, ": map must be a parametric one, got '", map, "'");
  return kind;
}

}  // namespace

void check_sample(const char* op, const Tensor& input, const Tensor& warp, c10::string_view map,
                  SymIntArrayRef size, c10::string_view mode, c10::string_view padding_mode,
                  bool derives) {
  const MapKind kind = check_sampling(op, "input", input, warp, map, mode, padding_mode,
                                      derives ? Bytes::refused : Bytes::taken);
  check_batch(op, input, warp);
  check_spatial(op, "input", input.sym_sizes());
  if (is_free(kind)) {
    TORCH_CHECK_VALUE(size.empty() || size == warp.sym_sizes().slice(1, input.dim() - 2), op,
                      ": size must be None with a ", name_of(kind), ", whose own size it is, got ",
                      shape_text(size));
  } else {
    check_size(op, size, input.dim() - 2);
  }
}

void check_still(const char* op, const Tensor& input, bool moves) {
  TORCH_CHECK(!moves || input.scalar_type() != at::kByte, op,
              ": uint8 images must be used with a warp and a fill that do not require grad, since "
              "they have no derivatives; input.float() has");
}

void check_fill(const char* op, const Tensor& input, const Tensor& warp, const Tensor& fill,
                c10::string_view padding_mode) {
  Padding padding[3];
  const int64_t dims = input.dim() - 2;
  parse_padding(op, padding_mode, dims, padding);
  TORCH_CHECK_VALUE(std::count(padding, padding + dims, Padding::zeros) > 0, op,
                    ": fill must be used with padding_mode 'zeros' along one axis at least, got '",
                    padding_mode, "'");
  check_defined(op, "fill", fill);
  check_storage(op, "fill", fill);
  check_same_device(op, "fill", fill, "input", input);
  const SymInt batch = input.sym_size(0) == 1 ? warp.sym_size(0) : input.sym_size(0);
  const bool fits = fill.dim() == 2 && (fill.sym_size(0) == 1 || fill.sym_size(0) == batch) &&
                    fill.sym_size(1) == input.sym_size(1);
  const auto type = input.scalar_type() == at::kByte ? at::kFloat : input.scalar_type();
  TORCH_CHECK_VALUE(fits && fill.scalar_type() == type, op, ": fill must be (1 or ", batch, ", ",
                    input.sym_size(1), ") of dtype ", type, ", got shape ", shape_text(fill),
                    " and dtype ", fill.scalar_type());
}

void check_splat(const char* op, const Tensor& values, const Tensor& warp, c10::string_view map,
                 SymIntArrayRef shape, c10::string_view mode, c10::string_view padding_mode) {
  const MapKind kind = check_sampling(op, "values", values, warp, map, mode, padding_mode);
  const SymInt batch = values.sym_size(0);
  TORCH_CHECK_VALUE(static_cast<int64_t>(shape.size()) == values.dim() &&
                        shape[1] == values.sym_size(1) && (shape[0] == batch || shape[0] == 1),
                    op, ": shape must be (N or 1, C, *spatial size) for values of shape ",
                    shape_text(values), ", got ", shape_text(shape));
  TORCH_CHECK(warp.sym_size(0) == batch || warp.sym_size(0) == 1, op,
              ": warp must have batch size 1 or that of values, ", batch, ", got ",
              warp.sym_size(0));
  check_map_size(op, "values", values, warp, kind);
  check_spatial(op, "shape", shape);
}

void check_sample_grad_warp(const char* op, const Tensor& grad, const Tensor& input,
                            const Tensor& warp, c10::string_view map, c10::string_view mode,
                            c10::string_view padding_mode) {
  const MapKind kind = check_sampling(op, "input", input, warp, map, mode, padding_mode);
  check_image(op, "grad", grad);
  check_same_device(op, "grad", grad, "input", input);
  check_batch(op, input, warp);
  check_spatial(op, "input", input.sym_sizes());
  const SymInt batch = input.sym_size(0) == 1 ? warp.sym_size(0) : input.sym_size(0);
  TORCH_CHECK(grad.dim() == input.dim() && grad.sym_size(0) == batch &&
                  grad.sym_size(1) == input.sym_size(1) &&
                  grad.scalar_type() == input.scalar_type(),
              op, ": grad must be ", input.dim(), "-D with batch ", batch, ", ", input.sym_size(1),
              " channels and dtype ", input.scalar_type(), ", got shape ", shape_text(grad),
              " and dtype ", grad.scalar_type());
  check_map_size(op, "grad", grad, warp, kind);
}

void check_direction(const char* op, const Tensor& warp, const std::optional<Tensor>& tangent,
                     int64_t axis, int64_t dims) {
  if (!tangent) {
    TORCH_CHECK_VALUE(axis >= 0 && axis < dims, op, ": axis must be between 0 and ", dims - 1,
                      " where there is no tangent, got ", axis);
    return;
  }
  TORCH_CHECK_VALUE(axis == -1, op, ": axis must be -1 where there is a tangent, got ", axis);
  check_defined(op, "tangent", *tangent);
  TORCH_CHECK(
      tangent->sym_sizes() == warp.sym_sizes() && tangent->scalar_type() == warp.scalar_type(), op,
      ": tangent must have the warp's shape ", shape_text(warp), " and dtype ", warp.scalar_type(),
      ", got shape ", shape_text(*tangent), " and dtype ", tangent->scalar_type());
  check_storage(op, "tangent", *tangent);
  check_same_device(op, "tangent", *tangent, "warp", warp);
}

void check_warp_grid(const char* op, const Tensor& warp, c10::string_view map,
                     SymIntArrayRef size) {
  const MapKind kind = check_parametric(op, map);
  TORCH_CHECK_VALUE(size.size() == 2 || size.size() == 3, op,
                    ": size must be (H, W) or (D, H, W), got ", shape_text(size));
  const int64_t dims = static_cast<int64_t>(size.size());
  check_size(op, size, dims);
  check_warp(op, warp, kind, dims);
}

void check_warp_grid_backward(const char* op, const Tensor& grad, const Tensor& warp,
                              c10::string_view map) {
  const MapKind kind = check_parametric(op, map);
  check_defined(op, "grad", grad);
  const int64_t dims = grad.dim() - 2;
  check_storage(op, "grad", grad);
  TORCH_CHECK((dims == 2 || dims == 3) && grad.sym_size(-1) == dims &&
                  grad.scalar_type() == warp.scalar_type(),
              op, ": grad must be (N, *size, dims) of dtype ", warp.scalar_type(), ", got shape ",
              shape_text(grad), " and dtype ", grad.scalar_type());
  check_warp(op, warp, kind, dims);
  check_same_device(op, "theta", warp, "grad", grad);
  TORCH_CHECK(warp.sym_size(0) == grad.sym_size(0), op, ": grad must have theta's batch size ",
              warp.sym_size(0), ", got ", grad.sym_size(0));
}

}  // namespace stn_cuda
