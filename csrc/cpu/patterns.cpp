// Pictures of pattern-producing networks, many at once: a task is a stretch of places of one pattern, whose neurons all
// stay in the nearest cache.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "../core/patterns.h"
#include "../patterns_check.h"
#include "clones.h"

namespace dissect {
namespace {

constexpr int64_t kInputs = 4;
constexpr int64_t kStretch = 256;

DISSECT_CLONES void add_weighted(const float* __restrict values, float weight, int64_t count, float* __restrict sum) {
  for (int64_t i = 0; i < count; ++i) {
    sum[i] += weight * values[i];
  }
}

DISSECT_CLONES void bend(Neuron kind, int64_t count, float* __restrict values) {
  if (kind == Neuron::sine) {
    for (int64_t i = 0; i < count; ++i) {
      values[i] = sine(values[i]);
    }
  } else if (kind == Neuron::sigmoid) {
    for (int64_t i = 0; i < count; ++i) {
      values[i] = logistic(values[i]) * 2.0f - 1.0f;
    }
  } else if (kind == Neuron::gaussian) {
    for (int64_t i = 0; i < count; ++i) {
      values[i] = exponential(-(values[i] * values[i]));
    }
  } else if (kind == Neuron::linear) {
    for (int64_t i = 0; i < count; ++i) {
      values[i] = within(values[i], -kReach, kReach);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      values[i] = logistic(values[i]);
    }
  }
}

DISSECT_CLONES void paint(
    const float* __restrict hue, const float* __restrict light, const float* __restrict saturation, float shift,
    int64_t count, float* __restrict out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = colour(hue[i], light[i], saturation[i], shift);
  }
}

void check_graph(
    const int64_t* neurons, int64_t patterns, const int8_t* kinds, int64_t total, const int64_t* links, int64_t all_links,
    const int32_t* sender, int64_t outputs) {
  STD_TORCH_CHECK(
      neurons[0] == 0 && neurons[patterns] == total && links[0] == 0 && links[total] == all_links,
      "neuron_start and link_start must begin at 0 and end at ", total, " and ", all_links);
  for (int64_t p = 0; p < patterns; ++p) {
    const int64_t count = neurons[p + 1] - neurons[p];
    STD_TORCH_CHECK(count >= kInputs + outputs, "pattern ", p, " has ", count, " neurons, fewer than inputs and outputs");
    for (int64_t n = 0; n < count; ++n) {
      const int64_t at = neurons[p] + n;
      const bool last = n >= count - outputs;
      STD_TORCH_CHECK(
          kinds[at] >= (n < kInputs ? -1 : last ? -2 : 0) && kinds[at] <= (n < kInputs ? -1 : last ? -2 : 3),
          "neuron ", n, " of pattern ", p, " has the wrong kind ", static_cast<int>(kinds[at]));
      STD_TORCH_CHECK(links[at] <= links[at + 1], "link_start must ascend");
      for (int64_t l = links[at]; l < links[at + 1]; ++l) {
        STD_TORCH_CHECK(
            sender[l] >= 0 && sender[l] < std::min(n, count - outputs) && n >= kInputs, "a link of pattern ", p,
            " leads from neuron ", sender[l], " to ", n, ": links lead onwards, from inputs and hidden neurons");
      }
    }
  }
}

void render_patterns(
    Tensor kinds, Tensor neuron_start, Tensor link_start, Tensor sender, Tensor weight, Tensor places, Tensor out) {
  check_patterns(kinds, neuron_start, link_start, sender, weight, places, out);
  const int64_t patterns = out.size(0), planes = out.size(1), size = out.size(2);
  const int64_t* neurons = neuron_start.const_data_ptr<int64_t>();
  const int64_t* links = link_start.const_data_ptr<int64_t>();
  const int8_t* kind = kinds.const_data_ptr<int8_t>();
  const int32_t* from = sender.const_data_ptr<int32_t>();
  const float* weights = weight.const_data_ptr<float>();
  const float* input = places.const_data_ptr<float>();
  check_graph(neurons, patterns, kind, kinds.size(0), links, sender.size(0), from, planes);
  if (out.numel() == 0) {
    return;
  }
  float* pictures = out.mutable_data_ptr<float>();
  const int64_t stretches = (size + kStretch - 1) / kStretch;
  torch::stable::parallel_for(0, patterns * stretches, 8, [&](int64_t begin, int64_t end) {
    std::vector<float> room;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t p = task / stretches, first = task % stretches * kStretch, count = std::min(kStretch, size - first);
      const int64_t all = neurons[p + 1] - neurons[p];
      room.resize(static_cast<size_t>(all * kStretch));
      const auto values = [&](int64_t n) { return room.data() + n * kStretch; };
      for (int64_t n = 0; n < all; ++n) {
        if (n < kInputs) {
          std::copy_n(input + n * size + first, count, values(n));
          continue;
        }
        const int64_t at = neurons[p] + n;
        std::fill_n(values(n), count, 0.0f);
        for (int64_t l = links[at]; l < links[at + 1]; ++l) {
          add_weighted(values(from[l]), weights[l], count, values(n));
        }
        bend(static_cast<Neuron>(kind[at]), count, values(n));
      }
      float* to = pictures + p * planes * size + first;
      const float* drawn = values(all - planes);
      if (planes == 1) {
        std::copy_n(drawn, count, to);
        continue;
      }
      for (int64_t c = 0; c < 3; ++c) {
        const float shift = c == 0 ? 0.0f : (c == 1 ? 8.0f : 4.0f);
        paint(drawn, drawn + kStretch, drawn + 2 * kStretch, shift, count, to + c * size);
      }
    }
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CPU, m) {
  m.impl("render_patterns", TORCH_BOX(&render_patterns));
}

}  // namespace dissect
