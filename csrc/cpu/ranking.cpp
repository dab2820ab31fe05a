// Average precision of ranking images by a unit's peak, for every concept at once: one sort and one walk a unit.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "../check.h"

namespace dissect {
namespace {

// Sorts as a float descending, then as an index ascending. -0 ranks with 0.
uint64_t descending(float value, uint32_t index) {
  const float plain = value + 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &plain, sizeof(bits));
  const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(~ascending) << 32 | index;
}

void ranking(Tensor peaks, Tensor start, Tensor numbers, Tensor primary, Tensor precision) {
  check_tensor(peaks, "peaks", "unit, image", ScalarType::Float, {-1, -1});
  const int64_t units = peaks.size(0), images = peaks.size(1);
  check_tensor(start, "start", "image + 1", ScalarType::Long, {images + 1});
  check_tensor(numbers, "numbers", "held concept", ScalarType::Int, {-1});
  check_tensor(primary, "primary", "label", ScalarType::Short, {-1});
  const int64_t labels = primary.size(0);
  check_tensor(precision, "precision", "unit, label", ScalarType::Double, {units, labels});
  const float* peak = peaks.const_data_ptr<float>();
  const int64_t* first = start.const_data_ptr<int64_t>();
  const int32_t* held = numbers.const_data_ptr<int32_t>();
  const int16_t* category = primary.const_data_ptr<int16_t>();
  double* out = precision.mutable_data_ptr<double>();

  STD_TORCH_CHECK(
      first[0] == 0 && first[images] == numbers.size(0) && std::is_sorted(first, first + images + 1),
      "start (image + 1) must rise from 0 to the length of numbers");
  std::vector<uint64_t> holds(static_cast<size_t>(images), 0);  // bit k: the image holds category k
  for (int64_t i = 0; i < images; ++i) {
    for (int64_t at = first[i]; at < first[i + 1]; ++at) {
      STD_TORCH_CHECK(held[at] >= 0 && held[at] < labels, "numbers must be labels, 0 to ", labels - 1, ", got ", held[at]);
      const int16_t k = category[held[at]];
      STD_TORCH_CHECK(k < 63, "primary has a category index of ", k, ": at most 62");
      holds[static_cast<size_t>(i)] |= k >= 0 ? uint64_t{1} << k : 0;
    }
  }

  torch::stable::parallel_for(0, units, 1, [&](int64_t begin, int64_t end) {
    std::vector<uint64_t> order(static_cast<size_t>(images));
    std::vector<int64_t> hits(static_cast<size_t>(labels));
    int64_t seen[63];
    for (int64_t u = begin; u < end; ++u) {
      for (int64_t i = 0; i < images; ++i) {
        order[static_cast<size_t>(i)] = descending(peak[u * images + i], static_cast<uint32_t>(i));
      }
      std::sort(order.begin(), order.end());
      std::fill(hits.begin(), hits.end(), 0);
      std::fill(std::begin(seen), std::end(seen), 0);
      double* sum = out + u * labels;
      std::fill(sum, sum + labels, 0.0);
      for (int64_t at = 0; at < images;) {  // a group of images with equal peaks counts as one step
        int64_t behind = at;
        for (; behind < images && (order[behind] ^ order[at]) >> 32 == 0; ++behind) {
          const uint32_t i = static_cast<uint32_t>(order[behind]);
          for (uint64_t bits = holds[i]; bits; bits &= bits - 1) {
            ++seen[std::countr_zero(bits)];
          }
          for (int64_t one = first[i]; one < first[i + 1]; ++one) {
            ++hits[held[one]];
          }
        }
        for (; at < behind; ++at) {
          const uint32_t i = static_cast<uint32_t>(order[at]);
          for (int64_t one = first[i]; one < first[i + 1]; ++one) {
            const int32_t c = held[one];
            if (category[c] >= 0) {
              sum[c] += static_cast<double>(hits[c]) / static_cast<double>(seen[category[c]]);
            }
          }
        }
      }
      for (int64_t c = 0; c < labels; ++c) {
        sum[c] = hits[c] > 0 && category[c] >= 0 ? sum[c] / static_cast<double>(hits[c])
                                                  : std::numeric_limits<double>::quiet_NaN();
      }
    }
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CPU, m) {
  m.impl("ranking", TORCH_BOX(&ranking));
}

}  // namespace dissect
