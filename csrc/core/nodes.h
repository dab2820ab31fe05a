// Which nodes of a low-resolution map are kept: those above the bound and their eight neighbours.
// A cell with a corner above the bound then has all of its corners, whatever the anchoring.
#pragma once

#include "portable.h"

namespace dissect {

// Calls visit(place) for the node at `place` and its neighbours inside height x width.
template <typename Visit>
DISSECT_HD void visit_neighbourhood(int64_t place, int64_t height, int64_t width, const Visit& visit) {
  const int64_t row = place / width, column = place % width;
  const int64_t top = row > 0 ? row - 1 : 0, bottom = row + 1 < height ? row + 1 : row;
  const int64_t left = column > 0 ? column - 1 : 0, right = column + 1 < width ? column + 1 : column;
  for (int64_t r = top; r <= bottom; ++r) {
    for (int64_t c = left; c <= right; ++c) {
      visit(r * width + c);
    }
  }
}

}  // namespace dissect
