// Interpolation of feature maps, compiled for every instruction set. Plain data only.
#pragma once

#include <stdint.h>

namespace pixcli {

enum class Storage : int32_t { kHalf, kFloat, kDouble };

// How patches of shape (height, width, channels) are sampled; channels are innermost.
struct Sampling {
  Storage storage;
  int32_t height, width, channels;
  bool bilinear;  // else bicubic (Catmull-Rom)
  bool l2_normalize, ncc_normalize;
  int32_t num_nodes;
  const double* nodes;  // (num_nodes, 2): x, y offsets in samples
};

// Kernels write whole vectors and read them again without a tail: a row of `dimension` values is followed by
// zeros up to a multiple of this, and by as much room again.
constexpr int64_t kRowAlignment = 16;

static inline int64_t PaddedDimension(int64_t dimension) {
  return (dimension + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
}
static inline int64_t RowStride(int64_t dimension) { return PaddedDimension(dimension) + kRowAlignment; }

// Samples at (u, v) of a patch: three rows of RowStride() values, f and its derivatives along x and along y.
struct InterpolationKernel {
  void (*sample)(const Sampling& sampling, const void* patch, double u, double v, float* rows);
  void (*sample_double)(const Sampling& sampling, const void* patch, double u, double v, double* rows);
};

}  // namespace pixcli
