// Checks of sparse chunks, and of what is counted with them, shared by the twins.
#pragma once

#include "check.h"

namespace dissect {

inline void check_chunk(
    const Tensor& unit, const Tensor& image, const Tensor& start, const Tensor& place, const Tensor& value) {
  check_tensor(unit, "pair_unit", "pair", ScalarType::Int, {-1});
  const int64_t pairs = unit.size(0);
  check_tensor(image, "pair_image", "pair", ScalarType::Int, {pairs});
  check_tensor(start, "pair_start", "pair + 1", ScalarType::Int, {pairs + 1});
  check_tensor(value, "node_value", "node", ScalarType::Float, {-1});
  const ScalarType wide = place.scalar_type();
  STD_TORCH_CHECK(
      wide == ScalarType::Byte || wide == ScalarType::Short || wide == ScalarType::Int,
      "node_place (node) must be uint8, int16 (read as unsigned) or int32, got ", torch::headeronly::toString(wide));
  check_tensor(place, "node_place", "node", wide, {value.size(0)});
}

// Places are stored as unsigned numbers of 8 or 16 bits where the map has at most 256 or 65,536 of them.
template <typename Body>
void with_place_type(const Tensor& place, const Body& body) {
  if (place.scalar_type() == ScalarType::Byte) {
    body(uint8_t{});
  } else if (place.scalar_type() == ScalarType::Short) {
    body(uint16_t{});
  } else {
    body(int32_t{});
  }
}

inline void check_output_chunk(
    const Tensor& unit, const Tensor& image, const Tensor& start, const Tensor& place, const Tensor& value,
    const Tensor& used, int64_t places) {
  check_chunk(unit, image, start, place, value);
  check_tensor(used, "used", "pairs and nodes", ScalarType::Long, {2});
  STD_TORCH_CHECK(
      places <= 256 || place.scalar_type() != ScalarType::Byte,
      "node_place must be int16 or int32 for maps of more than 256 places, here ", places);
  STD_TORCH_CHECK(
      places <= 65536 || place.scalar_type() == ScalarType::Int,
      "node_place must be int32 for maps of more than 65,536 places, here ", places);
}

inline void check_overlap(
    const Tensor& pair_unit, const Tensor& pair_image, const Tensor& pair_start, const Tensor& node_place,
    const Tensor& node_value, const Tensor& row_node, const Tensor& row_t, const Tensor& column_node,
    const Tensor& column_t, const Tensor& threshold, const Tensor& planes, const Tensor& plane_start,
    const Tensor& scalars, const Tensor& scalar_start, const Tensor& held, const Tensor& primary, int64_t area_rule,
    const Tensor& intersection, const Tensor& area, const Tensor& mask) {
  check_chunk(pair_unit, pair_image, pair_start, node_place, node_value);
  check_tensor(row_t, "row_t", "target row", ScalarType::Float, {-1});
  check_tensor(column_t, "column_t", "target column", ScalarType::Float, {-1});
  const int64_t rows = row_t.size(0), columns = column_t.size(0);
  check_tensor(row_node, "row_node", "target row, two nodes", ScalarType::Int, {rows, 2});
  check_tensor(column_node, "column_node", "target column, two nodes", ScalarType::Int, {columns, 2});
  check_tensor(threshold, "threshold", "unit", ScalarType::Float, {-1});
  const int64_t units = threshold.size(0);
  check_tensor(planes, "planes", "plane, row, column", ScalarType::Short, {-1, rows, columns});
  check_tensor(held, "held", "image", ScalarType::Long, {-1});
  const int64_t images = held.size(0);
  check_tensor(plane_start, "plane_start", "image + 1", ScalarType::Int, {images + 1});
  check_tensor(scalars, "scalars", "scalar", ScalarType::Int, {-1});
  check_tensor(scalar_start, "scalar_start", "image + 1", ScalarType::Int, {images + 1});
  check_tensor(primary, "primary", "label", ScalarType::Short, {-1});
  const int64_t labels = primary.size(0);
  check_tensor(intersection, "intersection", "unit, label", ScalarType::Long, {units, labels});
  check_tensor(area, "area", "unit, category", ScalarType::Long, {units, -1});
  const int64_t categories = area.size(1);
  check_tensor(mask, "mask", "unit", ScalarType::Long, {units});
  STD_TORCH_CHECK(categories <= 64, "area (unit, category) may have at most 64 categories, got ", categories);
  STD_TORCH_CHECK(area_rule >= 0 && area_rule <= 2, "area_rule must be 0, 1 or 2, got ", area_rule);
}

}  // namespace dissect
