// Rules for one activation value, shared by both twins.
#pragma once

#include "portable.h"

namespace dissect {

// Largest finite float32; comparing against it rejects NaN and both infinities in one test.
constexpr float kLargest = 3.402823466e+38f;
constexpr float kNothing = -__builtin_huge_valf();  // -infinity: below every finite value

DISSECT_HD bool is_finite(float value) {
  return value >= -kLargest && value <= kLargest;
}

// Moments are summed in this many interleaved lanes (place mod kLanes), which are then added in
// lane order. The order is part of the definition: it is what makes sums equal on every back end.
constexpr int kLanes = 8;

// Exemplar order: larger value first, ties to the lower image position.
DISSECT_HD bool ranks_before(float value, int64_t image, float other_value, int64_t other_image) {
  return value > other_value || (value == other_value && image < other_image);
}

}  // namespace dissect
