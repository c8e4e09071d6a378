// References of 3D points: the observation nearest to the robust mean of the features of all of them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/featuremetric.h"
#include "core/interpolation.h"
#include "core/loss.h"
#include "core/parallel.h"

namespace pixcli {

struct ReferenceProblem {
  FeatureLevel level;  // its rows: the patch of each observation
  const double* xy;    // (n, 2) where each point projects to, pixels; NaN where it does not
  int64_t num_points;
  const int64_t* point_ptr;  // (num_points + 1,) observations of each point
};

struct ReferenceOptions {
  InterpolationOptions interpolation;
  Loss loss;
  int max_iterations;
  bool keep_observations;
  int num_threads;
};

struct ReferenceResult {
  std::vector<float> features;      // (num_points, D): of the reference; zero if there is none
  std::vector<int64_t> nearest;     // (num_points,) its observation, or -1
  std::vector<int32_t> iterations;  // (num_points,)
  std::vector<uint8_t> counts;      // (n,) whether the observation counts
  std::vector<float> observations;  // (n, D) if kept; zero for those that do not count
};

// An observation counts if its point projects into its patch and its features are finite. The robust mean is
// the minimum of the sum of rho(‖f - mean‖²), found by averaging with the weights rho' until it rests. Among
// observations as near as the nearest, but for rounding, the first is taken. Returns false if the poll
// stopped it.
bool ComputeReferences(const ReferenceProblem& problem, const ReferenceOptions& options, const Poll& poll,
                       ReferenceResult* result);

// (n, height, width, 3): distance ‖f - reference‖ and its derivatives along x and y at each sample of the
// patch of each observation. `reference` (n,) are rows of references (m, D), -1 for a map of zeros.
bool ComputeCostMaps(const FeatureLevel& level, int64_t num_observations, const int64_t* reference,
                     const float* references, const InterpolationOptions& interpolation, int num_threads,
                     const Poll& poll, float* maps);

}  // namespace pixcli
