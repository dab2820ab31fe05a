// Incremental occlusion's one memory operation: little maps cut from a base map with a patch in it. In channels-last
// memory a row of a cut is at most five runs, so the work is block copies.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>

#include "../patch_gather_check.h"
#include "../core/patch_gather.h"

namespace dissect {
namespace {

template <typename Value>
void cut_all(
    const Tensor& base, const Tensor& patch, const Tensor& origin, const Tensor& start, double fill, Tensor& out) {
  const int64_t height = base.size(0), width = base.size(1), units = base.size(2);
  const int64_t patch_rows = patch.size(1), patch_columns = patch.size(2);
  const int64_t cuts = out.size(0), rows = out.size(1), columns = out.size(2);
  const Value* base_data = static_cast<const Value*>(base.const_data_ptr());
  const Value* patch_data = static_cast<const Value*>(patch.const_data_ptr());
  Value* out_data = static_cast<Value*>(out.mutable_data_ptr());
  const int64_t* origin_data = origin.const_data_ptr<int64_t>();
  const int64_t* start_data = start.const_data_ptr<int64_t>();
  const Value filling = static_cast<Value>(fill);

  torch::stable::parallel_for(0, cuts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const CutAxis down{height, origin_data[2 * k], patch_rows, start_data[2 * k]};
      const CutAxis right{width, origin_data[2 * k + 1], patch_columns, start_data[2 * k + 1]};
      for (int64_t y = 0; y < rows; ++y) {
        Value* to = out_data + (k * rows + y) * columns * units;
        if (!down.on_map(y)) {
          std::fill_n(to, columns * units, filling);
          continue;
        }
        const CutRow row(right, columns, down.on_patch(y));
        const auto copy = [&](const Value* from, int64_t place, int64_t first, int64_t last) {
          if (last > first) {
            std::memcpy(to + first * units, from + (place + first) * units, static_cast<size_t>((last - first) * units) * sizeof(Value));
          }
        };
        // Places that would stand at the cut's column 0.
        const int64_t on_base = down.place(y) * width + right.start;
        const int64_t on_patch = (k * patch_rows + down.place(y) - down.origin) * patch_columns + right.start - right.origin;
        std::fill_n(to, row.end[0] * units, filling);
        copy(base_data, on_base, row.end[0], row.end[1]);
        copy(patch_data, on_patch, row.end[1], row.end[2]);
        copy(base_data, on_base, row.end[2], row.end[3]);
        std::fill_n(to + row.end[3] * units, (row.end[4] - row.end[3]) * units, filling);
      }
    }
  });
}

void patch_gather(
    const Tensor& base, const Tensor& patch, const Tensor& origin, const Tensor& start, double fill, Tensor out) {
  check_patch_gather(base, patch, origin, start, out);
  if (out.numel() == 0) {
    return;
  }
  if (base.scalar_type() == ScalarType::Double) {
    cut_all<double>(base, patch, origin, start, fill, out);
  } else {
    cut_all<float>(base, patch, origin, start, fill, out);
  }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CPU, m) {
  m.impl("patch_gather", TORCH_BOX(&patch_gather));
}

}  // namespace dissect
