// Argument checks of render_patterns, shared by the twins.
#pragma once

#include "check.h"

namespace dissect {

// Shapes and dtypes; what the indices hold is checked on the CPU, where they are made.
inline void check_patterns(
    const Tensor& kinds, const Tensor& neuron_start, const Tensor& link_start, const Tensor& sender, const Tensor& weight,
    const Tensor& places, const Tensor& out) {
  check_tensor(kinds, "kinds", "neuron", ScalarType::Char, {-1});
  check_tensor(neuron_start, "neuron_start", "pattern + 1", ScalarType::Long, {out.size(0) + 1});
  check_tensor(link_start, "link_start", "neuron + 1", ScalarType::Long, {kinds.size(0) + 1});
  check_tensor(sender, "sender", "link", ScalarType::Int, {-1});
  check_tensor(weight, "weight", "link", ScalarType::Float, {sender.size(0)});
  check_tensor(places, "places", "input, place", ScalarType::Float, {4, -1});
  check_tensor(out, "out", "pattern, plane, place", ScalarType::Float, {-1, -1, places.size(1)});
  STD_TORCH_CHECK(out.size(1) == 1 || out.size(1) == 3, "out (pattern, plane, place) must have 1 or 3 planes, got ", out.size(1));
}

}  // namespace dissect
