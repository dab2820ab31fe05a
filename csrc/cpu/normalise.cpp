// Pixels to network input in one pass: convert, subtract, divide, without an array in between.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../check.h"
#include "clones.h"

namespace dissect {
namespace {

DISSECT_CLONES void normalise_row(
    const uint8_t* __restrict pixels, const float* __restrict mean, const float* __restrict std, int64_t count,
    float* __restrict out) {
  for (int64_t j = 0; j < count; ++j) {
    out[j] = (static_cast<float>(pixels[j]) - mean[j]) / std[j];
  }
}

void normalise(Tensor pixels, Tensor mean, Tensor std, Tensor out) {
  check_tensor(pixels, "pixels", "row, value", ScalarType::Byte, {-1, -1});
  const int64_t rows = pixels.size(0), values = pixels.size(1);
  check_tensor(mean, "mean", "value", ScalarType::Float, {values});
  check_tensor(std, "std", "value", ScalarType::Float, {values});
  check_tensor(out, "out", "row, value", ScalarType::Float, {rows, values});
  if (out.numel() == 0) {
    return;
  }
  const uint8_t* from = pixels.const_data_ptr<uint8_t>();
  const float* mean_row = mean.const_data_ptr<float>();
  const float* std_row = std.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  torch::stable::parallel_for(0, rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      normalise_row(from + row * values, mean_row, std_row, values, to + row * values);
    }
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CPU, m) {
  m.impl("normalise", TORCH_BOX(&normalise));
}

}  // namespace dissect
