// Upsample + threshold with corner pruning, straight to counts: only cells with a corner above the
// threshold are interpolated, and only set pixels touch the label histogram.
#include <algorithm>
#include <bit>
#include <cstring>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../core/interpolate.h"
#include "../core/overlap.h"
#include "chunk.h"
#include "clones.h"

namespace dissect {
namespace {

// Consecutive target rows (or columns) that lie between the same two source nodes.
struct Band {
  int32_t low, high;     // source nodes
  int32_t begin, end;    // target positions
};

std::vector<Band> bands(const int32_t* node, int64_t length, int64_t sources, const char* name) {
  std::vector<Band> result;
  for (int64_t i = 0; i < length; ++i) {
    const int32_t low = node[2 * i], high = node[2 * i + 1];
    STD_TORCH_CHECK(
        low >= 0 && high >= low && high < sources && high - low <= 1, name, " (target, two nodes) entry ", i, " is (", low, ", ",
        high, "): nodes must be equal or neighbours inside 0..", sources - 1);
    if (result.empty() || result.back().low != low || result.back().high != high) {
      result.push_back({low, high, static_cast<int32_t>(i), static_cast<int32_t>(i)});
    }
    result.back().end = static_cast<int32_t>(i + 1);
  }
  return result;
}

// Set pixels beside each other in one row of one mask.
struct Run {
  int32_t begin, length;
};

constexpr int kAtOnce = 8;
typedef float Values __attribute__((vector_size(4 * kAtOnce)));
typedef int32_t Whole __attribute__((vector_size(4 * kAtOnce)));
typedef uint8_t Flags __attribute__((vector_size(kAtOnce)));
typedef uint16_t LabelValues __attribute__((vector_size(2 * kAtOnce)));

// Appends the set pixels of the targets inside one cell; returns the new end of the list. Between two corners values
// rise or fall, rounded or not, so that what is set is the left or the right end of a row. column_t may be read up to
// kAtOnce - 1 places behind the span: whole vectors and no remainder.
DISSECT_CLONES Run* collect(
    const Cell& cell, const float* row_t, const Band& band, const float* column_t, const Band& span, int32_t columns,
    float threshold, Run* runs) {
  constexpr Whole kOrder{0, 1, 2, 3, 4, 5, 6, 7};
  const float highest = cell.highest(), lowest = cell.lowest();
  for (int32_t y = band.begin; y < band.end; ++y) {
    const float left = lerp(cell.upper_left, cell.lower_left, row_t[y]);
    const float right = lerp(cell.upper_right, cell.lower_right, row_t[y]);
    for (int32_t x = span.begin; x < span.end; x += kAtOnce) {
      const int32_t inside = std::min(kAtOnce, span.end - x);
      Values t;
      memcpy(&t, column_t + x, sizeof t);
      const Whole set = (clamp(lerp(left, right, t), lowest, highest) > threshold) & (kOrder < inside);
      const Flags flags = __builtin_convertvector(set, Flags) & 1;
      uint64_t word;
      memcpy(&word, &flags, sizeof word);
      const int32_t length = __builtin_popcountll(word);
      *runs = {y * columns + (set[0] ? x : x + inside - length), length};
      runs += length > 0;
    }
  }
  return runs;
}

DISSECT_CLONES uint16_t largest_of(const uint16_t* values, int64_t count) {
  uint16_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    largest = values[i] > largest ? values[i] : largest;
  }
  return largest;
}

struct Labels {
  const uint16_t *planes, *planes_end;
  const int32_t* plane_start;
  const int32_t* scalars;
  const int32_t* scalar_start;
  const int64_t* held;
  const int16_t* primary;
  int64_t labels;
  int categories;
  AreaRule rule;
};

// Pixels from here on that carry one label: all of them up to kAtOnce, or 1 at the end of the planes.
inline int64_t alike(const uint16_t* pixel, const uint16_t* planes_end) {
  if (planes_end - pixel < kAtOnce) {
    return 1;
  }
  LabelValues values;
  memcpy(&values, pixel, sizeof values);
  const Flags different = __builtin_convertvector(values != values[0], Flags);
  uint64_t word;
  memcpy(&word, &different, sizeof word);
  return std::countr_zero(word) / 8;
}

// Adds one mask to the unit's rows of the counts.
DISSECT_CLONES void count_mask(
    const Labels& labels, int32_t image, const Run* begin, const Run* end, int64_t plane_size, int64_t* intersection,
    int64_t* area_row, int64_t* mask_total) {
  int64_t area = 0;
  for (const Run* run = begin; run != end; ++run) {
    area += run->length;
  }
  uint64_t touched = 0;
  const bool track = labels.rule == AreaRule::kMaskTouches;
  for (int32_t k = labels.plane_start[image]; k < labels.plane_start[image + 1]; ++k) {
    const uint16_t* plane = labels.planes + k * plane_size;
    uint16_t label = plane[begin->begin];  // neighbours mostly carry one label, which is then counted once
    int64_t pixels = 0;
    const auto add = [&] {
      intersection[label] += pixels;
      const int16_t category = track ? labels.primary[label] : int16_t{-1};
      touched |= category >= 0 ? uint64_t{1} << category : 0;
    };
    for (const Run* run = begin; run != end; ++run) {
      const uint16_t* pixel = plane + run->begin;
      int64_t left = run->length;
      do {
        if (*pixel != label) {
          add();
          label = *pixel;
          pixels = 0;
        }
        const int64_t same = std::min(left, alike(pixel, labels.planes_end));
        pixel += same;
        pixels += same;
        left -= same;
      } while (left);
    }
    add();
  }
  for (int32_t s = labels.scalar_start[image]; s < labels.scalar_start[image + 1]; ++s) {
    const int32_t label = labels.scalars[s];
    intersection[label] += area;
    const int16_t category = labels.primary[label];
    touched |= category >= 0 ? uint64_t{1} << category : 0;
  }
  for (int category = 0; category < labels.categories; ++category) {
    if (counts_for(labels.rule, static_cast<uint64_t>(labels.held[image]), touched, category)) {
      area_row[category] += area;
    }
  }
  *mask_total += area;
}

void overlap(
    const Tensor& pair_unit, const Tensor& pair_image, const Tensor& pair_start, const Tensor& node_place,
    const Tensor& node_value, int64_t height, int64_t width, const Tensor& row_node, const Tensor& row_t,
    const Tensor& column_node, const Tensor& column_t, const Tensor& threshold, const Tensor& planes,
    const Tensor& plane_start, const Tensor& scalars, const Tensor& scalar_start, const Tensor& held,
    const Tensor& primary, int64_t area_rule, Tensor intersection, Tensor area, Tensor mask) {
  check_overlap(
      pair_unit, pair_image, pair_start, node_place, node_value, row_node, row_t, column_node, column_t, threshold,
      planes, plane_start, scalars, scalar_start, held, primary, area_rule, intersection, area, mask);
  const int64_t rows = row_t.size(0), columns = column_t.size(0), units = threshold.size(0), images = held.size(0);
  const int64_t labels = primary.size(0), categories = area.size(1);

  const int32_t* unit_data = pair_unit.const_data_ptr<int32_t>();
  const int32_t* image_data = pair_image.const_data_ptr<int32_t>();
  const int64_t pairs = pair_unit.size(0);
  for (int64_t i = 0; i < pairs; ++i) {
    STD_TORCH_CHECK(
        unit_data[i] >= (i ? unit_data[i - 1] : 0) && unit_data[i] < units, "pair_unit must ascend inside 0..", units - 1,
        ", got ", unit_data[i], " at ", i);
    STD_TORCH_CHECK(
        image_data[i] >= 0 && image_data[i] < images, "pair_image must lie inside 0..", images - 1, ", got ",
        image_data[i], " at ", i);
  }
  const uint16_t* plane_data = static_cast<const uint16_t*>(planes.const_data_ptr());
  const int64_t plane_values = planes.numel();
  const uint16_t largest = largest_of(plane_data, plane_values);
  STD_TORCH_CHECK(
      plane_values == 0 || largest < labels, "planes hold label ", largest, ", but there are only labels 0..", labels - 1);
  const int32_t* scalar_data = scalars.const_data_ptr<int32_t>();
  for (int64_t s = 0; s < scalars.size(0); ++s) {
    STD_TORCH_CHECK(
        scalar_data[s] >= 0 && scalar_data[s] < labels, "scalars hold label ", scalar_data[s], ", outside 0..", labels - 1);
  }
  if (pairs == 0 || rows == 0 || columns == 0) {
    return;
  }

  const auto row_bands = bands(row_node.const_data_ptr<int32_t>(), rows, height, "row_node");
  const auto column_bands = bands(column_node.const_data_ptr<int32_t>(), columns, width, "column_node");
  for (const Band& span : column_bands) {
    const float* t = column_t.const_data_ptr<float>();
    STD_TORCH_CHECK(
        std::is_sorted(t + span.begin, t + span.end), "column_t must ascend between two nodes, and does not in columns ",
        span.begin, "..", span.end - 1);
  }
  const float* row_t_data = row_t.const_data_ptr<float>();
  std::vector<float> column_t_padded(static_cast<size_t>(columns) + kAtOnce, 0.0f);
  std::copy_n(column_t.const_data_ptr<float>(), columns, column_t_padded.begin());
  const float* threshold_data = threshold.const_data_ptr<float>();
  const Labels label_view{
      plane_data,
      plane_data + plane_values,
      plane_start.const_data_ptr<int32_t>(),
      scalar_data,
      scalar_start.const_data_ptr<int32_t>(),
      held.const_data_ptr<int64_t>(),
      primary.const_data_ptr<int16_t>(),
      labels,
      static_cast<int>(categories),
      static_cast<AreaRule>(area_rule)};
  int64_t* intersection_data = intersection.mutable_data_ptr<int64_t>();
  int64_t* area_data = area.mutable_data_ptr<int64_t>();
  int64_t* mask_data = mask.mutable_data_ptr<int64_t>();

  // Tasks end where the unit changes, so that no two threads share a row of the counts.
  const int64_t wanted = std::max<int64_t>(1, pairs / (8 * static_cast<int64_t>(torch::stable::get_num_threads())));
  std::vector<int64_t> cuts{0};
  for (int64_t i = 1; i < pairs; ++i) {
    if (i - cuts.back() >= wanted && unit_data[i] != unit_data[i - 1]) {
      cuts.push_back(i);
    }
  }
  cuts.push_back(pairs);

  with_place_type(node_place, [&](auto place_tag) {
    using Place = decltype(place_tag);
    const auto chunk = view_chunk<Place>(pair_unit, pair_image, pair_start, node_place, node_value);
    check_nodes(chunk, node_value.size(0), height * width);
    torch::stable::parallel_for(0, static_cast<int64_t>(cuts.size()) - 1, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> map(static_cast<size_t>(height * width), kNothing);
      std::vector<Run> runs(static_cast<size_t>(rows * columns) + 1);
      for (int64_t i = cuts[begin]; i < cuts[end]; ++i) {
        const int32_t u = chunk.unit[i];
        const float t = threshold_data[u];
        int64_t first = height * width, final = -1;  // places of the first and last node above the threshold
        for (int32_t n = chunk.start[i]; n < chunk.start[i + 1]; ++n) {
          const int64_t place = chunk.place[n];
          map[place] = chunk.value[n];
          if (chunk.value[n] > t) {
            first = std::min(first, place);
            final = std::max(final, place);
          }
        }
        Run* last = runs.data();
        for (const Band& band : row_bands) {
          if (final < band.low * width || first >= (band.high + 1) * width) {
            continue;
          }
          const float* upper = map.data() + band.low * width;
          const float* lower = map.data() + band.high * width;
          for (const Band& span : column_bands) {
            const Cell cell{upper[span.low], upper[span.high], lower[span.low], lower[span.high]};
            if (cell.highest() > t) {
              last = collect(
                  cell, row_t_data, band, column_t_padded.data(), span, static_cast<int32_t>(columns), t, last);
            }
          }
        }
        for (int32_t n = chunk.start[i]; n < chunk.start[i + 1]; ++n) {
          map[chunk.place[n]] = kNothing;
        }
        if (last != runs.data()) {
          count_mask(
              label_view, chunk.image[i], runs.data(), last, rows * columns, intersection_data + u * labels,
              area_data + u * categories, mask_data + u);
        }
      }
    });
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CPU, m) {
  m.impl("overlap", TORCH_BOX(&overlap));
}

}  // namespace dissect
