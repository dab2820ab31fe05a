// Argument checks shared by the twins. Each message names the argument, what it must be and what came.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/activation.h"

namespace dissect {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shape_text(const Tensor& tensor) {
  std::string text = "[";
  for (int64_t axis = 0; axis < tensor.dim(); ++axis) {
    text += (axis ? ", " : "") + std::to_string(tensor.size(axis));
  }
  return text + "]";
}

inline std::string shape_text(std::initializer_list<int64_t> sizes) {
  std::string text = "[";
  bool first = true;
  for (const int64_t size : sizes) {
    text += (first ? "" : ", ") + (size < 0 ? std::string("any") : std::to_string(size));
    first = false;
  }
  return text + "]";
}

// A contiguous tensor of the given dtype and sizes (-1 accepts any extent).
inline void check_tensor(
    const Tensor& tensor, const char* name, const char* axes, ScalarType dtype, std::initializer_list<int64_t> sizes) {
  bool matches = tensor.dim() == static_cast<int64_t>(sizes.size());
  if (matches) {
    int64_t axis = 0;
    for (const int64_t size : sizes) {
      matches = matches && (size < 0 || tensor.size(axis) == size);
      ++axis;
    }
  }
  STD_TORCH_CHECK(
      matches, name, " (", axes, ") must have shape ", shape_text(sizes), ", got ", shape_text(tensor));
  STD_TORCH_CHECK(
      tensor.scalar_type() == dtype, name, " (", axes, ") has the wrong dtype: expected ",
      torch::headeronly::toString(dtype), ", got ", torch::headeronly::toString(tensor.scalar_type()));
  STD_TORCH_CHECK(tensor.is_contiguous(), name, " (", axes, ") must be contiguous");
}

inline void check_scan(
    const Tensor& maps, const Tensor& valid, int64_t keep, const Tensor& tail, const Tensor& fill, const Tensor& bound,
    const Tensor& low, const Tensor& high, const Tensor& nonfinite, const Tensor& moments, const Tensor& histogram,
    const Tensor& top_value, const Tensor& top_image, const Tensor& top_place, const Tensor& peak) {
  check_tensor(maps, "maps", "image, place, unit", ScalarType::Float, {-1, -1, -1});
  const int64_t images = maps.size(0), units = maps.size(2);
  check_tensor(valid, "valid", "image", ScalarType::Bool, {images});
  check_tensor(tail, "tail", "unit, slot", ScalarType::Float, {units, -1});
  const int64_t capacity = tail.size(1);
  STD_TORCH_CHECK(
      keep >= 1 && capacity > keep, "tail (unit, slot) needs more slots than keep = ", keep, " (at least 1), got ",
      capacity);
  check_tensor(fill, "fill", "unit", ScalarType::Long, {units});
  check_tensor(bound, "bound", "unit", ScalarType::Float, {units});
  check_tensor(low, "low", "unit", ScalarType::Float, {units});
  check_tensor(high, "high", "unit", ScalarType::Float, {units});
  check_tensor(nonfinite, "nonfinite", "unit", ScalarType::Long, {units});
  check_tensor(moments, "moments", "unit, sum and sum of squares", ScalarType::Double, {units, 2});
  check_tensor(histogram, "histogram", "bin, unit", ScalarType::Int, {histogram.size(0) == 0 ? 0 : kBins, units});
  check_tensor(top_value, "top_value", "unit, slot", ScalarType::Float, {units, -1});
  const int64_t slots = top_value.size(1);
  check_tensor(top_image, "top_image", "unit, slot", ScalarType::Long, {units, slots});
  check_tensor(top_place, "top_place", "unit, slot", ScalarType::Long, {units, slots});
  check_tensor(peak, "peak", "image, unit", ScalarType::Float, {images, units});
}

}  // namespace dissect
