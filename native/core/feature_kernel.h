// Alignment of feature maps of any number of channels, compiled for every instruction set. Plain data only.
#pragma once

#include <stdint.h>

#include "core/alignment_kernel.h"

namespace pixcli {

enum class FeatureType : int32_t { kFloat, kHalf, kInt8, kInt4 };

// Samples (height, width, channels) of a feature map. Sample (0, 0) lies at (x0, y0) in the image, the next
// pitch pixels on. Integers are multiples of the gains, one for each channel; of 4 bits, two channels share a
// byte, the first in its lower half, and 8 stands for 0.
struct FeaturePatch {
  const void* data;
  const float* gains;  // of integers only
  FeatureType type;
  int32_t width, height, channels;
  double x0, y0, pitch;
};

// How samples are compared with the template's.
enum class Comparison : int32_t {
  kCorrelation,  // free of a gain and a bias for each channel
  kDistance,     // as they are
  kCosine,       // as vectors of unit length
};

struct FeatureSupport {
  SupportView nodes;
  Comparison comparison;
};

struct FeatureKernel {
  // Bytes of 64-byte aligned memory for a template; and for whatever is then compared with it.
  int64_t (*template_size)(const FeaturePatch& patch, const FeatureSupport& support);
  int64_t (*work_size)(const FeaturePatch& patch, const FeatureSupport& support);
  // Samples the template around (x, y) of the root's patch, with nodes spacing pixels apart, at the start of
  // the memory; for align.
  Outcome (*make_template)(const FeaturePatch& patch, const FeatureSupport& support, double x, double y,
                           double spacing, char* memory);
  // Aligns a patch to the template in `tmpl`, from the start of highest correlation. The perspective part of
  // warps stays what it is.
  void (*align)(const FeaturePatch& patch, const FeatureSupport& support, const char* tmpl,
                const AlignmentLimits& limits, const Warp* starts, int num_starts, char* work,
                Alignment* alignment);
};

}  // namespace pixcli
