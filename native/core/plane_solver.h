// Damped Gauss-Newton of planes, and of shifts against the warps that they induce, on any kind of maps; for
// kernel sources only. The gradients are those of the reference carried into the other views, so that an
// iteration takes only their values. See core/surface_kernel.h for the geometry.
//
// A type Maps says how views are compared with their reference:
//   Patch, Support            as the kernel's interface has them
//   Reference                 samples around the point at one spacing, with their `outcome`
//   View                      what is known of one view
//   Residual                  of a view's samples to the reference, with their `correlation` and `variance`
//   Shift                     the normal equations of a view's own shift
//   Nodes(support)            its grid
//   ReferenceSize, ViewSize   bytes that the next two take from the arena
//   MakeReference             samples the reference
//   OpenView                  false if a view has no samples to compare
//   Compare                   samples a view that sees the plane moved by (dx, dy): kConverged if that worked
//   AddToPlane                adds a compared view to the plane's equations; returns the pixels that it moves
//   by the
//                             plane's offset. Unless `update`, a Jacobian that was made before is kept
//   OpenShift                 false if the plane is seen edge on
//   LinearizeShift            after each comparison; false if the shift is not determined
//   StepOfShift, Covariance   of the linearised shift, in pixels of the view
#pragma once

#include <math.h>

#include "core/arena.h"
#include "core/plane_nodes.h"

namespace pixcli::PIXCLI_ISA {
namespace {

constexpr double kVarianceFloor = .005;  // of a view's residual: no view decides alone
constexpr double kSlopePrior = 1e-2;     // slopes are about 1 at most, unless the views say otherwise
constexpr double kPlaneDamping = 1e-4;
constexpr float kLeastCorrelation = .5f;  // of a view that takes part in an iteration
constexpr int kNumPlane = 3;

// The sums over all views of one iteration.
struct PlaneEquations {
  double h[6], b[kNumPlane];  // lower triangle
  double correlation, speed;  // mean; largest
  int32_t num_views;
};

// What the equations of a view count.
inline double WeightOf(const SupportView& nodes, double variance) {
  return nodes.independent / (variance + kVarianceFloor);
}

// Inverse of a symmetric matrix, all given by their lower triangles; false if it is not positive definite.
inline bool Invert(const double h[6], double out[6]) {
  const double c00 = h[2] * h[5] - h[4] * h[4], c10 = h[3] * h[4] - h[1] * h[5],
               c20 = h[1] * h[4] - h[2] * h[3];
  const double det = h[0] * c00 + h[1] * c10 + h[3] * c20;
  if (!(h[0] > 0 && h[0] * h[2] > h[1] * h[1] && det > 1e-14 * h[0] * h[2] * h[5])) return false;
  out[0] = c00 / det;
  out[1] = c10 / det;
  out[2] = (h[0] * h[5] - h[3] * h[3]) / det;
  out[3] = c20 / det;
  out[4] = (h[1] * h[3] - h[0] * h[4]) / det;
  out[5] = (h[0] * h[2] - h[1] * h[1]) / det;
  return true;
}

template <class Maps>
struct PlaneSolver {
  typedef typename Maps::Patch Patch;
  typedef typename Maps::Support Support;
  typedef typename Maps::Reference Reference;
  typedef PlanePair<Patch> Pair;

  struct View {
    typename Maps::View maps;
    Relative relative;
    bool live;
  };

  static int64_t ScratchSize(const Pair* pairs, int64_t n, const Support& support) {
    int64_t size = Arena::Rounded(n * static_cast<int64_t>(sizeof(View)));
    for (int64_t i = 0; i < n; ++i) {
      size += Maps::ViewSize(pairs[i].patch, support);
      if (pairs[i].new_template) size += Maps::ReferenceSize(pairs[i].reference_patch, support);
    }
    return size;
  }

  static void Accumulate(const SurfaceView& reference, const Pair& pair, const Support& support,
                         const Plane& plane, bool update, View* view, PlaneEquations* eq) {
    Homography g;
    Derivatives d;
    typename Maps::Residual residual;
    view->live = Induced(view->relative, plane, &g) && Differentiate(*pair.view, view->relative, g, &d) &&
                 Maps::Compare(pair, support, g, 0, 0, &view->maps, &residual) == Outcome::kConverged;
    if (!view->live || !(residual.correlation > kLeastCorrelation)) return;
    const double speed = Maps::AddToPlane(reference, d, support, update, &view->maps, &residual, eq);
    eq->correlation += residual.correlation;
    eq->speed = fmax(eq->speed, speed);
    ++eq->num_views;
  }

  static void Refine(const SurfaceView& reference, const Pair* pairs, int64_t n, const Support& support,
                     const SurfaceLimits& limits, char* scratch, SurfaceFit* fit) {
    Arena arena{scratch};
    View* views = reinterpret_cast<View*>(arena.Take(n * static_cast<int64_t>(sizeof(View))));
    const Reference* tmpl = nullptr;
    double reach = 0;  // of the support, in tangents
    const auto& j = reference.jacobian;
    const double focal = sqrt(fabs(j[0][0] * j[1][1] - j[0][1] * j[1][0]));
    fit->outcome = static_cast<int32_t>(Outcome::kOutside);
    fit->initial_correlation = fit->correlation = -1;
    fit->depth_deviation = NAN;
    fit->shift = fit->num_views = fit->iterations = 0;
    for (int64_t i = 0; i < n; ++i) {
      if (pairs[i].new_template) tmpl = Maps::MakeReference(reference, pairs[i], support, &arena);
      views[i].relative = Between(reference, *pairs[i].view);
      views[i].live = Maps::OpenView(pairs[i], support, tmpl, &arena, &views[i].maps) &&
                      tmpl->outcome == Outcome::kConverged;
      reach = fmax(reach, Maps::Nodes(support).radius * pairs[i].spacing / focal);
    }
    if (tmpl != nullptr && tmpl->outcome == Outcome::kFlat)
      fit->outcome = static_cast<int32_t>(Outcome::kFlat);
    const double start = fit->plane.offset;
    double step = kMaxStep, inverse[6];
    for (bool last = false;; ++fit->iterations) {
      PlaneEquations eq = {};
      const bool update = last || step > kSettled;
      for (int64_t i = 0; i < n; ++i) {
        if (views[i].live) Accumulate(reference, pairs[i], support, fit->plane, update, &views[i], &eq);
      }
      fit->num_views = eq.num_views;
      if (eq.num_views == 0) return;
      fit->correlation = eq.correlation / eq.num_views;
      if (fit->iterations == 0) fit->initial_correlation = fit->correlation;
      fit->shift = fmax(fit->shift, fabs(fit->plane.offset - start) * eq.speed);
      for (int p = 0, i = 0; p < kNumPlane; ++p, i += p + 1) eq.h[i] *= 1 + kPlaneDamping;
      eq.h[2] += kSlopePrior;
      eq.h[5] += kSlopePrior;
      fit->outcome = static_cast<int32_t>(Outcome::kDiverged);
      if (!Invert(eq.h, inverse) || fit->shift > limits.max_shift) return;
      if (last) break;
      const double d[kNumPlane] = {inverse[0] * eq.b[0] + inverse[1] * eq.b[1] + inverse[3] * eq.b[2],
                                   inverse[1] * eq.b[0] + inverse[2] * eq.b[1] + inverse[4] * eq.b[2],
                                   inverse[3] * eq.b[0] + inverse[4] * eq.b[1] + inverse[5] * eq.b[2]};
      step = fabs(d[0]) * eq.speed;
      const double scale = step > kMaxStep ? kMaxStep / step : 1;
      fit->plane.offset -= scale * d[0];
      fit->plane.slope_x -= scale * d[1];
      fit->plane.slope_y -= scale * d[2];
      if (!(fit->plane.offset > -.9)) return;
      const double tilt = (fabs(d[1]) + fabs(d[2])) * eq.speed * reach;
      // One more evaluation after the last step, for its correlation and deviation.
      last = (step < limits.step_tolerance && tilt < 5 * limits.step_tolerance) ||
             fit->iterations + 1 >= limits.max_iterations;
      step = fmax(step, tilt);
    }
    fit->depth_deviation = sqrt(inverse[0]) / (1 + fit->plane.offset);
    fit->outcome = static_cast<int32_t>(Outcome::kConverged);
  }

  // The shift of one view by Gauss-Newton, the warp held fixed.
  static Outcome MeasureShift(const SurfaceView& reference, const Pair& pair, const Support& support,
                              const Reference& tmpl, const SurfaceLimits& limits, const Plane& plane,
                              Arena arena, SurfaceShift* out) {
    if (tmpl.outcome != Outcome::kConverged) return tmpl.outcome;
    typename Maps::View view;
    typename Maps::Residual residual;
    typename Maps::Shift shift = {};
    Homography g;
    Derivatives d;
    const Relative relative = Between(reference, *pair.view);
    if (!Induced(relative, plane, &g) || !Differentiate(*pair.view, relative, g, &d))
      return Outcome::kOutside;
    out->x = d.x;
    out->y = d.y;
    if (!Maps::OpenView(pair, support, &tmpl, &arena, &view) ||
        !Maps::OpenShift(reference, d, support, view, &shift))
      return Outcome::kOutside;
    double step = kMaxStep;
    for (bool last = false;; ++out->iterations) {
      const Outcome outcome = Maps::Compare(pair, support, g, out->dx, out->dy, &view, &residual);
      if (outcome != Outcome::kConverged) return outcome;
      out->correlation = residual.correlation;
      if (out->iterations == 0) out->initial_correlation = residual.correlation;
      if (!(residual.correlation > .1f)) return Outcome::kDiverged;
      if (!Maps::LinearizeShift(support, last || step > kSettled, view, &residual, &shift))
        return Outcome::kDiverged;
      if (last) break;
      double s[2];
      Maps::StepOfShift(shift, s);
      step = sqrt(s[0] * s[0] + s[1] * s[1]);
      const double scale = step > kMaxStep ? kMaxStep / step : 1;
      out->dx -= scale * s[0];
      out->dy -= scale * s[1];
      if (!(fabs(out->dx) + fabs(out->dy) < 2 * limits.max_shift)) return Outcome::kDiverged;
      last = step < limits.step_tolerance || out->iterations + 1 >= limits.max_iterations;
    }
    Maps::Covariance(support, residual, shift, &view, out);
    return Outcome::kConverged;
  }

  static void Measure(const SurfaceView& reference, const Pair* pairs, int64_t n, const Support& support,
                      const SurfaceLimits& limits, const Plane& plane, char* scratch, SurfaceShift* shifts) {
    Arena arena{scratch};
    const Reference* tmpl = nullptr;
    for (int64_t i = 0; i < n; ++i) {
      if (pairs[i].new_template) tmpl = Maps::MakeReference(reference, pairs[i], support, &arena);
      shifts[i] = {NAN, NAN, 0, 0, -1, -1, NAN, NAN, NAN, 0, 0};
      // The arena by value: what a view takes is free again for the next one.
      const Outcome outcome =
          MeasureShift(reference, pairs[i], support, *tmpl, limits, plane, arena, &shifts[i]);
      shifts[i].outcome = static_cast<int32_t>(outcome);
    }
  }

  static constexpr PlaneKernel<Patch, Support> kKernel = {ScratchSize, Refine, Measure};
};

}  // namespace
}  // namespace pixcli::PIXCLI_ISA
