// Natural pre-images in one read of the picture: priors and their gradient, and with them the whole step. A task is a
// row of one image; its sums go to a place of their own, so nothing hangs on the number of threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "../core/natural.h"
#include "../natural_check.h"
#include "clones.h"

namespace dissect {
namespace {

constexpr int64_t kLanes = 8;
constexpr int64_t kRowsPerTask = 8;

// Sum in float64 over eight lanes, which are added in order at the end.
DISSECT_CLONES double sum_of(const float* __restrict values, int64_t count) {
  double lane[kLanes] = {};
  int64_t x = 0;
  for (; x + kLanes <= count; x += kLanes) {
    for (int64_t i = 0; i < kLanes; ++i) {
      lane[i] += static_cast<double>(values[x + i]);
    }
  }
  for (int64_t i = 0; x < count; ++x, ++i) {
    lane[i] += static_cast<double>(values[x]);
  }
  double total = 0;
  for (const double part : lane) {
    total += part;
  }
  return total;
}

// Sloped differences of one row to the right and down (`below` is the row itself at the last one), and the variation
// of each value.
DISSECT_CLONES void differences(
    const Natural& rule, const float* __restrict here, const float* __restrict below, int64_t width,
    float* __restrict right, float* __restrict down, float* __restrict variation) {
  for (int64_t x = 0; x < width - 1; ++x) {
    right[x] = here[x + 1] - here[x];
  }
  right[width - 1] = 0;
  for (int64_t x = 0; x < width; ++x) {
    down[x] = below[x] - here[x];
    variation[x] = right[x] * right[x] + down[x] * down[x];
  }
  if (!rule.plain_variation()) {
    for (int64_t x = 0; x < width; ++x) {
      const float slope = rule.slope(variation[x]);
      variation[x] = rule.variation(variation[x]);
      right[x] *= slope;
      down[x] *= slope;
    }
  }
}

DISSECT_CLONES void add_squares(const float* __restrict values, int64_t width, float* __restrict squared) {
  for (int64_t x = 0; x < width; ++x) {
    squared[x] += values[x] * values[x];
  }
}

// `Natural::steep` of a row, the same products in the same order, one power of all values after the other: vector code.
DISSECT_CLONES void steepness(
    const Natural& rule, const float* __restrict squared, int64_t width, float* __restrict steep) {
  if (rule.whole < 0) {
    for (int64_t x = 0; x < width; ++x) {
      steep[x] = rule.steep(squared[x]);
    }
    return;
  }
  std::fill_n(steep, width, 1.0f);
  for (int k = 0; k < rule.whole; ++k) {
    for (int64_t x = 0; x < width; ++x) {
      steep[x] *= squared[x];
    }
  }
}

// `right` has one value before its first, which is 0: there is nothing to the left of the first column.
DISSECT_CLONES void gradients(
    const Natural& rule, const float* __restrict z, const float* __restrict steep, const float* __restrict right,
    const float* __restrict down, const float* __restrict up, int64_t width, float* __restrict out) {
  for (int64_t x = 0; x < width; ++x) {
    out[x] = rule.gradient(z[x], steep[x], right[x], down[x], right[x - 1], up[x]);
  }
}

DISSECT_CLONES void step(
    const Fading& fading, const float* __restrict z, const float* __restrict gradient, float inverse_rate,
    int64_t width, float* __restrict squares, float* __restrict speeds, float* __restrict out) {
  for (int64_t x = 0; x < width; ++x) {
    squares[x] = fading.square(squares[x], gradient[x]);
    speeds[x] = fading.speed(speeds[x], gradient[x], squares[x], inverse_rate);
    out[x] = z[x] + speeds[x];
  }
}

DISSECT_CLONES void add_to(const float* __restrict values, int64_t width, float* __restrict sum) {
  for (int64_t x = 0; x < width; ++x) {
    sum[x] = values[x] + sum[x];
  }
}

DISSECT_CLONES void absolute(const float* __restrict values, int64_t width, float* __restrict out) {
  for (int64_t x = 0; x < width; ++x) {
    out[x] = values[x] < 0 ? -values[x] : values[x];
  }
}

// Whether any pixel leaves the ball; factors is what each is multiplied with.
DISSECT_CLONES bool leaving(const float* __restrict squared, int64_t width, float radius, float* __restrict factors) {
  int any = 0;
  for (int64_t x = 0; x < width; ++x) {
    factors[x] = into_ball(squared[x], radius);
    any |= factors[x] != 1.0f;
  }
  return any != 0;
}

DISSECT_CLONES void multiply(const float* __restrict factors, int64_t width, float* __restrict values) {
  for (int64_t x = 0; x < width; ++x) {
    values[x] *= factors[x];
  }
}

// One batch of images and the room that a task needs for its rows.
struct Rows {
  const Natural& rule;
  const float* z;
  int64_t planes, height, width;
  std::vector<float> right, down, up, squared, steep, terms;

  Rows(const Natural& rule, const Tensor& images)
      : rule(rule), z(images.const_data_ptr<float>()), planes(images.size(1)), height(images.size(2)), width(images.size(3)) {
    right.resize(static_cast<size_t>(width + 1));
    for (auto* row : {&down, &up, &squared, &steep, &terms}) {
      row->resize(static_cast<size_t>(width));
    }
  }

  int64_t offset(int64_t image, int64_t plane, int64_t row) const {
    return ((image * planes + plane) * height + row) * width;
  }

  // Length of the pixels of a row, and their part of the energy.
  double lengths(int64_t image, int64_t row) {
    std::fill(squared.begin(), squared.end(), 0.0f);
    for (int64_t c = 0; c < planes; ++c) {
      add_squares(z + offset(image, c, row), width, squared.data());
    }
    steepness(rule, squared.data(), width, steep.data());
    std::copy(steep.begin(), steep.end(), terms.begin());
    multiply(squared.data(), width, terms.data());
    return static_cast<double>(rule.alpha_scale) * sum_of(terms.data(), width);
  }

  // Gradient of the priors along one row of a plane; returns the plane's part of the energy.
  double plane(int64_t image, int64_t c, int64_t row, float* gradient) {
    const float* here = z + offset(image, c, row);
    std::fill(up.begin(), up.end(), 0.0f);
    if (row > 0) {
      differences(rule, here - width, here, width, right.data() + 1, up.data(), terms.data());
    }
    right[0] = 0;
    const float* below = row + 1 < height ? here + width : here;
    differences(rule, here, below, width, right.data() + 1, down.data(), terms.data());
    gradients(rule, here, steep.data(), right.data() + 1, down.data(), up.data(), width, gradient);
    return static_cast<double>(rule.variation_scale) * sum_of(terms.data(), width);
  }

  double size(const float* gradient) {
    absolute(gradient, width, terms.data());
    return sum_of(terms.data(), width);
  }
};

void natural(
    Tensor z, double alpha, double alpha_scale, double beta, double variation_scale, Tensor gradient, Tensor rows) {
  check_natural(z, gradient, rows);
  if (z.numel() == 0) {
    return;
  }
  const Natural rule(alpha, alpha_scale, beta, variation_scale);
  float* slopes = gradient.mutable_data_ptr<float>();
  double* sums = rows.mutable_data_ptr<double>();
  const int64_t height = z.size(2);
  torch::stable::parallel_for(0, z.size(0) * height, kRowsPerTask, [&](int64_t begin, int64_t end) {
    Rows work(rule, z);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / height, row = task % height;
      double energy = work.lengths(image, row), size = 0;
      for (int64_t c = 0; c < work.planes; ++c) {
        float* to = slopes + work.offset(image, c, row);
        energy += work.plane(image, c, row, to);
        size += work.size(to);
      }
      sums[2 * task] = energy;
      sums[2 * task + 1] = size;
    }
  });
}

void descend(
    Tensor z, Tensor gradient, double alpha, double alpha_scale, double beta, double variation_scale, Tensor rate,
    double mu, double memory, double radius, Tensor squares, Tensor speeds, Tensor out, Tensor rows) {
  check_descend(z, gradient, rate, squares, speeds, out, rows);
  if (z.numel() == 0) {
    return;
  }
  const Natural rule(alpha, alpha_scale, beta, variation_scale);
  const Fading fading{static_cast<float>(mu), static_cast<float>(memory)};
  const float bound = static_cast<float>(radius);
  const float* slopes = gradient.const_data_ptr<float>();
  const float* rates = rate.const_data_ptr<float>();
  float* square = squares.mutable_data_ptr<float>();
  float* speed = speeds.mutable_data_ptr<float>();
  float* moved = out.mutable_data_ptr<float>();
  double* sums = rows.mutable_data_ptr<double>();
  const int64_t height = z.size(2), width = z.size(3);
  torch::stable::parallel_for(0, z.size(0) * height, kRowsPerTask, [&](int64_t begin, int64_t end) {
    Rows work(rule, z);
    std::vector<float> slope(static_cast<size_t>(width)), far(static_cast<size_t>(width));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / height, row = task % height;
      double energy = work.lengths(image, row), size = 0;
      std::fill(far.begin(), far.end(), 0.0f);
      for (int64_t c = 0; c < work.planes; ++c) {
        const int64_t at = work.offset(image, c, row);
        energy += work.plane(image, c, row, slope.data());
        add_to(slopes + at, width, slope.data());
        size += work.size(slope.data());
        step(fading, work.z + at, slope.data(), 1.0f / rates[image], width, square + at, speed + at, moved + at);
        add_squares(moved + at, width, far.data());
      }
      if (leaving(far.data(), width, bound, work.terms.data())) {
        for (int64_t c = 0; c < work.planes; ++c) {
          multiply(work.terms.data(), width, moved + work.offset(image, c, row));
        }
      }
      sums[2 * task] = energy;
      sums[2 * task + 1] = size;
    }
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CPU, m) {
  m.impl("natural", TORCH_BOX(&natural));
  m.impl("descend", TORCH_BOX(&descend));
}

}  // namespace dissect
