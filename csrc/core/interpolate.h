// Bilinear upsampling, spelt out once: float32, rows then columns, a + t * (b - a) without fused
// multiply-add, clamped to the range of the four corners. Compile with contraction off.
#pragma once

#include "portable.h"

namespace dissect {

// Value is float, or several at once where a compiler has vectors of floats.
template <typename Value>
DISSECT_HD Value lerp(float a, float b, Value t) {
  return a + t * (b - a);
}

DISSECT_HD float smaller(float a, float b) {
  return b < a ? b : a;
}

DISSECT_HD float larger(float a, float b) {
  return b > a ? b : a;
}

// One cell of the low-resolution map: the corners of (upper, lower) x (left, right).
struct Cell {
  float upper_left, upper_right, lower_left, lower_right;

  DISSECT_HD float lowest() const {
    return smaller(smaller(upper_left, upper_right), smaller(lower_left, lower_right));
  }

  DISSECT_HD float highest() const {
    return larger(larger(upper_left, upper_right), larger(lower_left, lower_right));
  }
};

template <typename Value>
DISSECT_HD Value clamp(Value value, float lowest, float highest) {
  return value < lowest ? lowest : (value > highest ? highest : value);
}

DISSECT_HD float interpolate(const Cell& cell, float row_t, float column_t) {
  const float left = lerp(cell.upper_left, cell.lower_left, row_t);
  const float right = lerp(cell.upper_right, cell.lower_right, row_t);
  return clamp(lerp(left, right, column_t), cell.lowest(), cell.highest());
}

}  // namespace dissect
