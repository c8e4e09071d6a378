// Inverse-compositional Gauss-Newton of a patch to a template on a local homography, invariant to gain and
// bias, with Huber weights.
#include "core/alignment_kernel.h"

#include <math.h>

#include "core/alignment_equations.h"

namespace pixcli::PIXCLI_ISA {
namespace {

Outcome MakeTemplate(const PatchView& patch, const SupportView& support, double x, double y, Template* out) {
  SampleBuffer buffer;
  Samples samples;
  const NodeMap map = MapOf(patch, {x, y, 1, 0, 0, 1, 0, 0}, out->spacing);
  if (!Decode(patch, buffer.data, &samples) || !Inside(map, support.radius, samples))
    return Outcome::kOutside;
  Cells cells;
  Locate(samples, map, support, &cells);
  SampleGradients(samples, cells, support, out->value, out->jacobian[0], out->jacobian[1]);
  out->deviation = Normalise(support, out->value);
  if (out->deviation < kFlat) return Outcome::kFlat;
  // By pixels of the root for the position, by nodes for the rest.
  const float scale = static_cast<float>(1 / (patch.pitch * out->deviation));
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN x_node = Load(support.x + k), y_node = Load(support.y + k);
    const VN a = Load(out->jacobian[0] + k) * scale, b = Load(out->jacobian[1] + k) * scale;
    const VN radial = -(a * x_node + b * y_node);
    const VN columns[kNumParams] = {a,          b,          a * x_node,      a * y_node,
                                    b * x_node, b * y_node, radial * x_node, radial * y_node};
    for (int p = 0; p < kNumParams; ++p) Store(out->jacobian[p] + k, columns[p]);
  }
  for (auto& column : out->jacobian) TakeOutGainAndBias(out->value, support, column);
  return Outcome::kConverged;
}

// Samples the patch at a warp and compares it with the template.
Outcome Evaluate(const Samples& samples, const PatchView& patch, const SupportView& support,
                 const Template& tmpl, const Warp& warp, Residual* residual) {
  const NodeMap map = MapOf(patch, warp, tmpl.spacing);
  if (!Inside(map, support.radius, samples)) return Outcome::kOutside;
  Cells cells;
  Locate(samples, map, support, &cells);
  SampleValues(samples, cells, support, residual->value);
  return CompareWith(tmpl.value, support, residual) < kFlat ? Outcome::kFlat : Outcome::kConverged;
}

// Newton's iterations from a->warp, whose residual is given. The correlation and covariance are those of the
// result.
Outcome Iterate(const Samples& samples, const PatchView& patch, const SupportView& support,
                const Template& tmpl, const AlignmentLimits& limits, Residual* residual, Alignment* a) {
  const double x0 = a->warp.x, y0 = a->warp.y, spacing = tmpl.spacing, unit = spacing * spacing;
  NormalEquations eq;
  double factor[kNumParams][kNumParams], shift = kMaxStep;
  for (bool last = false;; ++a->iterations) {
    if (a->iterations > 0) {
      const Outcome outcome = Evaluate(samples, patch, support, tmpl, a->warp, residual);
      if (outcome != Outcome::kConverged) return outcome;
    }
    a->correlation = residual->correlation;
    if (!(a->correlation > .1)) return Outcome::kDiverged;
    AccumulateGradient<kNumParams>(tmpl.jacobian[0], kMaxNodes, support, residual, eq.b);
    const double prior = PerspectivePrior(tmpl, support, residual->variance);
    // The Hessian changes with Huber's weights only, hardly any more once the steps are small.
    if (last || shift > kSettled) {
      AccumulateHessian(tmpl, support, *residual, &eq);
      eq.h[6][6] += prior;
      eq.h[7][7] += prior;
      if (limits.translation) Freeze(2, &eq);
      if (!Factor(eq.h, factor)) return Outcome::kDiverged;
    }
    if (last) break;
    eq.b[6] += prior * a->warp.h1 * unit;  // plus: the increment is composed inversely
    eq.b[7] += prior * a->warp.h2 * unit;
    if (limits.translation) {
      for (int p = 2; p < kNumParams; ++p) eq.b[p] = 0;
    }
    double d[kNumParams], warp_change;
    Solve(factor, eq.b, d);
    shift = Compose(d, spacing, &a->warp, &warp_change);
    if (!(fabs(a->warp.x - x0) < limits.max_excursion && fabs(a->warp.y - y0) < limits.max_excursion)) {
      return Outcome::kDiverged;
    }
    // One more evaluation after the last step, for its correlation and covariance.
    last = (shift < limits.step_tolerance && warp_change * spacing < 2.5 * limits.step_tolerance) ||
           a->iterations + 1 >= limits.max_iterations;
  }
  PositionCovariance(tmpl, support, *residual, limits.translation ? 2 : kNumParams, factor, a);
  return Outcome::kConverged;
}

void Align(const PatchView& patch, const SupportView& support, const Template& tmpl,
           const AlignmentLimits& limits, const Warp* starts, int num_starts, Alignment* a) {
  SampleBuffer buffer;
  Samples samples;
  Residual residuals[2];
  int best = 0;  // which of the two belongs to the best start so far
  Outcome outcome = Outcome::kOutside;
  *a = {starts[0], -1, -1, NAN, NAN, NAN, 0, 0};
  const int candidates = Decode(patch, buffer.data, &samples) ? num_starts : 0;
  for (int i = 0; i < candidates; ++i) {
    const Outcome evaluated = Evaluate(samples, patch, support, tmpl, starts[i], &residuals[1 - best]);
    if (outcome != Outcome::kConverged) outcome = evaluated;
    if (evaluated != Outcome::kConverged) continue;
    const float correlation = residuals[1 - best].correlation;
    if (i == 0) a->initial_correlation = correlation;
    if (correlation > a->correlation) {
      a->correlation = correlation;
      a->warp = starts[i];
      best = 1 - best;
    }
  }
  if (outcome == Outcome::kConverged) {
    outcome = Iterate(samples, patch, support, tmpl, limits, &residuals[best], a);
  }
  a->outcome = static_cast<int32_t>(outcome);
}

}  // namespace

extern const AlignmentKernel kAlignmentKernel;
const AlignmentKernel kAlignmentKernel = {MakeTemplate, Align};

}  // namespace pixcli::PIXCLI_ISA
