// One point as a small plane seen by several views, compiled for every instruction set. Plain data only.
//
// Around the point X lies the local frame of each view: its origin is the camera's centre, its third axis the
// ray to X. A ray close to it has the tangents m = (m1, m2), an image position is
//   p(m) = (x, y) + jacobian m + curvature (m1^2, m1 m2, m2^2),
// a fit of the camera's own projection, whatever its model. A plane is linear in inverse depth on the
// tangents of the reference view, so that a homography takes those to the tangents of another view.
#pragma once

#include <stdint.h>

#include "core/alignment_kernel.h"
#include "core/feature_kernel.h"

namespace pixcli {

struct SurfaceView {
  double rotation[3][3];   // local frame from world
  double distance;         // from the camera's centre to X
  double x, y;             // where X is seen
  double jacobian[2][2];   // of the image position by the tangents, in pixels
  double curvature[2][3];  // second-order terms, in pixels
};

// The inverse depth at the tangents m of the reference view, in units of that of X: 1 + offset + slope m.
struct Plane {
  double offset, slope_x, slope_y;
};

// A view that is compared with the reference view.
template <class Patch>
struct PlanePair {
  const SurfaceView* view;
  Patch patch, reference_patch;
  double spacing;     // of the nodes, in pixels of the reference view
  bool new_template;  // whether reference_patch and spacing differ from those of the pair before
};

struct SurfaceLimits {
  int32_t max_iterations;
  double max_shift;       // pixels in any view that a point may move by
  double step_tolerance;  // pixels
};

// How a point was refined; correlations are means over the views.
struct SurfaceFit {
  Plane plane;
  double initial_correlation, correlation;
  double depth_deviation;  // predicted standard deviation of the depth, relative to it
  double shift;            // pixels, in the view where it is largest
  int32_t num_views, iterations;
  int32_t outcome;  // an Outcome
};

// Where a view sees the plane's centre, and its own shift against it.
struct SurfaceShift {
  double x, y, dx, dy;
  double correlation, initial_correlation;
  double cov_xx, cov_xy, cov_yy;
  int32_t iterations;
  int32_t outcome;  // an Outcome
};

template <class Patch, class Support>
struct PlaneKernel {
  typedef PlanePair<Patch> Pair;
  // Bytes of 64-byte aligned memory that the other two need.
  int64_t (*scratch_size)(const Pair* pairs, int64_t n, const Support& support);
  // Refines fit->plane until all views agree with the reference.
  void (*refine)(const SurfaceView& reference, const Pair* pairs, int64_t n, const Support& support,
                 const SurfaceLimits& limits, char* scratch, SurfaceFit* fit);
  // Measures the shift of each view against the warp that the plane induces.
  void (*measure)(const SurfaceView& reference, const Pair* pairs, int64_t n, const Support& support,
                  const SurfaceLimits& limits, const Plane& plane, char* scratch, SurfaceShift* shifts);
};

using SurfaceKernel = PlaneKernel<PatchView, SupportView>;
using FeatureSurfaceKernel = PlaneKernel<FeaturePatch, FeatureSupport>;

}  // namespace pixcli
