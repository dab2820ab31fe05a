// One read of a batch of activation maps: tail of largest values, extremes, moments, exemplars.
#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../check.h"
#include "../core/activation.h"
#include "clones.h"
#include "prefetch.h"

namespace dissect {
namespace {

constexpr int64_t kTile = 64;  // units handled together: four cache lines of one place

struct Tail {
  float* values;
  int64_t* fill;
  float* bound;
  int64_t capacity;
  int64_t keep;

  // Keeps the `keep` largest; the smallest of them is the bound.
  void select() const {
    std::nth_element(values, values + keep - 1, values + *fill, std::greater<float>());
    *fill = keep;
    *bound = values[keep - 1];
  }

  void push(float value) const {
    if (*fill == capacity) {
      select();
      if (!(value > *bound)) {
        return;
      }
    }
    values[(*fill)++] = value;
  }
};

struct TileState {
  float peak[kTile];
  float bound[kTile];
  float low[kTile];
  double sum[kLanes][kTile];
  double square[kLanes][kTile];
  int32_t bad[kTile];
  uint8_t above[kTile];  // whether the value of the present place exceeds its bound
};

// Slots of the values of one place in the histograms of a tile: bins outermost, so that the few bins that are in use at
// a time stay in the nearest cache.
DISSECT_CLONES void find_slots(const float* __restrict values, int64_t count, uint32_t* __restrict slot) {
  for (int64_t j = 0; j < count; ++j) {
    slot[j] = bin_of(values[j] + 0.0f) * static_cast<uint32_t>(kTile) + static_cast<uint32_t>(j);
  }
}

DISSECT_CLONES void move_counts(uint16_t* __restrict from, int32_t* __restrict to, int64_t count) {
  for (int64_t j = 0; j < count; ++j) {
    to[j] += from[j];
    from[j] = 0;
  }
}

// Narrow counters in front of a wide table: with it, every place would touch memory far away.
class TileHistogram {
 public:
  TileHistogram() : counts_(kBins * kTile), used_(kBins) {}

  // Counts one place of up to kTile units.
  void add(const float* values, int64_t count) {
    uint32_t slot[kTile];
    find_slots(values, count, slot);
    uint16_t* counts = counts_.data();
    uint8_t* used = used_.data();
    for (int64_t j = 0; j < count; ++j) {
      ++counts[slot[j]];
      used[slot[j] / kTile] = 1;
    }
    ++places_;
  }

  // Whether another place might not fit.
  bool full() const { return places_ == UINT16_MAX; }

  // Adds the counts to columns of a table with rows of `units`, and begins anew.
  void flush(int32_t* columns, int64_t units, int64_t count) {
    for (size_t bin = 0; bin < used_.size(); ++bin) {
      if (used_[bin]) {
        used_[bin] = 0;
        move_counts(counts_.data() + bin * kTile, columns + static_cast<int64_t>(bin) * units, count);
      }
    }
    places_ = 0;
  }

 private:
  std::vector<uint16_t> counts_;
  std::vector<uint8_t> used_;
  int64_t places_ = 0;
};

// Folds one place of `count` units into the tile and notes which values exceed their bounds.
DISSECT_CLONES void fold_place(const float* __restrict values, int64_t count, int lane, TileState& tile) {
  double* __restrict sum = tile.sum[lane];
  double* __restrict square = tile.square[lane];
  float* __restrict peak = tile.peak;
  float* __restrict low = tile.low;
  const float* __restrict bound = tile.bound;
  int32_t* __restrict bad = tile.bad;
  uint8_t* __restrict above = tile.above;
  for (int64_t j = 0; j < count; ++j) {
    const float raw = values[j] + 0.0f;  // -0 becomes +0, so that equal values have equal bits
    const bool finite = is_finite(raw);
    const float high = finite ? raw : kNothing;
    const float least = finite ? raw : -kNothing;
    bad[j] += finite ? 0 : 1;
    peak[j] = high > peak[j] ? high : peak[j];
    low[j] = least < low[j] ? least : low[j];
    above[j] = high > bound[j] ? 1 : 0;
  }
  for (int64_t j = 0; j < count; ++j) {
    const double value = is_finite(values[j]) ? static_cast<double>(values[j]) : 0.0;
    sum[j] += value;
    square[j] += value * value;
  }
}

void insert_exemplar(
    float* value, int64_t* image, int64_t* place, int64_t slots, float new_value, int64_t new_image, int64_t new_place) {
  int64_t slot = slots;
  while (slot > 0 && (image[slot - 1] < 0 || ranks_before(new_value, new_image, value[slot - 1], image[slot - 1]))) {
    --slot;
  }
  if (slot == slots) {
    return;
  }
  for (int64_t s = slots - 1; s > slot; --s) {
    value[s] = value[s - 1];
    image[s] = image[s - 1];
    place[s] = place[s - 1];
  }
  value[slot] = new_value;
  image[slot] = new_image;
  place[slot] = new_place;
}

void scan(
    const Tensor& maps, const Tensor& valid, int64_t first_image, int64_t keep, Tensor tail, Tensor fill, Tensor bound,
    Tensor low, Tensor high, Tensor nonfinite, Tensor moments, Tensor histogram, Tensor top_value, Tensor top_image,
    Tensor top_place, Tensor peak) {
  check_scan(
      maps, valid, keep, tail, fill, bound, low, high, nonfinite, moments, histogram, top_value, top_image, top_place,
      peak);
  const int64_t images = maps.size(0), places = maps.size(1), units = maps.size(2);
  const int64_t capacity = tail.size(1), slots = top_value.size(1);
  if (images == 0 || places == 0 || units == 0) {
    return;
  }
  const float* map_data = maps.const_data_ptr<float>();
  const bool* valid_data = valid.const_data_ptr<bool>();
  float* tail_data = tail.mutable_data_ptr<float>();
  int64_t* fill_data = fill.mutable_data_ptr<int64_t>();
  float* bound_data = bound.mutable_data_ptr<float>();
  float* low_data = low.mutable_data_ptr<float>();
  float* high_data = high.mutable_data_ptr<float>();
  int64_t* bad_data = nonfinite.mutable_data_ptr<int64_t>();
  double* moment_data = moments.mutable_data_ptr<double>();
  int32_t* histogram_data = histogram.size(0) ? histogram.mutable_data_ptr<int32_t>() : nullptr;
  float* top_value_data = top_value.mutable_data_ptr<float>();
  int64_t* top_image_data = top_image.mutable_data_ptr<int64_t>();
  int64_t* top_place_data = top_place.mutable_data_ptr<int64_t>();
  float* peak_data = peak.mutable_data_ptr<float>();

  const int64_t tiles = (units + kTile - 1) / kTile;
  torch::stable::parallel_for(0, tiles, 1, [&](int64_t begin, int64_t end) {
    TileState state;
    thread_local TileHistogram bins;  // empty between calls
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * kTile;
      const int64_t count = std::min(kTile, units - first);
      std::copy_n(bound_data + first, count, state.bound);
      std::copy_n(low_data + first, count, state.low);
      std::fill_n(state.bad, count, 0);
      std::fill_n(state.above, kTile, uint8_t{0});
      for (int64_t b = 0; b < images; ++b) {
        std::fill_n(state.peak, count, kNothing);
        if (valid_data[b]) {
          for (int lane = 0; lane < kLanes; ++lane) {
            std::fill_n(state.sum[lane], count, 0.0);
            std::fill_n(state.square[lane], count, 0.0);
          }
          for (int64_t p = 0; p < places; ++p) {
            const float* values = map_data + (b * places + p) * units + first;
            prefetch(values + kAhead * units, count);  // a stride that no processor foresees
            if (histogram_data != nullptr) {
              if (bins.full()) {
                bins.flush(histogram_data + first, units, count);
              }
              bins.add(values, count);
            }
            fold_place(values, count, static_cast<int>(p % kLanes), state);
            for (int64_t eight = 0; eight < count; eight += 8) {
              uint64_t word;
              std::memcpy(&word, state.above + eight, sizeof word);
              if (word == 0) {
                continue;
              }
              for (int64_t j = eight; j < std::min(eight + 8, count); ++j) {
                if (state.above[j]) {
                  const int64_t u = first + j;
                  Tail{tail_data + u * capacity, fill_data + u, bound_data + u, capacity, keep}.push(values[j] + 0.0f);
                  state.bound[j] = bound_data[u];
                }
              }
            }
          }
          for (int64_t j = 0; j < count; ++j) {
            double sum = 0.0, square = 0.0;
            for (int lane = 0; lane < kLanes; ++lane) {
              sum += state.sum[lane][j];
              square += state.square[lane][j];
            }
            const int64_t u = first + j;
            moment_data[2 * u] += sum;
            moment_data[2 * u + 1] += square;
            const float value = state.peak[j];
            high_data[u] = std::max(high_data[u], value);
            const int64_t last = u * slots + slots - 1;
            if (slots > 0 && value > kNothing &&
                (top_image_data[last] < 0 || ranks_before(value, first_image + b, top_value_data[last], top_image_data[last]))) {
              const float* values = map_data + b * places * units + u;
              int64_t place = 0;
              while (values[place * units] != value) {
                ++place;
              }
              insert_exemplar(
                  top_value_data + u * slots, top_image_data + u * slots, top_place_data + u * slots, slots, value,
                  first_image + b, place);
            }
          }
        }
        std::copy_n(state.peak, count, peak_data + b * units + first);
      }
      for (int64_t j = 0; j < count; ++j) {
        low_data[first + j] = state.low[j];
        bad_data[first + j] += state.bad[j];
      }
      if (histogram_data != nullptr) {
        bins.flush(histogram_data + first, units, count);
      }
    }
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CPU, m) {
  m.impl("scan", TORCH_BOX(&scan));
}

}  // namespace dissect
