// CUDA twin of cpu/patch_gather.cpp: one thread an element, neighbouring threads on neighbouring units.
// Not yet run on a GPU.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../patch_gather_check.h"
#include "../core/patch_gather.h"
#include "launch.cuh"

namespace dissect {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = int64_t{1} << 30;

template <typename Value>
__global__ void cut_kernel(
    const Value* base, const Value* patch, const int64_t* origin, const int64_t* start, Value fill, Value* out,
    int64_t total, int64_t height, int64_t width, int64_t units, int64_t patch_rows, int64_t patch_columns, int64_t rows,
    int64_t columns) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < total;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t u = i % units, x = i / units % columns, y = i / (units * columns) % rows, k = i / (units * columns * rows);
    const CutAxis down{height, origin[2 * k], patch_rows, start[2 * k]};
    const CutAxis right{width, origin[2 * k + 1], patch_columns, start[2 * k + 1]};
    if (!down.on_map(y) || !right.on_map(x)) {
      out[i] = fill;
    } else if (down.on_patch(y) && right.on_patch(x)) {
      out[i] = patch[((k * patch_rows + down.place(y) - down.origin) * patch_columns + right.place(x) - right.origin) * units + u];
    } else {
      out[i] = base[(down.place(y) * width + right.place(x)) * units + u];
    }
  }
}

template <typename Value>
void launch(const Tensor& base, const Tensor& patch, const Tensor& origin, const Tensor& start, double fill, Tensor& out) {
  const torch::stable::accelerator::DeviceGuard guard(base.get_device_index());
  const int64_t total = out.numel();
  const int64_t blocks = (total + kThreads - 1) / kThreads;
  cut_kernel<<<static_cast<unsigned int>(blocks < kMostBlocks ? blocks : kMostBlocks), kThreads, 0, current_stream(base)>>>(
      static_cast<const Value*>(base.const_data_ptr()), static_cast<const Value*>(patch.const_data_ptr()),
      origin.const_data_ptr<int64_t>(), start.const_data_ptr<int64_t>(), static_cast<Value>(fill),
      static_cast<Value*>(out.mutable_data_ptr()), total, base.size(0), base.size(1), base.size(2), patch.size(1),
      patch.size(2), out.size(1), out.size(2));
  check_launch("patch_gather");
}

void patch_gather(
    const Tensor& base, const Tensor& patch, const Tensor& origin, const Tensor& start, double fill, Tensor out) {
  check_patch_gather(base, patch, origin, start, out);
  if (out.numel() == 0) {
    return;
  }
  if (base.scalar_type() == ScalarType::Double) {
    launch<double>(base, patch, origin, start, fill, out);
  } else {
    launch<float>(base, patch, origin, start, fill, out);
  }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CUDA, m) {
  m.impl("patch_gather", TORCH_BOX(&patch_gather));
}

}  // namespace dissect
