// Alignment of many patches of feature maps to their templates; see core/alignment.h for grey ones.
#pragma once

#include <cstdint>
#include <vector>

#include "core/alignment.h"
#include "core/feature_kernel.h"

namespace pixcli {

// Patches of feature maps, flat in one buffer: offset in samples of all channels. gains (n, channels) for
// integers. See PatchArrays.
struct FeatureArrays {
  const void* buffer;
  const float* gains;
  FeatureType type;
  int32_t channels;
  const int64_t* offset;
  const int32_t* size;
  const double* origin;
  FeaturePatch operator[](int64_t i) const;
};

// As AlignPatches, on an affine map.
bool AlignFeatures(const FeatureArrays& patches, const FeatureSupport& support,
                   const TemplateArrays& templates, const JobArrays& jobs, const AlignmentLimits& limits,
                   int num_threads, const Poll& poll);

}  // namespace pixcli
