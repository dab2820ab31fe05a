// Candidate nodes of a batch of maps, and of a chunk under a higher bound.
#include <algorithm>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "chunk.h"
#include "prefetch.h"

namespace dissect {
namespace {

constexpr int64_t kUnitsPerTask = 16;   // one cache line of units
constexpr int64_t kPairsPerTask = 512;

void gather(
    const Tensor& maps, int64_t height, int64_t width, const Tensor& peak, const Tensor& bound, Tensor pair_unit,
    Tensor pair_image, Tensor pair_start, Tensor node_place, Tensor node_value, Tensor used) {
  check_tensor(maps, "maps", "image, place, unit", ScalarType::Float, {-1, height * width, -1});
  const int64_t images = maps.size(0), places = maps.size(1), units = maps.size(2);
  check_tensor(peak, "peak", "image, unit", ScalarType::Float, {images, units});
  check_tensor(bound, "bound", "unit", ScalarType::Float, {units});
  check_output_chunk(pair_unit, pair_image, pair_start, node_place, node_value, used, places);
  const float* map_data = maps.const_data_ptr<float>();
  const float* peak_data = peak.const_data_ptr<float>();
  const float* bound_data = bound.const_data_ptr<float>();
  with_place_type(node_place, [&](auto place_tag) {
    using Place = decltype(place_tag);
    const int64_t tasks = (units + kUnitsPerTask - 1) / kUnitsPerTask;
    const Bordered grid(height, width);
    std::vector<ChunkBuilder<Place>> parts(static_cast<size_t>(tasks), ChunkBuilder<Place>(grid));
    torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> near_maps(static_cast<size_t>(kUnitsPerTask * grid.size), kNothing);
      int64_t hot[kUnitsPerTask];
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task * kUnitsPerTask, last = std::min(units, first + kUnitsPerTask);
        for (int64_t b = 0; b < images; ++b) {
          int64_t count = 0;
          for (int64_t u = first; u < last; ++u) {
            hot[count] = u - first;
            count += peak_data[b * units + u] > bound_data[u];
          }
          if (count == 0) {
            continue;
          }
          const float* source = map_data + b * places * units + first;
          for (int64_t p = 0; p < places; ++p) {  // one line of memory after another, for all units at once
            float* target = near_maps.data() + grid.cell[p];
            prefetch(source + (p + kAhead) * units, last - first);
            for (int64_t i = 0; i < count; ++i) {
              target[hot[i] * grid.size] = source[p * units + hot[i]];
            }
          }
          for (int64_t i = 0; i < count; ++i) {
            const int64_t u = first + hot[i];
            parts[task].add(
                static_cast<int32_t>(u), static_cast<int32_t>(b), near_maps.data() + hot[i] * grid.size, bound_data[u]);
          }
        }
      }
    });
    join_chunk(parts, pair_unit, pair_image, pair_start, node_place, node_value, used);
  });
}

void prune(
    const Tensor& pair_unit, const Tensor& pair_image, const Tensor& pair_start, const Tensor& node_place,
    const Tensor& node_value, int64_t height, int64_t width, const Tensor& bound, Tensor out_unit, Tensor out_image,
    Tensor out_start, Tensor out_place, Tensor out_value, Tensor used) {
  check_chunk(pair_unit, pair_image, pair_start, node_place, node_value);
  check_tensor(bound, "bound", "unit", ScalarType::Float, {-1});
  const int64_t places = height * width, units = bound.size(0);
  check_output_chunk(out_unit, out_image, out_start, out_place, out_value, used, places);
  STD_TORCH_CHECK(
      out_place.scalar_type() == node_place.scalar_type(), "out_place and node_place must have one dtype");
  const float* bound_data = bound.const_data_ptr<float>();
  with_place_type(node_place, [&](auto place_tag) {
    using Place = decltype(place_tag);
    const auto chunk = view_chunk<Place>(pair_unit, pair_image, pair_start, node_place, node_value);
    check_nodes(chunk, node_value.size(0), places);
    for (int64_t i = 0; i < chunk.pairs; ++i) {
      STD_TORCH_CHECK(
          chunk.unit[i] >= 0 && chunk.unit[i] < units, "pair_unit holds unit ", chunk.unit[i], ", but bound has ", units,
          " units");
    }
    const int64_t tasks = (chunk.pairs + kPairsPerTask - 1) / kPairsPerTask;
    const Bordered grid(height, width);
    std::vector<ChunkBuilder<Place>> parts(static_cast<size_t>(tasks), ChunkBuilder<Place>(grid));
    torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> map(static_cast<size_t>(grid.size), kNothing);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t last = std::min(chunk.pairs, (task + 1) * kPairsPerTask);
        for (int64_t i = task * kPairsPerTask; i < last; ++i) {
          const int32_t u = chunk.unit[i];
          for (int32_t n = chunk.start[i]; n < chunk.start[i + 1]; ++n) {
            map[grid.cell[chunk.place[n]]] = chunk.value[n];
          }
          parts[task].add(u, chunk.image[i], map.data(), bound_data[u]);
          for (int32_t n = chunk.start[i]; n < chunk.start[i + 1]; ++n) {
            map[grid.cell[chunk.place[n]]] = kNothing;
          }
        }
      }
    });
    join_chunk(parts, out_unit, out_image, out_start, out_place, out_value, used);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CPU, m) {
  m.impl("gather", TORCH_BOX(&gather));
  m.impl("prune", TORCH_BOX(&prune));
}

}  // namespace dissect
