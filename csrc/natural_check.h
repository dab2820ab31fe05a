// Argument checks of natural and descend, shared by the twins.
#pragma once

#include "check.h"

namespace dissect {

inline void check_natural(const Tensor& z, const Tensor& gradient, const Tensor& rows) {
  check_tensor(z, "z", "image, plane, row, column", ScalarType::Float, {-1, -1, -1, -1});
  const int64_t images = z.size(0), planes = z.size(1), height = z.size(2), width = z.size(3);
  check_tensor(gradient, "gradient", "image, plane, row, column", ScalarType::Float, {images, planes, height, width});
  check_tensor(rows, "rows", "image, row, energy and size of the gradient", ScalarType::Double, {images, height, 2});
}

inline void check_descend(
    const Tensor& z, const Tensor& gradient, const Tensor& rate, const Tensor& squares, const Tensor& speeds,
    const Tensor& out, const Tensor& rows) {
  check_natural(z, gradient, rows);
  const int64_t images = z.size(0), planes = z.size(1), height = z.size(2), width = z.size(3);
  check_tensor(rate, "rate", "image", ScalarType::Float, {images});
  check_tensor(squares, "squares", "image, plane, row, column", ScalarType::Float, {images, planes, height, width});
  check_tensor(speeds, "speeds", "image, plane, row, column", ScalarType::Float, {images, planes, height, width});
  check_tensor(out, "out", "image, plane, row, column", ScalarType::Float, {images, planes, height, width});
  STD_TORCH_CHECK(
      z.numel() == 0 || out.const_data_ptr() != z.const_data_ptr(), "out must not be z itself: neighbours are read after a pixel is written");
}

}  // namespace dissect
