// CUDA twin of cpu/natural.cpp: one block a row of an image, its threads along the row, planes in turn. Sums of a row are
// added in float64 in a fixed order. Not yet run on a GPU.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../core/natural.h"
#include "../natural_check.h"
#include "launch.cuh"

namespace dissect {
namespace {

constexpr int kThreads = 128;

struct Picture {
  const float* z;
  int64_t planes, height, width;

  __device__ int64_t at(int64_t image, int64_t plane, int64_t row, int64_t column) const {
    return ((image * planes + plane) * height + row) * width + column;
  }

  // Sloped differences of one value, and its variation.
  __device__ float differences(const Natural& rule, int64_t place, int64_t row, int64_t column, float& right, float& down) const {
    right = column + 1 < width ? z[place + 1] - z[place] : 0.0f;
    down = row + 1 < height ? z[place + width] - z[place] : 0.0f;
    const float squared = right * right + down * down;
    if (rule.plain_variation()) {
      return squared;
    }
    const float slope = rule.slope(squared);
    right *= slope;
    down *= slope;
    return rule.variation(squared);
  }

  __device__ float squared_length(int64_t image, int64_t row, int64_t column) const {
    float squared = 0.0f;
    for (int64_t c = 0; c < planes; ++c) {
      const float value = z[at(image, c, row, column)];
      squared += value * value;
    }
    return squared;
  }

  __device__ float gradient(
      const Natural& rule, int64_t place, int64_t row, int64_t column, float steep, float& variation) const {
    float right, down, left = 0.0f, up = 0.0f, other;
    variation = differences(rule, place, row, column, right, down);
    if (column > 0) {
      differences(rule, place - 1, row, column - 1, left, other);
    }
    if (row > 0) {
      differences(rule, place - width, row - 1, column, other, up);
    }
    return rule.gradient(z[place], steep, right, down, left, up);
  }
};

// Sum over the threads of a block, the same whatever their order; only thread 0 has it.
__device__ double block_sum(double value) {
  __shared__ double parts[kThreads];
  parts[threadIdx.x] = value;
  __syncthreads();
  for (unsigned int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    __syncthreads();
  }
  const double total = parts[0];
  __syncthreads();
  return total;
}

__global__ void natural_kernel(Picture picture, Natural rule, float* gradient, double* rows) {
  const int64_t image = blockIdx.x / picture.height, row = blockIdx.x % picture.height;
  double energy = 0, size = 0;
  for (int64_t x = threadIdx.x; x < picture.width; x += kThreads) {
    const float squared = picture.squared_length(image, row, x), steep = rule.steep(squared);
    energy += static_cast<double>(rule.alpha_scale) * static_cast<double>(steep * squared);
    for (int64_t c = 0; c < picture.planes; ++c) {
      const int64_t place = picture.at(image, c, row, x);
      float variation;
      const float slope = picture.gradient(rule, place, row, x, steep, variation);
      energy += static_cast<double>(rule.variation_scale) * static_cast<double>(variation);
      size += static_cast<double>(slope < 0.0f ? -slope : slope);
      gradient[place] = slope;
    }
  }
  energy = block_sum(energy);
  size = block_sum(size);
  if (threadIdx.x == 0) {
    rows[2 * static_cast<int64_t>(blockIdx.x)] = energy;
    rows[2 * static_cast<int64_t>(blockIdx.x) + 1] = size;
  }
}

__global__ void descend_kernel(
    Picture picture, Natural rule, Fading fading, const float* gradient, const float* rate, float radius, float* squares,
    float* speeds, float* out, double* rows) {
  const int64_t image = blockIdx.x / picture.height, row = blockIdx.x % picture.height;
  const float inverse_rate = 1.0f / rate[image];
  double energy = 0, size = 0;
  for (int64_t x = threadIdx.x; x < picture.width; x += kThreads) {
    const float squared = picture.squared_length(image, row, x), steep = rule.steep(squared);
    energy += static_cast<double>(rule.alpha_scale) * static_cast<double>(steep * squared);
    float far = 0.0f;
    for (int64_t c = 0; c < picture.planes; ++c) {
      const int64_t place = picture.at(image, c, row, x);
      float variation;
      const float slope = gradient[place] + picture.gradient(rule, place, row, x, steep, variation);
      energy += static_cast<double>(rule.variation_scale) * static_cast<double>(variation);
      size += static_cast<double>(slope < 0.0f ? -slope : slope);
      squares[place] = fading.square(squares[place], slope);
      speeds[place] = fading.speed(speeds[place], slope, squares[place], inverse_rate);
      const float moved = picture.z[place] + speeds[place];
      far += moved * moved;
      out[place] = moved;
    }
    const float factor = into_ball(far, radius);
    if (factor != 1.0f) {
      for (int64_t c = 0; c < picture.planes; ++c) {
        out[picture.at(image, c, row, x)] *= factor;
      }
    }
  }
  energy = block_sum(energy);
  size = block_sum(size);
  if (threadIdx.x == 0) {
    rows[2 * static_cast<int64_t>(blockIdx.x)] = energy;
    rows[2 * static_cast<int64_t>(blockIdx.x) + 1] = size;
  }
}

Picture picture_of(const Tensor& z) {
  return {z.const_data_ptr<float>(), z.size(1), z.size(2), z.size(3)};
}

void natural(
    Tensor z, double alpha, double alpha_scale, double beta, double variation_scale, Tensor gradient, Tensor rows) {
  check_natural(z, gradient, rows);
  if (z.numel() == 0) {
    return;
  }
  const torch::stable::accelerator::DeviceGuard guard(z.get_device_index());
  natural_kernel<<<blocks_for(z.size(0) * z.size(2), 1), kThreads, 0, current_stream(z)>>>(
      picture_of(z), Natural(alpha, alpha_scale, beta, variation_scale), gradient.mutable_data_ptr<float>(),
      rows.mutable_data_ptr<double>());
  check_launch("natural");
}

void descend(
    Tensor z, Tensor gradient, double alpha, double alpha_scale, double beta, double variation_scale, Tensor rate,
    double mu, double memory, double radius, Tensor squares, Tensor speeds, Tensor out, Tensor rows) {
  check_descend(z, gradient, rate, squares, speeds, out, rows);
  if (z.numel() == 0) {
    return;
  }
  const torch::stable::accelerator::DeviceGuard guard(z.get_device_index());
  descend_kernel<<<blocks_for(z.size(0) * z.size(2), 1), kThreads, 0, current_stream(z)>>>(
      picture_of(z), Natural(alpha, alpha_scale, beta, variation_scale),
      Fading{static_cast<float>(mu), static_cast<float>(memory)}, gradient.const_data_ptr<float>(),
      rate.const_data_ptr<float>(), static_cast<float>(radius), squares.mutable_data_ptr<float>(),
      speeds.mutable_data_ptr<float>(), out.mutable_data_ptr<float>(), rows.mutable_data_ptr<double>());
  check_launch("descend");
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CUDA, m) {
  m.impl("natural", TORCH_BOX(&natural));
  m.impl("descend", TORCH_BOX(&descend));
}

}  // namespace dissect
