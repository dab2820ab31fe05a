// A sparse chunk of candidate maps: pairs (unit, image) in ascending unit order, each with its nodes.
#pragma once

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "../chunk_check.h"
#include "../core/activation.h"
#include "clones.h"

namespace dissect {

template <typename Place>
struct ChunkView {
  const int32_t* unit;
  const int32_t* image;
  const int32_t* start;
  const Place* place;
  const float* value;
  int64_t pairs;
};

template <typename Place>
ChunkView<Place> view_chunk(
    const Tensor& unit, const Tensor& image, const Tensor& start, const Tensor& place, const Tensor& value) {
  return {
      unit.const_data_ptr<int32_t>(),
      image.const_data_ptr<int32_t>(),
      start.const_data_ptr<int32_t>(),
      static_cast<const Place*>(place.const_data_ptr()),
      value.const_data_ptr<float>(),
      unit.size(0)};
}

// What a kernel relies on when it follows a chunk into a map of `places`: starts that ascend inside the nodes, and
// nodes inside the map.
template <typename Place>
void check_nodes(const ChunkView<Place>& chunk, int64_t nodes, int64_t places) {
  for (int64_t i = 0; i < chunk.pairs; ++i) {
    STD_TORCH_CHECK(
        chunk.start[i] >= 0 && chunk.start[i] <= chunk.start[i + 1] && chunk.start[i + 1] <= nodes, "pair_start (pair + 1) must ascend inside 0..",
        nodes, ", got ", chunk.start[i], " and ", chunk.start[i + 1], " at ", i);
  }
  const int64_t first = chunk.pairs > 0 ? chunk.start[0] : 0, last = chunk.pairs > 0 ? chunk.start[chunk.pairs] : 0;
  for (int64_t n = first; n < last; ++n) {
    const int64_t place = static_cast<int64_t>(chunk.place[n]);
    STD_TORCH_CHECK(
        place >= 0 && place < places, "node_place holds ", place, ", but maps have ", places, " places");
  }
}

// A map with a border of one node that is nothing, so that neighbours need no bounds: the layout that builders read.
struct Bordered {
  Bordered(int64_t height, int64_t width)
      : height(height), width(width), stride(width + 2), size((height + 2) * stride), cell(static_cast<size_t>(height * width)) {
    for (int64_t p = 0; p < height * width; ++p) {
      cell[p] = static_cast<int32_t>((p / width + 1) * stride + p % width + 1);
    }
  }

  int64_t height, width, stride, size;
  std::vector<int32_t> cell;  // where each place lies
};

// Marks the finite values above the bound; returns whether there are any.
DISSECT_CLONES inline bool mark_above(const float* map, int64_t size, float bound, uint8_t* above) {
  uint8_t any = 0;
  for (int64_t i = 0; i < size; ++i) {
    above[i] = static_cast<uint8_t>((map[i] > bound) & is_finite(map[i]));
    any |= above[i];
  }
  return any != 0;
}

// The rule of core/nodes.h, along rows and then along columns. What it leaves in the border means nothing.
DISSECT_CLONES inline void mark_near(const uint8_t* above, int64_t size, int64_t stride, uint8_t* wide, uint8_t* near) {
  for (int64_t i = 1; i < size - 1; ++i) {
    wide[i] = above[i - 1] | above[i] | above[i + 1];
  }
  for (int64_t i = stride; i < size - stride; ++i) {
    near[i] = wide[i - stride] | wide[i] | wide[i + stride];
  }
}

// Collects the kept nodes of one map after another; one instance per task, joined in task order.
template <typename Place>
class ChunkBuilder {
 public:
  explicit ChunkBuilder(const Bordered& grid)
      : grid_(&grid),
        above_(static_cast<size_t>(grid.size), 0),
        wide_(static_cast<size_t>(grid.size), 0),
        near_(static_cast<size_t>(grid.size), 0) {}

  // `map` holds the values of a bordered map; nodes that are not known hold kNothing.
  void add(int32_t unit, int32_t image, const float* map, float bound) {
    if (!mark_above(map, grid_->size, bound, above_.data())) {
      return;
    }
    mark_near(above_.data(), grid_->size, grid_->stride, wide_.data(), near_.data());
    units.push_back(unit);
    images.push_back(image);
    const size_t room = static_cast<size_t>(nodes + grid_->height * grid_->width);
    if (node_places.size() < room) {
      node_places.resize(2 * room);
      node_values.resize(2 * room);
    }
    for (int64_t row = 0; row < grid_->height; ++row) {
      add_row(row, map + (row + 1) * grid_->stride + 1, near_.data() + (row + 1) * grid_->stride + 1);
    }
    counts.push_back(static_cast<int32_t>(nodes));
  }

  std::vector<int32_t> units, images, counts;  // counts are running node totals after each pair
  std::vector<Place> node_places;              // the first `nodes` entries are in use
  std::vector<float> node_values;
  int64_t nodes = 0;

 private:
  void add_row(int64_t row, const float* map, const uint8_t* near) {
    const int64_t width = grid_->width, first = row * width;
    Place* place = node_places.data() + nodes;
    float* value = node_values.data() + nodes;
    for (int64_t x = 0; x < width; x += 8) {
      const int64_t end = std::min(x + 8, width);
      uint64_t word = 0;  // most of a large map holds nothing
      memcpy(&word, near + x, static_cast<size_t>(end - x));
      for (int64_t c = word ? x : end; c < end; ++c) {
        *place = static_cast<Place>(first + c);
        *value = map[c];
        place += near[c];
        value += near[c];
      }
    }
    nodes = place - node_places.data();
  }

  const Bordered* grid_;
  std::vector<uint8_t> above_, wide_, near_;
};

// Joins builders in order into the output tensors, the pairs of each in ascending unit order. used = [pairs, nodes];
// nothing else is written when they do not fit.
template <typename Place>
void join_chunk(
    const std::vector<ChunkBuilder<Place>>& parts, Tensor& unit, Tensor& image, Tensor& start, Tensor& place,
    Tensor& value, Tensor& used) {
  int64_t pairs = 0, nodes = 0;
  for (const auto& part : parts) {
    pairs += static_cast<int64_t>(part.units.size());
    nodes += part.nodes;
  }
  int64_t* used_data = used.mutable_data_ptr<int64_t>();
  used_data[0] = pairs;
  used_data[1] = nodes;
  STD_TORCH_CHECK(nodes <= INT32_MAX, "one batch holds ", nodes, " candidate nodes, more than 2^31 - 1: lower the batch size");
  if (pairs > unit.size(0) || nodes > value.size(0)) {
    return;
  }
  int32_t* unit_data = unit.mutable_data_ptr<int32_t>();
  int32_t* image_data = image.mutable_data_ptr<int32_t>();
  int32_t* start_data = start.mutable_data_ptr<int32_t>();
  Place* place_data = static_cast<Place*>(place.mutable_data_ptr());
  float* value_data = value.mutable_data_ptr<float>();
  int64_t pair = 0, node = 0;
  start_data[0] = 0;
  std::vector<int32_t> order;
  for (const auto& part : parts) {
    order.resize(part.units.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return part.units[a] < part.units[b]; });
    for (const int32_t i : order) {
      const int32_t first = i ? part.counts[i - 1] : 0, count = part.counts[i] - first;
      std::copy_n(part.node_places.begin() + first, count, place_data + node);
      std::copy_n(part.node_values.begin() + first, count, value_data + node);
      node += count;
      unit_data[pair] = part.units[i];
      image_data[pair] = part.images[i];
      start_data[++pair] = static_cast<int32_t>(node);
    }
  }
}

}  // namespace dissect
