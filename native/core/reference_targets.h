// Keypoints of a query against references of the points that they match.
#pragma once

#include <cstdint>

#include "core/featuremetric.h"
#include "core/interpolation.h"
#include "core/loss.h"

namespace pixcli {

// What the features at n keypoints should be: one or more references each.
struct ReferenceTargets {
  FeatureLevel level;  // its rows: the patch of each keypoint
  int64_t num_keypoints;
  const int64_t* ptr;        // (n + 1,) targets of each keypoint
  const int64_t* reference;  // (targets,) rows of references
  const float* references;   // (m, D)
  const double* warps;       // (n, 2, 2) that move the nodes, or null
};

// Half the sum of rho(‖f(x) - reference‖²) over the targets of a keypoint, and its derivatives by x in
// pixels: the gradient and the Hessian of Gauss-Newton.
struct TargetCost {
  double cost, x, y, xx, xy, yy;
};

// Of each keypoint at xy (n, 2). Outside of its patch the features are those of the border and the
// derivatives zero; all is zero where there is no patch or no target, NaN where xy or the features are not
// finite.
void EvaluateTargets(const ReferenceTargets& targets, const InterpolationOptions& interpolation,
                     const Loss& loss, const double* xy, TargetCost* costs);

struct TargetAlignmentOptions {
  InterpolationOptions interpolation;
  Loss loss;
  double bound;  // pixels that a keypoint may move along x and along y
  int max_iterations;
  double parameter_tolerance;  // pixels
};

enum class TargetOutcome : uint8_t { kAligned, kAtBound, kUnusable };

struct TargetAlignment {
  TargetOutcome outcome;
  double before;     // cost
  TargetCost after;  // where it is now
};

// Moves each keypoint from xy (n, 2) to where its cost is least, inside the bound around where it was
// detected (n, 2) and inside its patch. One that is unusable stays.
void AlignToTargets(const ReferenceTargets& targets, const TargetAlignmentOptions& options,
                    const double* detected, double* xy, TargetAlignment* results);

}  // namespace pixcli
