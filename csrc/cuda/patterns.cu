// CUDA twin of cpu/patterns.cpp: one thread a place of one pattern, its neurons in local memory. Not yet run on a GPU.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../core/patterns.h"
#include "../patterns_check.h"
#include "launch.cuh"

namespace dissect {
namespace {

constexpr int kThreads = 128;
constexpr int kInputs = 4;
constexpr int kMost = 64;  // neurons of a pattern

__device__ float bend(Neuron kind, float total) {
  switch (kind) {
    case Neuron::sine:
      return sine(total);
    case Neuron::sigmoid:
      return logistic(total) * 2.0f - 1.0f;
    case Neuron::gaussian:
      return exponential(-(total * total));
    case Neuron::linear:
      return within(total, -kReach, kReach);
    default:
      return logistic(total);
  }
}

__global__ void render_kernel(
    const int8_t* kinds, const int64_t* neurons, const int64_t* links, const int32_t* sender, const float* weight,
    const float* places, float* out, int64_t planes, int64_t size) {
  const int64_t p = blockIdx.y, place = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t first = neurons[p];
  const int all = static_cast<int>(neurons[p + 1] - first);
  if (place >= size) {
    return;
  }
  if (all > kMost) {  // no room: a picture that nobody can take for one
    for (int64_t c = 0; c < planes; ++c) {
      out[(p * planes + c) * size + place] = nanf("");
    }
    return;
  }
  float values[kMost];
  for (int n = 0; n < all; ++n) {
    if (n < kInputs) {
      values[n] = places[n * size + place];
      continue;
    }
    float total = 0.0f;
    for (int64_t l = links[first + n]; l < links[first + n + 1]; ++l) {
      total += weight[l] * values[sender[l]];
    }
    values[n] = bend(static_cast<Neuron>(kinds[first + n]), total);
  }
  float* to = out + p * planes * size + place;
  if (planes == 1) {
    to[0] = values[all - 1];
    return;
  }
  for (int c = 0; c < 3; ++c) {
    const float shift = c == 0 ? 0.0f : (c == 1 ? 8.0f : 4.0f);
    to[c * size] = colour(values[all - 3], values[all - 2], values[all - 1], shift);
  }
}

void render_patterns(
    Tensor kinds, Tensor neuron_start, Tensor link_start, Tensor sender, Tensor weight, Tensor places, Tensor out) {
  check_patterns(kinds, neuron_start, link_start, sender, weight, places, out);
  if (out.numel() == 0) {
    return;
  }
  STD_TORCH_CHECK(out.size(0) <= 65535, "render_patterns draws at most 65,535 patterns at once, got ", out.size(0));
  const torch::stable::accelerator::DeviceGuard guard(out.get_device_index());
  const dim3 grid(blocks_for(out.size(2), kThreads), static_cast<unsigned int>(out.size(0)));
  render_kernel<<<grid, kThreads, 0, current_stream(out)>>>(
      kinds.const_data_ptr<int8_t>(), neuron_start.const_data_ptr<int64_t>(), link_start.const_data_ptr<int64_t>(),
      sender.const_data_ptr<int32_t>(), weight.const_data_ptr<float>(), places.const_data_ptr<float>(),
      out.mutable_data_ptr<float>(), out.size(1), out.size(2));
  check_launch("render_patterns");
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CUDA, m) {
  m.impl("render_patterns", TORCH_BOX(&render_patterns));
}

}  // namespace dissect
