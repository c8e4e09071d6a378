// Damped Gauss-Newton of planes and of shifts against the warps that they induce, on feature maps. A plane's
// parameters move the nodes of the reference as affine maps of its pixels do, so that its normal equations
// are those of the affine map, reduced.
#include "core/feature_kernel.h"
#include "core/feature_nodes.h"
#include "core/plane_nodes.h"

namespace pixcli::PIXCLI_ISA {
namespace {

constexpr double kVarianceFloor = .005;   // of a view's residual: no view decides alone
constexpr double kSlopePrior = 1e-2;      // slopes are about 1 at most, unless the views say otherwise
constexpr float kLeastCorrelation = .5f;  // of a view that takes part in an iteration
constexpr int kNumPlane = 3;

struct Reference {
  FeatureTemplate* nodes;
  float *m1, *m2;  // tangents of the nodes
};

struct View {
  Reference reference;
  FeatureSamples samples;
  FeatureWork work;
  PatchView frame;
  Relative relative;
  bool live;
};

PatchView FrameOf(const FeaturePatch& patch) {
  return {nullptr, patch.width, patch.height, patch.x0, patch.y0, patch.pitch};
}

int64_t ScratchSize(const FeaturePair* pairs, int64_t n, const FeatureSupport& support) {
  int64_t size = Arena::Rounded(n * static_cast<int64_t>(sizeof(View)));
  for (int64_t i = 0; i < n; ++i) {
    size += FeatureWorkSize(pairs[i].patch, support.nodes);
    if (pairs[i].new_template) {
      size += FeatureTemplateSize(pairs[i].reference_patch, support.nodes) +
              2 * Arena::Rounded(support.nodes.num_padded * static_cast<int64_t>(sizeof(float)));
    }
  }
  return size;
}

Reference MakeReference(const SurfaceView& view, const FeaturePair& pair, const FeatureSupport& support,
                        Arena* arena) {
  Reference out;
  out.nodes = MakeFeatureTemplate(pair.reference_patch, support, view.x, view.y, pair.spacing, arena);
  out.m1 = arena->Floats(support.nodes.num_padded);
  out.m2 = arena->Floats(support.nodes.num_padded);
  NodeTangents(view, support.nodes, pair.spacing, out.m1, out.m2);
  return out;
}

bool OpenView(const SurfaceView& reference, const FeaturePair& pair, const FeatureSupport& support,
              const Reference& tmpl, Arena* arena, View* out) {
  out->reference = tmpl;
  out->frame = FrameOf(pair.patch);
  out->work = TakeWork(pair.patch, support.nodes, arena);
  out->relative = Between(reference, *pair.view);
  out->live = DecodeFeatures(pair.patch, out->work.gains, out->work.decoded, &out->samples);
  return out->live;
}

// Compares a view that sees the plane moved by (dx, dy).
Outcome Evaluate(const SurfaceView& view, const Homography& g, const FeatureSupport& support, double dx,
                 double dy, View* state, FeatureResidual* residual) {
  Cells cells;
  if (!LocateOnPlane(state->samples.Extent(), state->frame, view, g, state->reference.m1, state->reference.m2,
                     support.nodes, dx, dy, &cells))
    return Outcome::kOutside;
  SampleFeatures(state->samples, cells, support.nodes.num_nodes, state->work.value);
  return CompareFeatures(*state->reference.nodes, support, &state->work, residual) ? Outcome::kConverged
                                                                                   : Outcome::kFlat;
}

// The affine parameters by those of the plane: how its offset and slopes move the nodes, in pixels of the
// reference, by pixels and by nodes.
void AffineByPlane(const SurfaceView& reference, const Derivatives& d, double spacing,
                   double out[kNumAffine][kNumPlane]) {
  const auto& j = reference.jacobian;
  const double e[2] = {j[0][0] * d.m_by_offset[0] + j[0][1] * d.m_by_offset[1],
                       j[1][0] * d.m_by_offset[0] + j[1][1] * d.m_by_offset[1]};
  const double scale = spacing / (j[0][0] * j[1][1] - j[0][1] * j[1][0]);
  const double m_by_node[2][2] = {{j[1][1] * scale, -j[0][1] * scale}, {-j[1][0] * scale, j[0][0] * scale}};
  for (int a = 0; a < 2; ++a) {
    out[a][0] = e[a];
    out[a][1] = out[a][2] = 0;
    for (int b = 0; b < 2; ++b) {
      out[2 + 2 * a + b][0] = 0;
      for (int s = 0; s < 2; ++s) out[2 + 2 * a + b][1 + s] = e[a] * m_by_node[s][b];
    }
  }
}

// The sums over all views of one iteration.
struct PlaneEquations {
  double h[6], b[3];
  double correlation, speed;  // mean; largest
  int32_t num_views;
};

void Accumulate(const SurfaceView& reference, const FeaturePair& pair, const FeatureSupport& support,
                const Plane& plane, View* state, PlaneEquations* eq) {
  Homography g;
  Derivatives d;
  FeatureResidual residual;
  state->live = Induced(state->relative, plane, &g) && Differentiate(*pair.view, state->relative, g, &d) &&
                Evaluate(*pair.view, g, support, 0, 0, state, &residual) == Outcome::kConverged;
  if (!state->live || !(residual.correlation > kLeastCorrelation)) return;
  double by_plane[kNumAffine][kNumPlane];
  const FeatureTemplate& tmpl = *state->reference.nodes;
  AffineByPlane(reference, d, tmpl.spacing, by_plane);
  const double weight = support.nodes.independent / (residual.variance + kVarianceFloor);
  for (int p = 0, i = 0; p < kNumPlane; ++p) {
    for (int a = 0; a < kNumAffine; ++a) eq->b[p] += weight * by_plane[a][p] * residual.gradient[a];
    for (int q = 0; q <= p; ++q, ++i) {
      double sum = 0;
      for (int a = 0; a < kNumAffine; ++a) {
        for (int b = 0; b < kNumAffine; ++b) sum += by_plane[a][p] * tmpl.hessian[a][b] * by_plane[b][q];
      }
      eq->h[i] += weight * residual.total * residual.gain * sum;
    }
  }
  eq->correlation += residual.correlation;
  eq->speed = fmax(eq->speed, sqrt(d.by_offset[0] * d.by_offset[0] + d.by_offset[1] * d.by_offset[1]));
  ++eq->num_views;
}

void Refine(const SurfaceView& reference, const FeaturePair* pairs, int64_t n, const FeatureSupport& support,
            const SurfaceLimits& limits, char* scratch, SurfaceFit* fit) {
  Arena arena{scratch};
  View* views = reinterpret_cast<View*>(arena.Take(n * static_cast<int64_t>(sizeof(View))));
  Reference tmpl = {};
  double reach = 0;  // of the support, in tangents
  const auto& j = reference.jacobian;
  const double focal = sqrt(fabs(j[0][0] * j[1][1] - j[0][1] * j[1][0]));
  fit->outcome = static_cast<int32_t>(Outcome::kOutside);
  fit->initial_correlation = fit->correlation = -1;
  fit->depth_deviation = NAN;
  fit->shift = fit->num_views = fit->iterations = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (pairs[i].new_template) tmpl = MakeReference(reference, pairs[i], support, &arena);
    OpenView(reference, pairs[i], support, tmpl, &arena, &views[i]);
    views[i].live = views[i].live && tmpl.nodes->outcome == Outcome::kConverged;
    reach = fmax(reach, support.nodes.radius * pairs[i].spacing / focal);
  }
  if (tmpl.nodes != nullptr && tmpl.nodes->outcome == Outcome::kFlat)
    fit->outcome = static_cast<int32_t>(Outcome::kFlat);
  const double start = fit->plane.offset;
  double inverse[6];
  for (bool last = false;; ++fit->iterations) {
    PlaneEquations eq = {};
    for (int64_t i = 0; i < n; ++i) {
      if (views[i].live) Accumulate(reference, pairs[i], support, fit->plane, &views[i], &eq);
    }
    fit->num_views = eq.num_views;
    if (eq.num_views == 0) return;
    fit->correlation = eq.correlation / eq.num_views;
    if (fit->iterations == 0) fit->initial_correlation = fit->correlation;
    fit->shift = fmax(fit->shift, fabs(fit->plane.offset - start) * eq.speed);
    for (int p = 0, i = 0; p < kNumPlane; ++p, i += p + 1) eq.h[i] *= 1 + kDamping;
    eq.h[2] += kSlopePrior;
    eq.h[5] += kSlopePrior;
    fit->outcome = static_cast<int32_t>(Outcome::kDiverged);
    if (!Invert(eq.h, inverse) || fit->shift > limits.max_shift) return;
    if (last) break;
    const double d[3] = {inverse[0] * eq.b[0] + inverse[1] * eq.b[1] + inverse[3] * eq.b[2],
                         inverse[1] * eq.b[0] + inverse[2] * eq.b[1] + inverse[4] * eq.b[2],
                         inverse[3] * eq.b[0] + inverse[4] * eq.b[1] + inverse[5] * eq.b[2]};
    const double step = fabs(d[0]) * eq.speed, scale = step > kMaxStep ? kMaxStep / step : 1;
    fit->plane.offset -= scale * d[0];
    fit->plane.slope_x -= scale * d[1];
    fit->plane.slope_y -= scale * d[2];
    if (!(fit->plane.offset > -.9)) return;
    const double tilt = (fabs(d[1]) + fabs(d[2])) * eq.speed * reach;
    last = (step < limits.step_tolerance && tilt < 5 * limits.step_tolerance) ||
           fit->iterations + 1 >= limits.max_iterations;
  }
  fit->depth_deviation = sqrt(inverse[0]) / (1 + fit->plane.offset);
  fit->outcome = static_cast<int32_t>(Outcome::kConverged);
}

// The shift of one view by Gauss-Newton, the warp held fixed.
Outcome MeasureShift(const SurfaceView& reference, const FeaturePair& pair, const FeatureSupport& support,
                     const Reference& tmpl, const SurfaceLimits& limits, const Plane& plane, Arena arena,
                     SurfaceShift* out) {
  if (tmpl.nodes->outcome != Outcome::kConverged) return tmpl.nodes->outcome;
  View view;
  Homography g;
  Derivatives d;
  if (!OpenView(reference, pair, support, tmpl, &arena, &view)) return Outcome::kOutside;
  if (!Induced(view.relative, plane, &g) || !Differentiate(*pair.view, view.relative, g, &d))
    return Outcome::kOutside;
  out->x = d.x;
  out->y = d.y;
  // Pixels of the reference to pixels of the view.
  const auto& j = reference.jacobian;
  const double det = j[0][0] * j[1][1] - j[0][1] * j[1][0];
  if (!(fabs(det) > 0)) return Outcome::kOutside;
  Alignment carried = {};
  carried.warp.a11 = (d.by_m[0][0] * j[1][1] - d.by_m[0][1] * j[1][0]) / det;
  carried.warp.a12 = (d.by_m[0][1] * j[0][0] - d.by_m[0][0] * j[0][1]) / det;
  carried.warp.a21 = (d.by_m[1][0] * j[1][1] - d.by_m[1][1] * j[1][0]) / det;
  carried.warp.a22 = (d.by_m[1][1] * j[0][0] - d.by_m[1][0] * j[0][1]) / det;
  NormalEquations eq;
  double factor[kNumParams][kNumParams];
  for (int p = 0; p < kNumParams; ++p) {
    for (int q = 0; q <= p; ++q) eq.h[p][q] = tmpl.nodes->hessian[p][q];
  }
  Freeze(2, &eq);
  if (!Factor(eq.h, factor)) return Outcome::kDiverged;
  FeatureResidual residual;
  for (bool last = false;; ++out->iterations) {
    const Outcome outcome = Evaluate(*pair.view, g, support, out->dx, out->dy, &view, &residual);
    if (outcome != Outcome::kConverged) return outcome;
    out->correlation = residual.correlation;
    if (out->iterations == 0) out->initial_correlation = residual.correlation;
    if (!(residual.correlation > .1f)) return Outcome::kDiverged;
    if (last) break;
    double b[kNumParams] = {}, s[kNumParams];
    for (int p = 0; p < 2; ++p) b[p] = residual.gradient[p] / (residual.gain * residual.total);
    Solve(factor, b, s);
    const Warp& a = carried.warp;
    const double sx = a.a11 * s[0] + a.a12 * s[1], sy = a.a21 * s[0] + a.a22 * s[1];
    const double step = sqrt(sx * sx + sy * sy), scale = step > kMaxStep ? kMaxStep / step : 1;
    out->dx -= scale * sx;
    out->dy -= scale * sy;
    if (!(fabs(out->dx) + fabs(out->dy) < 2 * limits.max_shift)) return Outcome::kDiverged;
    last = step < limits.step_tolerance || out->iterations + 1 >= limits.max_iterations;
  }
  double c[3];
  FeatureCovariance(*tmpl.nodes, support, residual, 2, factor, &view.work, c);
  CarryCovariance(c[0], c[1], c[2], &carried);
  out->cov_xx = carried.cov_xx;
  out->cov_xy = carried.cov_xy;
  out->cov_yy = carried.cov_yy;
  return Outcome::kConverged;
}

void Measure(const SurfaceView& reference, const FeaturePair* pairs, int64_t n, const FeatureSupport& support,
             const SurfaceLimits& limits, const Plane& plane, char* scratch, SurfaceShift* shifts) {
  Arena arena{scratch};
  Reference tmpl = {};
  for (int64_t i = 0; i < n; ++i) {
    if (pairs[i].new_template) tmpl = MakeReference(reference, pairs[i], support, &arena);
    shifts[i] = {NAN, NAN, 0, 0, -1, -1, NAN, NAN, NAN, 0, 0};
    // The arena by value: what a view takes is free again for the next one.
    const Outcome outcome =
        MeasureShift(reference, pairs[i], support, tmpl, limits, plane, arena, &shifts[i]);
    shifts[i].outcome = static_cast<int32_t>(outcome);
  }
}

}  // namespace

extern const FeatureSurfaceKernel kFeatureSurfaceKernel;
const FeatureSurfaceKernel kFeatureSurfaceKernel = {ScratchSize, Refine, Measure};

}  // namespace pixcli::PIXCLI_ISA
