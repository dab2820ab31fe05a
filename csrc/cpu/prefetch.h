// Reading a few units of one place after another jumps through memory; lines are asked for ahead.
#pragma once

#include <cstdint>

namespace dissect {

constexpr int64_t kAhead = 16;  // places

// Asks for `count` floats. An address behind the end of an array does no harm.
inline void prefetch(const float* values, int64_t count) {
#ifdef __GNUC__
  for (int64_t i = 0; i < count; i += 16) {
    __builtin_prefetch(values + i);
  }
#endif
}

}  // namespace dissect
