// Pattern-producing networks, value by value, with sine and exponential spelt out in float32 so that both twins draw the
// same picture to the bit. Compile with contraction off.
#pragma once

#include <cstring>

#include "portable.h"

namespace dissect {

enum class Neuron : int8_t { output = -2, input = -1, sine = 0, sigmoid = 1, gaussian = 2, linear = 3 };

constexpr float kReach = 10.0f;  // of a linear neuron

// Nearest whole number of |x| < 2^22: what is added and taken away leaves no room for a fraction.
DISSECT_HD float nearest(float x) {
  return (x + 12582912.0f) - 12582912.0f;
}

// e^x by 2^n e^r, |r| <= ln 2 / 2, with six terms of the series; 0 and the largest are what is left beyond -87 and 88.
DISSECT_HD float exponential(float x) {
  x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  const float n = nearest(x * 1.44269504f);
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float sum = 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return sum * power;
}

// sin x by x - n pi, pi in three parts of few digits, so that n times the first two is exact up to n = 2^15.
DISSECT_HD float sine(float x) {
  const float n = nearest(x * 0.318309886f);
  const float r = ((x - n * 3.140625f) - n * 9.67502594e-4f) - n * 1.50995799e-7f;
  const float square = r * r;
  float sum = -1.0f / 39916800;
  sum = sum * square + 1.0f / 362880;
  sum = sum * square - 1.0f / 5040;
  sum = sum * square + 1.0f / 120;
  sum = sum * square - 1.0f / 6;
  const float value = r + (r * square) * sum;
  return static_cast<int32_t>(n) & 1 ? -value : value;
}

DISSECT_HD float logistic(float x) {
  return 1.0f / (1.0f + exponential(-x));
}

DISSECT_HD float within(float x, float low, float high) {
  return x < low ? low : (x > high ? high : x);
}

// One plane of a colour given as hue, lightness, saturation in 0 … 1 (the double cone); shift 0, 8, 4: red, green, blue.
DISSECT_HD float colour(float hue, float light, float saturation, float shift) {
  const float lean = 2.0f * light - 1.0f;
  const float chroma = (1.0f - (lean < 0.0f ? -lean : lean)) * saturation;
  float k = shift + hue * 12.0f;
  k = k >= 12.0f ? k - 12.0f : k;
  const float rising = k - 3.0f, falling = 9.0f - k;
  const float wave = within(rising < falling ? rising : falling, -1.0f, 1.0f);
  return within(light - (chroma / 2.0f) * wave, 0.0f, 1.0f);
}

}  // namespace dissect
