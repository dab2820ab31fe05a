// CUDA twin of cpu/gather.cpp: count, prefix sum, fill, so that chunks come out in the order of the CPU twin.
// Not yet run on a GPU.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../chunk_check.h"
#include "../core/activation.h"
#include "../core/nodes.h"
#include "launch.cuh"

namespace dissect {
namespace {

constexpr int kThreads = 128;
constexpr int kScanThreads = 1024;

// Maps of a batch, read by (pair = unit * images + image, place).
struct DenseSource {
  const float* maps;
  const float* peak;
  int64_t images, places, units;
  __device__ int32_t unit(int64_t pair) const { return static_cast<int32_t>(pair / images); }
  __device__ int32_t image(int64_t pair) const { return static_cast<int32_t>(pair % images); }
  __device__ bool worth(int64_t pair, float bound) const {
    return peak[(pair % images) * units + pair / images] > bound;
  }
  __device__ float value(int64_t pair, int64_t place) const {
    return maps[((pair % images) * places + place) * units + pair / images];
  }
};

// Pairs of a chunk; the nodes of a pair ascend by place, so a node is found by bisection.
template <typename Place>
struct SparseSource {
  const int32_t* units;
  const int32_t* images;
  const int32_t* start;
  const Place* place_of;
  const float* value_of;
  __device__ int32_t unit(int64_t pair) const { return units[pair]; }
  __device__ int32_t image(int64_t pair) const { return images[pair]; }
  __device__ bool worth(int64_t, float) const { return true; }
  __device__ float value(int64_t pair, int64_t place) const {
    int32_t low = start[pair], high = start[pair + 1];
    while (low < high) {
      const int32_t middle = low + (high - low) / 2;
      if (static_cast<int64_t>(place_of[middle]) < place) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low < start[pair + 1] && static_cast<int64_t>(place_of[low]) == place ? value_of[low] : kNothing;
  }
};

template <typename Source>
__device__ bool is_kept(const Source& source, int64_t pair, int64_t place, int64_t height, int64_t width, float bound) {
  bool kept = false;
  visit_neighbourhood(place, height, width, [&](int64_t near) {
    const float value = source.value(pair, near);
    kept = kept || (value > bound && is_finite(value));
  });
  return kept;
}

template <typename Source>
__global__ void count_kernel(Source source, int64_t pairs, int64_t height, int64_t width, const float* bound, int32_t* nodes) {
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pair >= pairs) {
    return;
  }
  const float limit = bound[source.unit(pair)];
  int32_t count = 0;
  if (source.worth(pair, limit)) {
    for (int64_t p = 0; p < height * width; ++p) {
      count += is_kept(source, pair, p, height, width, limit) ? 1 : 0;
    }
  }
  nodes[pair] = count;
}

// Exclusive prefix sums of (has nodes, nodes) by one block; totals go to used.
__global__ void prefix_kernel(const int32_t* nodes, int64_t pairs, int64_t* pair_at, int64_t* node_at, int64_t* used) {
  __shared__ int64_t pair_sum[kScanThreads], node_sum[kScanThreads];
  __shared__ int64_t pair_base, node_base;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    pair_base = 0;
    node_base = 0;
  }
  __syncthreads();
  for (int64_t first = 0; first < pairs; first += kScanThreads) {
    const int64_t i = first + thread;
    const int64_t count = i < pairs ? nodes[i] : 0;
    pair_sum[thread] = count > 0 ? 1 : 0;
    node_sum[thread] = count;
    __syncthreads();
    for (int step = 1; step < kScanThreads; step *= 2) {
      const int64_t more_pairs = thread >= step ? pair_sum[thread - step] : 0;
      const int64_t more_nodes = thread >= step ? node_sum[thread - step] : 0;
      __syncthreads();
      pair_sum[thread] += more_pairs;
      node_sum[thread] += more_nodes;
      __syncthreads();
    }
    if (i < pairs) {
      pair_at[i] = pair_base + pair_sum[thread] - (count > 0 ? 1 : 0);
      node_at[i] = node_base + node_sum[thread] - count;
    }
    __syncthreads();
    if (thread == kScanThreads - 1) {
      pair_base += pair_sum[thread];
      node_base += node_sum[thread];
    }
    __syncthreads();
  }
  if (thread == 0) {
    used[0] = pair_base;
    used[1] = node_base;
  }
}

template <typename Source, typename Place>
__global__ void fill_kernel(
    Source source, int64_t pairs, int64_t height, int64_t width, const float* bound, const int32_t* nodes,
    const int64_t* pair_at, const int64_t* node_at, const int64_t* used, int64_t pair_room, int64_t node_room,
    int32_t* unit, int32_t* image, int32_t* start, Place* place, float* value) {
  if (used[0] > pair_room || used[1] > node_room) {
    return;
  }
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pair == 0) {
    start[0] = 0;
  }
  if (pair >= pairs || nodes[pair] == 0) {
    return;
  }
  const float limit = bound[source.unit(pair)];
  const int64_t at = pair_at[pair];
  int64_t node = node_at[pair];
  unit[at] = source.unit(pair);
  image[at] = source.image(pair);
  start[at + 1] = static_cast<int32_t>(node + nodes[pair]);
  for (int64_t p = 0; p < height * width; ++p) {
    if (is_kept(source, pair, p, height, width, limit)) {
      place[node] = static_cast<Place>(p);
      value[node] = source.value(pair, p);
      ++node;
    }
  }
}

template <typename Source>
void run(
    const Source& source, int64_t pairs, int64_t height, int64_t width, const Tensor& bound, Tensor& unit, Tensor& image,
    Tensor& start, Tensor& place, Tensor& value, Tensor& used) {
  const torch::stable::accelerator::DeviceGuard guard(bound.get_device_index());
  const cudaStream_t stream = current_stream(bound);
  Tensor nodes = torch::stable::new_empty(bound, {pairs}, ScalarType::Int);
  Tensor pair_at = torch::stable::new_empty(bound, {pairs}, ScalarType::Long);
  Tensor node_at = torch::stable::new_empty(bound, {pairs}, ScalarType::Long);
  if (pairs > 0) {
    count_kernel<<<blocks_for(pairs, kThreads), kThreads, 0, stream>>>(
        source, pairs, height, width, bound.const_data_ptr<float>(), nodes.mutable_data_ptr<int32_t>());
    check_launch("gather: count");
  }
  prefix_kernel<<<1, kScanThreads, 0, stream>>>(
      nodes.const_data_ptr<int32_t>(), pairs, pair_at.mutable_data_ptr<int64_t>(), node_at.mutable_data_ptr<int64_t>(),
      used.mutable_data_ptr<int64_t>());
  check_launch("gather: prefix");
  with_place_type(place, [&](auto place_tag) {
    using Place = decltype(place_tag);
    fill_kernel<<<blocks_for(pairs > 0 ? pairs : 1, kThreads), kThreads, 0, stream>>>(
        source, pairs, height, width, bound.const_data_ptr<float>(), nodes.const_data_ptr<int32_t>(),
        pair_at.const_data_ptr<int64_t>(), node_at.const_data_ptr<int64_t>(), used.const_data_ptr<int64_t>(),
        unit.size(0), value.size(0), unit.mutable_data_ptr<int32_t>(), image.mutable_data_ptr<int32_t>(),
        start.mutable_data_ptr<int32_t>(), static_cast<Place*>(place.mutable_data_ptr()),
        value.mutable_data_ptr<float>());
  });
  check_launch("gather: fill");
}

void gather(
    const Tensor& maps, int64_t height, int64_t width, const Tensor& peak, const Tensor& bound, Tensor pair_unit,
    Tensor pair_image, Tensor pair_start, Tensor node_place, Tensor node_value, Tensor used) {
  check_tensor(maps, "maps", "image, place, unit", ScalarType::Float, {-1, height * width, -1});
  const int64_t images = maps.size(0), places = maps.size(1), units = maps.size(2);
  check_tensor(peak, "peak", "image, unit", ScalarType::Float, {images, units});
  check_tensor(bound, "bound", "unit", ScalarType::Float, {units});
  check_output_chunk(pair_unit, pair_image, pair_start, node_place, node_value, used, places);
  const DenseSource source{maps.const_data_ptr<float>(), peak.const_data_ptr<float>(), images, places, units};
  run(source, images * units, height, width, bound, pair_unit, pair_image, pair_start, node_place, node_value, used);
}

void prune(
    const Tensor& pair_unit, const Tensor& pair_image, const Tensor& pair_start, const Tensor& node_place,
    const Tensor& node_value, int64_t height, int64_t width, const Tensor& bound, Tensor out_unit, Tensor out_image,
    Tensor out_start, Tensor out_place, Tensor out_value, Tensor used) {
  check_chunk(pair_unit, pair_image, pair_start, node_place, node_value);
  check_tensor(bound, "bound", "unit", ScalarType::Float, {-1});
  check_output_chunk(out_unit, out_image, out_start, out_place, out_value, used, height * width);
  STD_TORCH_CHECK(
      out_place.scalar_type() == node_place.scalar_type(), "out_place and node_place must have one dtype");
  with_place_type(node_place, [&](auto place_tag) {
    using Place = decltype(place_tag);
    const SparseSource<Place> source{
        pair_unit.const_data_ptr<int32_t>(), pair_image.const_data_ptr<int32_t>(), pair_start.const_data_ptr<int32_t>(),
        static_cast<const Place*>(node_place.const_data_ptr()), node_value.const_data_ptr<float>()};
    run(source, pair_unit.size(0), height, width, bound, out_unit, out_image, out_start, out_place, out_value, used);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CUDA, m) {
  m.impl("gather", TORCH_BOX(&gather));
  m.impl("prune", TORCH_BOX(&prune));
}

}  // namespace dissect
