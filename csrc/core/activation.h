// Rules for one activation value, shared by both twins.
#pragma once

#include <cstring>

#include "portable.h"

namespace dissect {

// Largest finite float32; comparing against it rejects NaN and both infinities in one test.
constexpr float kLargest = 3.402823466e+38f;
constexpr float kNothing = -__builtin_huge_valf();  // -infinity: below every finite value

DISSECT_HD bool is_finite(float value) {
  return static_cast<bool>((value >= -kLargest) & (value <= kLargest));  // no branch, so that loops vectorise
}

// Moments are summed in this many interleaved lanes (place mod kLanes), which are then added in
// lane order. The order is part of the definition: it is what makes sums equal on every back end.
constexpr int kLanes = 8;

// A histogram bin is the sign, the exponent and two bits of the fraction of a value: four bins an octave, the same
// for every unit, known before the first value is seen. Bins 0..1023 ascend from 0, 1024..2047 descend; those of the
// last exponent are empty, but for the first: it holds whatever is not finite.
constexpr int kBins = 2048;
constexpr uint32_t kBinOfOthers = 1020;

DISSECT_HD uint32_t bin_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return is_finite(value) ? bits >> 21 : kBinOfOthers;
}

// Exemplar order: larger value first, ties to the lower image position.
DISSECT_HD bool ranks_before(float value, int64_t image, float other_value, int64_t other_image) {
  return value > other_value || (value == other_value && image < other_image);
}

}  // namespace dissect
