// Argument checks of patch_gather, shared by the twins.
#pragma once

#include "check.h"

namespace dissect {

inline void check_patch_gather(
    const Tensor& base, const Tensor& patch, const Tensor& origin, const Tensor& start, const Tensor& out) {
  const ScalarType type = base.scalar_type();
  STD_TORCH_CHECK(
      type == ScalarType::Float || type == ScalarType::Double, "base (row, column, unit) must be float32 or float64, got ",
      torch::headeronly::toString(type));
  check_tensor(base, "base", "row, column, unit", type, {-1, -1, -1});
  check_tensor(out, "out", "cut, row, column, unit", type, {-1, -1, -1, base.size(2)});
  check_tensor(patch, "patch", "cut, row, column, unit", type, {out.size(0), -1, -1, base.size(2)});
  check_tensor(origin, "origin", "cut, axis", ScalarType::Long, {out.size(0), 2});
  check_tensor(start, "start", "cut, axis", ScalarType::Long, {out.size(0), 2});
}

}  // namespace dissect
