// Alignment of many patches to their templates: gain- and bias-invariant, on position and local affine map.
#pragma once

#include <cstdint>
#include <vector>

#include "core/alignment_kernel.h"
#include "core/parallel.h"

namespace pixcli {

// The grids of nodes around a keypoint: (2 radius + 1)^2, weighted by a Gaussian of `window` radii that sums
// to 1.
class Support {
 public:
  Support(int radius, double window);
  Support(Support&&) = default;  // not copied: the view points into the storage
  SupportView View() const;

 private:
  std::vector<float> storage_;
  const float* aligned_;
  int num_nodes_, num_padded_;
  float radius_, independent_, second_moment_, fourth_moment_;
};

// Patches of scale-space levels, flat in one buffer. See PatchView for the geometry.
struct PatchArrays {
  const uint8_t* buffer;
  const int64_t* offset;
  const int32_t* size;   // (n, 2) width, height
  const double* origin;  // (n, 3) x0, y0, pitch
  PatchView operator[](int64_t i) const {
    return {buffer + offset[i], size[2 * i],       size[2 * i + 1],
            origin[3 * i],      origin[3 * i + 1], origin[3 * i + 2]};
  }
};

// Template t is made from patch[t] around xy[t], with nodes spacing[t] pixels apart, and serves the
// jobs job_ptr[t]:job_ptr[t+1]. perspective_deviation: see Template.
struct TemplateArrays {
  int64_t n;
  const int32_t* patch;
  const double* xy;
  const double* spacing;
  const double* perspective_deviation;
  const int64_t* job_ptr;
};

// Each job aligns patch[j] to its template, from the best of starts[j * num_starts + ...].
struct JobArrays {
  const int32_t* patch;
  int num_starts;
  const Warp* starts;
  Alignment* alignment;
};

// Returns false if the poll stopped it. Results do not depend on the number of threads.
bool AlignPatches(const PatchArrays& patches, const Support& support, const TemplateArrays& templates,
                  const JobArrays& jobs, const AlignmentLimits& limits, int num_threads, const Poll& poll);

}  // namespace pixcli
