// Damped Gauss-Newton of planes and of shifts against the warps that they induce. The gradients are those of
// the reference's template carried into the other views, so that an iteration takes only their values.
#include "core/surface_kernel.h"

#include "core/arena.h"
#include "core/plane_nodes.h"

namespace pixcli::PIXCLI_ISA {
namespace {

constexpr double kMaxStep = 1.5;         // pixels an iteration
constexpr double kSettled = 0.15;        // pixels; Jacobian and Hessian are kept from there on
constexpr double kVarianceFloor = .005;  // of a view's residual: no view decides alone
constexpr double kSlopePrior = 1e-2;     // slopes are about 1 at most, unless the views say otherwise
constexpr double kDamping = 1e-4;
constexpr float kLeastCorrelation = .5f;  // of a view that takes part in an iteration

// The reference around the point at one spacing of its nodes.
struct Template {
  float *m1, *m2;          // tangents of the nodes
  float *value, *gx, *gy;  // zero-mean, unit-deviation samples and their gradients by pixels
  Outcome outcome;
};

struct ViewState {
  const Template* reference;
  Samples samples;
  Relative relative;
  float* jacobian;  // 3 columns
  double h[6];      // lower triangle of their Hessian
  double speed;     // pixels by the plane's offset
  bool live, has_jacobian;
};

int64_t TemplateSize(const PatchView& patch, const SupportView& support) {
  return Arena::Rounded(sizeof(Template)) + 5 * Arena::Rounded(support.num_padded * sizeof(float)) +
         Arena::Rounded((patch.width * patch.height + kSamplePadding) * sizeof(float));
}

Template* MakeTemplate(const SurfaceView& reference, const PatchView& patch, double spacing,
                       const SupportView& support, Arena* arena) {
  Template* out = reinterpret_cast<Template*>(arena->Take(sizeof(Template)));
  float** const columns[] = {&out->m1, &out->m2, &out->value, &out->gx, &out->gy};
  for (float** column : columns) *column = arena->Floats(support.num_padded);
  float* buffer = arena->Floats(patch.width * patch.height + kSamplePadding);
  Samples samples;
  Cells cells;
  out->outcome = Outcome::kOutside;
  const NodeMap map = MapOf(patch, {reference.x, reference.y, 1, 0, 0, 1, 0, 0}, spacing);
  if (!Decode(patch, buffer, &samples) || !Inside(map, support.radius, samples)) return out;
  NodeTangents(reference, support, spacing, out->m1, out->m2);
  Locate(samples, map, support, &cells);
  SampleGradients(samples, cells, support, out->value, out->gx, out->gy);
  const float deviation = Normalise(support, out->value);
  out->outcome = deviation < kFlat ? Outcome::kFlat : Outcome::kConverged;
  const float scale = static_cast<float>(1 / (patch.pitch * deviation));
  for (int k = 0; k < support.num_padded; k += kLanes) {
    Store(out->gx + k, Load(out->gx + k) * scale);
    Store(out->gy + k, Load(out->gy + k) * scale);
  }
  return out;
}

int64_t ScratchSize(const SurfacePair* pairs, int64_t n, const SupportView& support) {
  int64_t size = Arena::Rounded(n * static_cast<int64_t>(sizeof(ViewState)));
  for (int64_t i = 0; i < n; ++i) {
    const PatchView& patch = pairs[i].patch;
    size += Arena::Rounded((patch.width * patch.height + kSamplePadding) * sizeof(float)) +
            Arena::Rounded(3 * support.num_padded * sizeof(float));
    if (pairs[i].new_template) size += TemplateSize(pairs[i].reference_patch, support);
  }
  return size;
}

void UpdateJacobian(const SurfaceView& reference, const Derivatives& d, const SupportView& support,
                    ViewState* state) {
  const Template& tmpl = *state->reference;
  const auto& j = reference.jacobian;
  const float ex = static_cast<float>(j[0][0] * d.m_by_offset[0] + j[0][1] * d.m_by_offset[1]),
              ey = static_cast<float>(j[1][0] * d.m_by_offset[0] + j[1][1] * d.m_by_offset[1]);
  const int stride = support.num_padded;
  for (int k = 0; k < stride; k += kLanes) {
    const VN q = Load(tmpl.gx + k) * ex + Load(tmpl.gy + k) * ey;
    Store(state->jacobian + k, q);
    Store(state->jacobian + stride + k, q * Load(tmpl.m1 + k));
    Store(state->jacobian + 2 * stride + k, q * Load(tmpl.m2 + k));
  }
  for (int p = 0; p < 3; ++p) TakeOutGainAndBias(tmpl.value, support, state->jacobian + p * stride);
  state->speed = sqrt(d.by_offset[0] * d.by_offset[0] + d.by_offset[1] * d.by_offset[1]);
  state->has_jacobian = true;
}

template <int kParams>
void AccumulateHessian(const float* jacobian, const SupportView& support, const Residual& residual,
                       double* h) {
  VN sum[kParams * (kParams + 1) / 2] = {};
  const int stride = support.num_padded;
  for (int k = 0; k < stride; k += kLanes) {
    const VN w = Load(residual.weight + k);
    for (int p = 0, i = 0; p < kParams; ++p) {
      const VN wj = w * Load(jacobian + p * stride + k);
      for (int q = 0; q <= p; ++q, ++i) sum[i] += wj * Load(jacobian + q * stride + k);
    }
  }
  for (int i = 0; i < kParams * (kParams + 1) / 2; ++i) h[i] = Sum(sum[i]);
}

// The sums over all views of one iteration.
struct PlaneEquations {
  double h[6], b[3];
  double correlation, speed;  // mean; largest
  int32_t num_views;
};

void Accumulate(const SurfaceView& reference, const SurfacePair& pair, const SupportView& support,
                const Plane& plane, bool update, ViewState* state, PlaneEquations* eq) {
  Homography g;
  Derivatives d;
  Cells cells;
  Residual residual;
  state->live = Induced(state->relative, plane, &g) && Differentiate(*pair.view, state->relative, g, &d) &&
                LocateOnPlane(state->samples, pair.patch, *pair.view, g, state->reference->m1,
                              state->reference->m2, support, 0, 0, &cells);
  if (!state->live) return;
  SampleValues(state->samples, cells, support, residual.value);
  state->live = CompareWith(state->reference->value, support, &residual) >= kFlat;
  if (!state->live || !(residual.correlation > kLeastCorrelation)) return;
  update = update || !state->has_jacobian;
  if (update) UpdateJacobian(reference, d, support, state);
  double b[3];
  AccumulateGradient<3>(state->jacobian, support.num_padded, support, &residual, b);
  if (update) AccumulateHessian<3>(state->jacobian, support, residual, state->h);
  const double weight = support.independent / (residual.variance + kVarianceFloor);
  for (int i = 0; i < 6; ++i) eq->h[i] += weight * state->h[i];
  for (int i = 0; i < 3; ++i) eq->b[i] += weight * b[i];
  eq->correlation += residual.correlation;
  eq->speed = fmax(eq->speed, state->speed);
  ++eq->num_views;
}

void Refine(const SurfaceView& reference, const SurfacePair* pairs, int64_t n, const SupportView& support,
            const SurfaceLimits& limits, char* scratch, SurfaceFit* fit) {
  Arena arena{scratch};
  ViewState* states = reinterpret_cast<ViewState*>(arena.Take(n * static_cast<int64_t>(sizeof(ViewState))));
  const Template* tmpl = nullptr;
  double reach = 0;  // of the support, in tangents
  const auto& j = reference.jacobian;
  const double focal = sqrt(fabs(j[0][0] * j[1][1] - j[0][1] * j[1][0]));
  fit->outcome = static_cast<int32_t>(Outcome::kOutside);
  fit->initial_correlation = fit->correlation = -1;
  fit->depth_deviation = NAN;
  fit->shift = fit->num_views = fit->iterations = 0;
  for (int64_t i = 0; i < n; ++i) {
    const SurfacePair& pair = pairs[i];
    if (pair.new_template)
      tmpl = MakeTemplate(reference, pair.reference_patch, pair.spacing, support, &arena);
    ViewState& state = states[i];
    state.reference = tmpl;
    float* buffer = arena.Floats(pair.patch.width * pair.patch.height + kSamplePadding);
    state.live = tmpl->outcome == Outcome::kConverged && Decode(pair.patch, buffer, &state.samples);
    state.has_jacobian = false;
    state.jacobian = arena.Floats(3 * support.num_padded);
    state.relative = Between(reference, *pair.view);
    reach = fmax(reach, support.radius * pair.spacing / focal);
  }
  if (tmpl != nullptr && tmpl->outcome == Outcome::kFlat) fit->outcome = static_cast<int32_t>(Outcome::kFlat);
  const double start = fit->plane.offset;
  double step = kMaxStep, inverse[6];
  for (bool last = false;; ++fit->iterations) {
    PlaneEquations eq = {};
    const bool update = last || step > kSettled;
    for (int64_t i = 0; i < n; ++i) {
      if (states[i].live) Accumulate(reference, pairs[i], support, fit->plane, update, &states[i], &eq);
    }
    fit->num_views = eq.num_views;
    if (eq.num_views == 0) return;
    fit->correlation = eq.correlation / eq.num_views;
    if (fit->iterations == 0) fit->initial_correlation = fit->correlation;
    fit->shift = fmax(fit->shift, fabs(fit->plane.offset - start) * eq.speed);
    for (int p = 0, i = 0; p < 3; ++p, i += p + 1) eq.h[i] *= 1 + kDamping;
    eq.h[2] += kSlopePrior;
    eq.h[5] += kSlopePrior;
    fit->outcome = static_cast<int32_t>(Outcome::kDiverged);
    if (!Invert(eq.h, inverse) || fit->shift > limits.max_shift) return;
    if (last) break;
    const double d[3] = {inverse[0] * eq.b[0] + inverse[1] * eq.b[1] + inverse[3] * eq.b[2],
                         inverse[1] * eq.b[0] + inverse[2] * eq.b[1] + inverse[4] * eq.b[2],
                         inverse[3] * eq.b[0] + inverse[4] * eq.b[1] + inverse[5] * eq.b[2]};
    step = fabs(d[0]) * eq.speed;
    const double scale = step > kMaxStep ? kMaxStep / step : 1;
    fit->plane.offset -= scale * d[0];
    fit->plane.slope_x -= scale * d[1];
    fit->plane.slope_y -= scale * d[2];
    if (!(fit->plane.offset > -.9)) return;
    const double tilt = (fabs(d[1]) + fabs(d[2])) * eq.speed * reach;
    last = (step < limits.step_tolerance && tilt < 5 * limits.step_tolerance) ||
           fit->iterations + 1 >= limits.max_iterations;
    step = fmax(step, tilt);
  }
  fit->depth_deviation = sqrt(inverse[0]) / (1 + fit->plane.offset);
  fit->outcome = static_cast<int32_t>(Outcome::kConverged);
}

// The shift of one view by Gauss-Newton, the warp held fixed.
Outcome MeasureShift(const SurfaceView& reference, const SurfacePair& pair, const Template& tmpl,
                     const SupportView& support, const SurfaceLimits& limits, const Plane& plane, Arena arena,
                     SurfaceShift* out) {
  if (tmpl.outcome != Outcome::kConverged) return tmpl.outcome;
  Homography g;
  Derivatives d;
  const Relative relative = Between(reference, *pair.view);
  if (!Induced(relative, plane, &g) || !Differentiate(*pair.view, relative, g, &d)) return Outcome::kOutside;
  out->x = d.x;
  out->y = d.y;
  Samples samples;
  if (!Decode(pair.patch, arena.Floats(pair.patch.width * pair.patch.height + kSamplePadding), &samples))
    return Outcome::kOutside;
  // Pixels of the view to pixels of the reference.
  const auto& j = reference.jacobian;
  const double det = d.by_m[0][0] * d.by_m[1][1] - d.by_m[0][1] * d.by_m[1][0];
  if (!(fabs(det) > 0)) return Outcome::kOutside;
  float back[2][2];
  for (int a = 0; a < 2; ++a) {
    back[a][0] = static_cast<float>((j[a][0] * d.by_m[1][1] - j[a][1] * d.by_m[1][0]) / det);
    back[a][1] = static_cast<float>((j[a][1] * d.by_m[0][0] - j[a][0] * d.by_m[0][1]) / det);
  }
  const int stride = support.num_padded;
  float* jacobian = arena.Floats(2 * stride);
  for (int k = 0; k < stride; k += kLanes) {
    const VN gx = Load(tmpl.gx + k), gy = Load(tmpl.gy + k);
    Store(jacobian + k, gx * back[0][0] + gy * back[1][0]);
    Store(jacobian + stride + k, gx * back[0][1] + gy * back[1][1]);
  }
  for (int p = 0; p < 2; ++p) TakeOutGainAndBias(tmpl.value, support, jacobian + p * stride);
  Cells cells;
  Residual residual;
  double h[3] = {}, b[2], h_det = 0, step = kMaxStep;
  for (bool last = false;; ++out->iterations) {
    if (!LocateOnPlane(samples, pair.patch, *pair.view, g, tmpl.m1, tmpl.m2, support, out->dx, out->dy,
                       &cells))
      return Outcome::kOutside;
    SampleValues(samples, cells, support, residual.value);
    if (CompareWith(tmpl.value, support, &residual) < kFlat) return Outcome::kFlat;
    out->correlation = residual.correlation;
    if (out->iterations == 0) out->initial_correlation = residual.correlation;
    if (!(residual.correlation > .1f)) return Outcome::kDiverged;
    AccumulateGradient<2>(jacobian, stride, support, &residual, b);
    if (last || step > kSettled) {
      AccumulateHessian<2>(jacobian, support, residual, h);
      h_det = h[0] * h[2] - h[1] * h[1];
      if (!(h_det > 1e-9 * (h[0] + h[2]) * (h[0] + h[2]))) return Outcome::kDiverged;
    }
    if (last) break;
    const double sx = (h[2] * b[0] - h[1] * b[1]) / h_det, sy = (h[0] * b[1] - h[1] * b[0]) / h_det;
    step = sqrt(sx * sx + sy * sy);
    const double scale = step > kMaxStep ? kMaxStep / step : 1;
    out->dx -= scale * sx;
    out->dy -= scale * sy;
    if (!(fabs(out->dx) + fabs(out->dy) < 2 * limits.max_shift)) return Outcome::kDiverged;
    last = step < limits.step_tolerance || out->iterations + 1 >= limits.max_iterations;
  }
  const double variance = residual.variance / (support.independent * h_det);
  out->cov_xx = variance * h[2];
  out->cov_xy = -variance * h[1];
  out->cov_yy = variance * h[0];
  return Outcome::kConverged;
}

void Measure(const SurfaceView& reference, const SurfacePair* pairs, int64_t n, const SupportView& support,
             const SurfaceLimits& limits, const Plane& plane, char* scratch, SurfaceShift* shifts) {
  Arena arena{scratch};
  const Template* tmpl = nullptr;
  for (int64_t i = 0; i < n; ++i) {
    if (pairs[i].new_template)
      tmpl = MakeTemplate(reference, pairs[i].reference_patch, pairs[i].spacing, support, &arena);
    shifts[i] = {NAN, NAN, 0, 0, -1, -1, NAN, NAN, NAN, 0, 0};
    // The arena by value: what a view takes is free again for the next one.
    const Outcome outcome =
        MeasureShift(reference, pairs[i], *tmpl, support, limits, plane, arena, &shifts[i]);
    shifts[i].outcome = static_cast<int32_t>(outcome);
  }
}

}  // namespace

extern const SurfaceKernel kSurfaceKernel;
const SurfaceKernel kSurfaceKernel = {ScratchSize, Refine, Measure};

}  // namespace pixcli::PIXCLI_ISA
