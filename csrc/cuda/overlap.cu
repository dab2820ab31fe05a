// CUDA twin of cpu/overlap.cpp: one block a pair, the map in shared memory, integer atomics (whose order does not
// matter). Not yet run on a GPU.
#include <torch/csrc/stable/library.h>

#include "../chunk_check.h"
#include "../core/activation.h"
#include "../core/interpolate.h"
#include "../core/overlap.h"
#include "launch.cuh"

namespace dissect {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kSharedLimit = 160 * 1024;  // bytes of map that an sm_80 block can hold

template <typename Place>
struct OverlapArgs {
  const int32_t* unit;
  const int32_t* image;
  const int32_t* start;
  const Place* place;
  const float* value;
  int64_t height, width, rows, columns, labels, categories;
  const int32_t* row_node;
  const float* row_t;
  const int32_t* column_node;
  const float* column_t;
  const float* threshold;
  const uint16_t* planes;
  const int32_t* plane_start;
  const int32_t* scalars;
  const int32_t* scalar_start;
  const int64_t* held;
  const int16_t* primary;
  AreaRule rule;
  unsigned long long* intersection;
  unsigned long long* area;
  unsigned long long* mask;
};

template <typename Place>
__global__ void overlap_kernel(OverlapArgs<Place> a) {
  extern __shared__ float map[];
  __shared__ unsigned long long total, unlabelled, touched;
  const int64_t pair = blockIdx.x;
  const int32_t u = a.unit[pair], b = a.image[pair];
  const int64_t places = a.height * a.width;
  for (int64_t p = threadIdx.x; p < places; p += kThreads) {
    map[p] = kNothing;
  }
  if (threadIdx.x == 0) {
    total = 0;
    unlabelled = 0;
    touched = 0;
  }
  __syncthreads();
  for (int32_t n = a.start[pair] + static_cast<int32_t>(threadIdx.x); n < a.start[pair + 1]; n += kThreads) {
    map[a.place[n]] = a.value[n];
  }
  __syncthreads();
  const float t = a.threshold[u];
  const int32_t first_plane = a.plane_start[b], last_plane = a.plane_start[b + 1];
  unsigned long long* row = a.intersection + static_cast<int64_t>(u) * a.labels;
  unsigned long long count = 0, none = 0, met = 0;
  for (int64_t pixel = threadIdx.x; pixel < a.rows * a.columns; pixel += kThreads) {
    const int64_t y = pixel / a.columns, x = pixel % a.columns;
    const float* upper = map + a.row_node[2 * y] * a.width;
    const float* lower = map + a.row_node[2 * y + 1] * a.width;
    const int32_t left = a.column_node[2 * x], right = a.column_node[2 * x + 1];
    const Cell cell{upper[left], upper[right], lower[left], lower[right]};
    if (!(cell.highest() > t) || !(interpolate(cell, a.row_t[y], a.column_t[x]) > t)) {
      continue;
    }
    ++count;
    for (int32_t k = first_plane; k < last_plane; ++k) {
      const uint16_t label = a.planes[k * a.rows * a.columns + pixel];
      if (label == 0) {
        ++none;
        continue;
      }
      atomicAdd(row + label, 1ull);
      const int16_t category = a.primary[label];
      met |= category >= 0 ? 1ull << category : 0ull;
    }
  }
  atomicAdd(&total, count);
  atomicAdd(&unlabelled, none);
  atomicOr(&touched, met);
  __syncthreads();
  if (threadIdx.x != 0 || total == 0) {
    return;
  }
  atomicAdd(row, unlabelled);
  unsigned long long seen = touched;
  for (int32_t s = a.scalar_start[b]; s < a.scalar_start[b + 1]; ++s) {
    const int32_t label = a.scalars[s];
    atomicAdd(row + label, total);
    const int16_t category = a.primary[label];
    seen |= category >= 0 ? 1ull << category : 0ull;
  }
  for (int category = 0; category < static_cast<int>(a.categories); ++category) {
    if (counts_for(a.rule, static_cast<uint64_t>(a.held[b]), seen, category)) {
      atomicAdd(a.area + static_cast<int64_t>(u) * a.categories + category, total);
    }
  }
  atomicAdd(a.mask + u, total);
}

void overlap(
    const Tensor& pair_unit, const Tensor& pair_image, const Tensor& pair_start, const Tensor& node_place,
    const Tensor& node_value, int64_t height, int64_t width, const Tensor& row_node, const Tensor& row_t,
    const Tensor& column_node, const Tensor& column_t, const Tensor& threshold, const Tensor& planes,
    const Tensor& plane_start, const Tensor& scalars, const Tensor& scalar_start, const Tensor& held,
    const Tensor& primary, int64_t area_rule, Tensor intersection, Tensor area, Tensor mask) {
  check_overlap(
      pair_unit, pair_image, pair_start, node_place, node_value, row_node, row_t, column_node, column_t, threshold,
      planes, plane_start, scalars, scalar_start, held, primary, area_rule, intersection, area, mask);
  const int64_t shared = height * width * static_cast<int64_t>(sizeof(float));
  STD_TORCH_CHECK(
      shared <= kSharedLimit, "maps of ", height, " x ", width, " do not fit into a GPU block's shared memory (at most ",
      kSharedLimit / 4, " places): count this layer with --device cpu");
  const int64_t pairs = pair_unit.size(0), rows = row_t.size(0), columns = column_t.size(0);
  if (pairs == 0 || rows == 0 || columns == 0) {
    return;
  }
  const torch::stable::accelerator::DeviceGuard guard(threshold.get_device_index());
  const cudaStream_t stream = current_stream(threshold);
  with_place_type(node_place, [&](auto place_tag) {
    using Place = decltype(place_tag);
    const auto unsigned_of = [](Tensor& tensor) {
      return reinterpret_cast<unsigned long long*>(tensor.mutable_data_ptr<int64_t>());
    };
    const OverlapArgs<Place> arguments{
        pair_unit.const_data_ptr<int32_t>(), pair_image.const_data_ptr<int32_t>(), pair_start.const_data_ptr<int32_t>(),
        static_cast<const Place*>(node_place.const_data_ptr()), node_value.const_data_ptr<float>(), height, width, rows,
        columns, primary.size(0), area.size(1), row_node.const_data_ptr<int32_t>(), row_t.const_data_ptr<float>(),
        column_node.const_data_ptr<int32_t>(), column_t.const_data_ptr<float>(), threshold.const_data_ptr<float>(),
        static_cast<const uint16_t*>(planes.const_data_ptr()), plane_start.const_data_ptr<int32_t>(),
        scalars.const_data_ptr<int32_t>(), scalar_start.const_data_ptr<int32_t>(), held.const_data_ptr<int64_t>(),
        primary.const_data_ptr<int16_t>(), static_cast<AreaRule>(area_rule), unsigned_of(intersection),
        unsigned_of(area), unsigned_of(mask)};
    const cudaError_t error = cudaFuncSetAttribute(
        overlap_kernel<Place>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    STD_TORCH_CHECK(error == cudaSuccess, "cannot reserve ", shared, " bytes of shared memory: ", cudaGetErrorString(error));
    overlap_kernel<Place><<<static_cast<unsigned int>(pairs), kThreads, static_cast<size_t>(shared), stream>>>(arguments);
  });
  check_launch("overlap");
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CUDA, m) {
  m.impl("overlap", TORCH_BOX(&overlap));
}

}  // namespace dissect
