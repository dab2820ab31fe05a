// A sparse chunk of candidate maps: pairs (unit, image) in ascending unit order, each with its nodes.
#pragma once

#include <vector>

#include "../chunk_check.h"
#include "../core/activation.h"
#include "../core/nodes.h"

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

// Collects the kept nodes of one map after another; one instance per task, joined in task order.
template <typename Place>
class ChunkBuilder {
 public:
  ChunkBuilder(int64_t height, int64_t width)
      : height_(height), width_(width), marks_(static_cast<size_t>(height * width), 0) {}

  // `map` holds height * width values; nodes that are not known hold kNothing.
  void add(int32_t unit, int32_t image, const float* map, float bound) {
    const int64_t places = height_ * width_;
    bool any = false;
    for (int64_t p = 0; p < places; ++p) {
      if (map[p] > bound && is_finite(map[p])) {
        visit_neighbourhood(p, height_, width_, [&](int64_t near) { marks_[near] = 1; });
        any = true;
      }
    }
    if (!any) {
      return;
    }
    units.push_back(unit);
    images.push_back(image);
    for (int64_t p = 0; p < places; ++p) {
      if (marks_[p]) {
        marks_[p] = 0;
        node_places.push_back(static_cast<Place>(p));
        node_values.push_back(map[p]);
      }
    }
    counts.push_back(static_cast<int32_t>(node_places.size()));
  }

  std::vector<int32_t> units, images, counts;  // counts are running node totals after each pair
  std::vector<Place> node_places;
  std::vector<float> node_values;

 private:
  int64_t height_, width_;
  std::vector<uint8_t> marks_;
};

// Joins builders in order into the output tensors. used = [pairs, nodes]; nothing else is written when
// they do not fit.
template <typename Place>
void join_chunk(
    const std::vector<ChunkBuilder<Place>>& parts, Tensor& unit, Tensor& image, Tensor& start, Tensor& place,
    Tensor& value, Tensor& used) {
  int64_t pairs = 0, nodes = 0;
  for (const auto& part : parts) {
    pairs += static_cast<int64_t>(part.units.size());
    nodes += static_cast<int64_t>(part.node_places.size());
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
  for (const auto& part : parts) {
    std::copy(part.units.begin(), part.units.end(), unit_data + pair);
    std::copy(part.images.begin(), part.images.end(), image_data + pair);
    for (size_t i = 0; i < part.counts.size(); ++i) {
      start_data[pair + static_cast<int64_t>(i) + 1] = static_cast<int32_t>(node + part.counts[i]);
    }
    std::copy(part.node_places.begin(), part.node_places.end(), place_data + node);
    std::copy(part.node_values.begin(), part.node_values.end(), value_data + node);
    pair += static_cast<int64_t>(part.units.size());
    node += static_cast<int64_t>(part.node_places.size());
  }
}

}  // namespace dissect
