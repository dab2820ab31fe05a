// How a mask pixel is counted. The area rule decides in which images a unit's mask counts towards
// the area A[u, k] of category k.
#pragma once

#include "portable.h"

namespace dissect {

enum class AreaRule : int64_t {
  kImageHolds = 0,   // images that hold a label of the category (the definition)
  kMaskTouches = 1,  // images in which the mask itself meets a label of the category
  kEveryImage = 2,   // all images, whatever they hold
};

// Whether an image counts for a category: `held` and `touched` are bit sets over categories.
DISSECT_HD bool counts_for(AreaRule rule, uint64_t held, uint64_t touched, int category) {
  const uint64_t bit = uint64_t{1} << category;
  switch (rule) {
    case AreaRule::kImageHolds:
      return (held & bit) != 0;
    case AreaRule::kMaskTouches:
      return (touched & bit) != 0;
    case AreaRule::kEveryImage:
      return true;
  }
  return false;
}

}  // namespace dissect
