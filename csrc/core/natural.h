// The priors of natural pre-images (Mahendran & Vedaldi, IJCV 2016) and the step that goes with them, value by value:
// alpha_scale sum |z_px|^alpha + variation_scale sum (dx^2 + dy^2)^(beta / 2), differences to the right and down, 0 at the
// last column and row. float32, in the order that stands here.
#pragma once

#include <cmath>

#include "portable.h"

namespace dissect {

// Below this squared gradient the slope of TV^beta is held: beta < 2 has no bound at 0.
constexpr float kVariationFloor = 1e-5f;

struct Natural {
  float alpha, alpha_scale, beta, variation_scale;
  int whole;  // alpha / 2 - 1 where that is a small whole number, else -1

  Natural(double alpha, double alpha_scale, double beta, double variation_scale)
      : alpha(static_cast<float>(alpha)),
        alpha_scale(static_cast<float>(alpha_scale)),
        beta(static_cast<float>(beta)),
        variation_scale(static_cast<float>(variation_scale)),
        whole(-1) {
    for (int k = 0; k <= 8; ++k) {
      if (alpha / 2 - 1 == k) {
        whole = k;
      }
    }
  }

  DISSECT_HD bool plain_variation() const { return beta == 2.0f; }

  // |z_px|^(alpha - 2) of a squared length, 0 at 0.
  DISSECT_HD float steep(float squared) const {
    if (whole < 0) {
      return squared > 0.0f ? powf(squared, alpha / 2.0f - 1.0f) : 0.0f;
    }
    float power = 1.0f;
    for (int k = 0; k < whole; ++k) {
      power *= squared;
    }
    return power;
  }

  // The energy of one value's differences, and what the slopes of both are multiplied with.
  DISSECT_HD float variation(float squared) const { return plain_variation() ? squared : powf(squared, beta / 2.0f); }
  DISSECT_HD float slope(float squared) const {
    return plain_variation() ? 1.0f : powf(squared > kVariationFloor ? squared : kVariationFloor, beta / 2.0f - 1.0f);
  }

  // Gradient of one value: `right` and `down` are its own sloped differences, `left` and `up` those of its neighbours.
  DISSECT_HD float gradient(float z, float steepness, float right, float down, float left, float up) const {
    const float bend = ((-(right + down)) + left) + up;
    return (beta * variation_scale) * bend + ((alpha * alpha_scale) * steepness) * z;
  }
};

// AdaGrad with a fading memory and momentum, as IJCV'16 shipped it.
struct Fading {
  float mu, memory;

  DISSECT_HD float square(float squares, float gradient) const { return squares * memory + gradient * gradient; }
  DISSECT_HD float speed(float speeds, float gradient, float squares, float inverse_rate) const {
    return speeds * mu - gradient / (inverse_rate + sqrtf(squares));
  }
};

// What a pixel of that squared length is multiplied with to lie in the ball; a few ulps inside, so that the rounding of
// the product cannot leave it again.
DISSECT_HD float into_ball(float squared, float radius) {
  const float length = sqrtf(squared);
  return length > radius ? radius * (1.0f - 4.0f * 1.1920929e-07f) / length : 1.0f;
}

}  // namespace dissect
