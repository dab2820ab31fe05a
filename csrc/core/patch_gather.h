// Where each place of a cut comes from: outside the map, the cached base, or the changed patch over it.
#pragma once

#include "portable.h"

namespace dissect {

// One axis of a cut: position p of the cut is place start + p of the map; the patch begins at place origin.
struct CutAxis {
  int64_t length;  // of the map
  int64_t origin, patch;
  int64_t start;

  DISSECT_HD int64_t place(int64_t position) const { return start + position; }
  DISSECT_HD bool on_map(int64_t position) const { return place(position) >= 0 && place(position) < length; }
  DISSECT_HD bool on_patch(int64_t position) const {
    return place(position) >= origin && place(position) < origin + patch && on_map(position);
  }
};

// A cut's row as five runs: fill, base, patch, base, fill; run i ends before end[i]. Runs may be empty.
struct CutRow {
  int64_t end[5];

  DISSECT_HD CutRow(const CutAxis& axis, int64_t size, bool patched) {
    const auto inside = [size](int64_t position) { return position < 0 ? 0 : (position > size ? size : position); };
    const int64_t low = inside(-axis.start), high = inside(axis.length - axis.start);
    int64_t first = inside(axis.origin - axis.start), last = inside(axis.origin + axis.patch - axis.start);
    first = first < low ? low : (first > high ? high : first);
    last = last < first ? first : (last > high ? high : last);
    if (!patched) {
      last = first;
    }
    end[0] = low;
    end[1] = first;
    end[2] = last;
    end[3] = high > last ? high : last;
    end[4] = size;
  }
};

}  // namespace dissect
