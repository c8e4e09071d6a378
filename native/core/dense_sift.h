// Dense SIFT: a descriptor of 4x4 bins and 8 orientations around every pixel of an image.
#pragma once

#include <cstdint>

#include "core/parallel.h"

namespace pixcli {

struct DenseSiftOptions {
  int bin_size;   // Side of a bin, in pixels.
  bool rootsift;  // Square roots of the L1-normalized descriptor instead of the L2-normalized one.
  bool half;      // Writes float16, else float32.
};

// Writes the (height, width, 128) descriptors of a (height, width) image; a flat neighbourhood gives zeros.
// The order within a descriptor is row of the bin, column of the bin, orientation. Beyond the image there are
// no gradients. A descriptor depends on pixels up to (3 b + 1) / 2 + b away, where b is bin_size. Returns
// false if the poll stopped it.
bool DenseSift(const float* image, int64_t height, int64_t width, const DenseSiftOptions& options, void* out,
               int num_threads, const Poll& poll);

}  // namespace pixcli
