// CUDA twin of cpu/scan.cpp. A block owns 32 units; its 8 rows of threads are the 8 summation lanes, so
// that moments are added in the order that csrc/core/activation.h defines. Not yet run on a GPU.
#include <torch/csrc/stable/library.h>

#include "../core/activation.h"
#include "launch.cuh"

namespace dissect {
namespace {

constexpr int kUnits = 32;
constexpr int kThreads = kUnits * kLanes;

struct ScanArgs {
  const float* maps;
  const bool* valid;
  int64_t images, places, units, first_image, keep, capacity, slots;
  float* tail;
  int64_t* fill;
  float* bound;
  float* low;
  float* high;
  int64_t* nonfinite;
  double* moments;
  int32_t* histogram;
  float* top_value;
  int64_t* top_image;
  int64_t* top_place;
  float* peak;
};

// Floats as unsigned integers in the same order.
__device__ uint32_t order_key(float value) {
  const uint32_t bits = __float_as_uint(value);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ float from_key(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// Keeps the `keep` largest of `count` values in place and returns the smallest of them. Run by the whole block:
// a radix select over 8-bit digits, then a stable compaction tile by tile.
__device__ float select_largest(float* values, int64_t count, int64_t keep) {
  __shared__ unsigned int histogram[256];
  __shared__ uint32_t prefix;
  __shared__ int64_t wanted, kept, ties;
  __shared__ int warp_total[kThreads / 32];
  const int thread = static_cast<int>(threadIdx.y * kUnits + threadIdx.x);
  if (thread == 0) {
    prefix = 0;
    wanted = keep;
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = thread; i < 256; i += kThreads) {
      histogram[i] = 0;
    }
    __syncthreads();
    const uint32_t mask = shift == 24 ? 0u : ~0u << (shift + 8);
    for (int64_t i = thread; i < count; i += kThreads) {
      const uint32_t key = order_key(values[i]);
      if ((key & mask) == (prefix & mask)) {
        atomicAdd(&histogram[(key >> shift) & 255u], 1u);
      }
    }
    __syncthreads();
    if (thread == 0) {
      int digit = 255;
      while (digit > 0 && static_cast<int64_t>(histogram[digit]) < wanted) {
        wanted -= histogram[digit];
        --digit;
      }
      prefix |= static_cast<uint32_t>(digit) << shift;
    }
    __syncthreads();
  }
  const uint32_t limit = prefix;
  if (thread == 0) {
    kept = 0;
    ties = wanted;  // how many values equal to the limit stay
  }
  __syncthreads();
  for (int64_t first = 0; first < count; first += kThreads) {
    const int64_t i = first + thread;
    const float value = i < count ? values[i] : 0.0f;
    const uint32_t key = order_key(value);
    const bool above = i < count && key > limit;
    const bool stays = above || (i < count && key == limit && atomicAdd(reinterpret_cast<unsigned long long*>(&ties), ~0ull) - 1 < static_cast<unsigned long long>(keep));
    const unsigned int ballot = __ballot_sync(0xffffffffu, stays);
    const int warp = thread / 32, lane = thread % 32;
    if (lane == 0) {
      warp_total[warp] = __popc(ballot);
    }
    __syncthreads();
    int before = __popc(ballot & ((1u << lane) - 1u));
    for (int w = 0; w < warp; ++w) {
      before += warp_total[w];
    }
    if (stays) {
      values[kept + before] = value;
    }
    __syncthreads();
    if (thread == 0) {
      for (int w = 0; w < kThreads / 32; ++w) {
        kept += warp_total[w];
      }
    }
    __syncthreads();
  }
  return from_key(limit);
}

__global__ void scan_kernel(ScanArgs a) {
  __shared__ int64_t fill[kUnits];
  __shared__ float bound[kUnits];
  __shared__ double sum[kLanes][kUnits], square[kLanes][kUnits];
  __shared__ float peak[kLanes][kUnits], low[kLanes][kUnits];
  __shared__ int64_t place[kLanes][kUnits];
  __shared__ int bad[kLanes][kUnits];
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kUnits;
  const int64_t u = first + x;
  const bool inside = u < a.units;
  if (y == 0) {
    fill[x] = inside ? a.fill[u] : 0;
    bound[x] = inside ? a.bound[u] : 0.0f;
  }
  __syncthreads();
  for (int64_t b = 0; b < a.images; ++b) {
    if (!a.valid[b]) {
      if (y == 0 && inside) {
        a.peak[b * a.units + u] = kNothing;
      }
      continue;
    }
    for (int unit = 0; unit < kUnits && first + unit < a.units; ++unit) {
      if (fill[unit] + a.places > a.capacity) {  // the same for the whole block
        const float limit = select_largest(a.tail + (first + unit) * a.capacity, fill[unit], a.keep);
        __syncthreads();
        if (x == 0 && y == 0) {
          fill[unit] = a.keep;
          bound[unit] = limit;
        }
        __syncthreads();
      }
    }
    double my_sum = 0.0, my_square = 0.0;
    float my_peak = kNothing, my_low = -kNothing;
    int64_t my_place = a.places;
    int my_bad = 0;
    if (inside) {
      for (int64_t p = y; p < a.places; p += kLanes) {
        const float value = a.maps[(b * a.places + p) * a.units + u] + 0.0f;
        if (a.histogram != nullptr) {
          atomicAdd(a.histogram + bin_of(value) * a.units + u, 1);
        }
        if (!is_finite(value)) {
          ++my_bad;
          continue;
        }
        my_sum += static_cast<double>(value);
        my_square += static_cast<double>(value) * static_cast<double>(value);
        my_low = value < my_low ? value : my_low;
        if (value > my_peak) {
          my_peak = value;
          my_place = p;
        }
        if (value > bound[x]) {
          const auto slot = atomicAdd(reinterpret_cast<unsigned long long*>(&fill[x]), 1ull);
          a.tail[u * a.capacity + static_cast<int64_t>(slot)] = value;
        }
      }
    }
    sum[y][x] = my_sum;
    square[y][x] = my_square;
    peak[y][x] = my_peak;
    low[y][x] = my_low;
    place[y][x] = my_place;
    bad[y][x] = my_bad;
    __syncthreads();
    if (y == 0 && inside) {
      double total = 0.0, total_square = 0.0;
      float best = kNothing, least = -kNothing;
      int64_t where = a.places;
      int total_bad = 0;
      for (int lane = 0; lane < kLanes; ++lane) {
        total += sum[lane][x];
        total_square += square[lane][x];
        total_bad += bad[lane][x];
        least = low[lane][x] < least ? low[lane][x] : least;
        if (peak[lane][x] > best || (peak[lane][x] == best && place[lane][x] < where)) {
          best = peak[lane][x];
          where = place[lane][x];
        }
      }
      a.moments[2 * u] += total;
      a.moments[2 * u + 1] += total_square;
      a.nonfinite[u] += total_bad;
      a.low[u] = least < a.low[u] ? least : a.low[u];
      a.high[u] = best > a.high[u] ? best : a.high[u];
      a.peak[b * a.units + u] = best;
      float* value = a.top_value + u * a.slots;
      int64_t* image = a.top_image + u * a.slots;
      int64_t* spot = a.top_place + u * a.slots;
      int64_t slot = a.slots;
      while (best > kNothing && slot > 0 &&
             (image[slot - 1] < 0 || ranks_before(best, a.first_image + b, value[slot - 1], image[slot - 1]))) {
        --slot;
      }
      if (best > kNothing && slot < a.slots) {
        for (int64_t s = a.slots - 1; s > slot; --s) {
          value[s] = value[s - 1];
          image[s] = image[s - 1];
          spot[s] = spot[s - 1];
        }
        value[slot] = best;
        image[slot] = a.first_image + b;
        spot[slot] = where;
      }
    }
    __syncthreads();
  }
  if (y == 0 && inside) {
    a.fill[u] = fill[x];
    a.bound[u] = bound[x];
  }
}

void scan(
    const Tensor& maps, const Tensor& valid, int64_t first_image, int64_t keep, Tensor tail, Tensor fill, Tensor bound,
    Tensor low, Tensor high, Tensor nonfinite, Tensor moments, Tensor histogram, Tensor top_value, Tensor top_image,
    Tensor top_place, Tensor peak) {
  check_scan(
      maps, valid, keep, tail, fill, bound, low, high, nonfinite, moments, histogram, top_value, top_image, top_place,
      peak);
  const int64_t images = maps.size(0), places = maps.size(1), units = maps.size(2);
  STD_TORCH_CHECK(
      tail.size(1) >= keep + places, "tail (unit, slot) needs at least keep + places = ", keep + places,
      " slots on a GPU, got ", tail.size(1));
  if (images == 0 || places == 0 || units == 0) {
    return;
  }
  const torch::stable::accelerator::DeviceGuard guard(maps.get_device_index());
  const ScanArgs arguments{
      maps.const_data_ptr<float>(), valid.const_data_ptr<bool>(), images, places, units, first_image, keep,
      tail.size(1), top_value.size(1), tail.mutable_data_ptr<float>(), fill.mutable_data_ptr<int64_t>(),
      bound.mutable_data_ptr<float>(), low.mutable_data_ptr<float>(), high.mutable_data_ptr<float>(),
      nonfinite.mutable_data_ptr<int64_t>(), moments.mutable_data_ptr<double>(),
      histogram.size(0) ? histogram.mutable_data_ptr<int32_t>() : nullptr, top_value.mutable_data_ptr<float>(),
      top_image.mutable_data_ptr<int64_t>(), top_place.mutable_data_ptr<int64_t>(), peak.mutable_data_ptr<float>()};
  scan_kernel<<<blocks_for(units, kUnits), dim3(kUnits, kLanes), 0, current_stream(maps)>>>(arguments);
  check_launch("scan");
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CUDA, m) {
  m.impl("scan", TORCH_BOX(&scan));
}

}  // namespace dissect
