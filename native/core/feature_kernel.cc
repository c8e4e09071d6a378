// Inverse-compositional Gauss-Newton of feature maps to a template on a local affine map.
#include "core/feature_kernel.h"

#include "core/feature_residual.h"

namespace pixcli::PIXCLI_ISA {
namespace {

int64_t TemplateSize(const FeaturePatch& patch, const FeatureSupport& support) {
  return FeatureTemplateSize(patch, support.nodes);
}

int64_t WorkSize(const FeaturePatch& patch, const FeatureSupport& support) {
  return FeatureWorkSize(patch, support.nodes);
}

Outcome Make(const FeaturePatch& patch, const FeatureSupport& support, double x, double y, double spacing,
             char* memory) {
  Arena arena{memory};
  return MakeFeatureTemplate(patch, support, x, y, spacing, &arena)->outcome;
}

// What one view is sampled from.
struct Target {
  FeatureSamples samples;
  PatchView frame;
  FeatureWork work;
};

Outcome Evaluate(Target* target, const FeatureSupport& support, const FeatureTemplate& tmpl, const Warp& warp,
                 FeatureResidual* residual) {
  const NodeMap map = MapOf(target->frame, warp, tmpl.spacing);
  const Samples extent = target->samples.Extent();
  if (!Inside(map, support.nodes.radius, extent)) return Outcome::kOutside;
  Cells cells;
  Locate(extent, map, support.nodes, &cells);
  SampleFeatures(target->samples, cells, support.nodes.num_nodes, target->work.value);
  return CompareFeatures(tmpl, support, &target->work, residual) ? Outcome::kConverged : Outcome::kFlat;
}

Outcome Iterate(Target* target, const FeatureSupport& support, const FeatureTemplate& tmpl,
                const AlignmentLimits& limits, Alignment* a) {
  const double x0 = a->warp.x, y0 = a->warp.y;
  FeatureResidual residual;
  double translation_factor[kNumParams][kNumParams];
  const double (*factor)[kNumParams] = tmpl.factor;
  if (limits.translation) {
    if (!FactorFrozen(tmpl, 2, translation_factor)) return Outcome::kDiverged;
    factor = translation_factor;
  }
  for (bool last = false;; ++a->iterations) {
    const Outcome outcome = Evaluate(target, support, tmpl, a->warp, &residual);
    if (outcome != Outcome::kConverged) return outcome;
    a->correlation = residual.correlation;
    if (!(a->correlation > .1)) return Outcome::kDiverged;
    if (last) break;
    double b[kNumParams] = {}, d[kNumParams], warp_change;
    for (int p = 0; p < (limits.translation ? 2 : kNumAffine); ++p)
      b[p] = residual.gradient[p] / (residual.gain * residual.total);
    Solve(factor, b, d);
    const double shift = Compose(d, tmpl.spacing, &a->warp, &warp_change);
    if (!(fabs(a->warp.x - x0) < limits.max_excursion && fabs(a->warp.y - y0) < limits.max_excursion))
      return Outcome::kDiverged;
    // One more evaluation after the last step, for its correlation and covariance.
    last = (shift < limits.step_tolerance && warp_change * tmpl.spacing < 2.5 * limits.step_tolerance) ||
           a->iterations + 1 >= limits.max_iterations;
  }
  double c[3];
  FeatureCovariance(tmpl, support, residual, limits.translation ? 2 : kNumAffine, factor, &target->work, c);
  CarryCovariance(c[0], c[1], c[2], a);
  return Outcome::kConverged;
}

void Align(const FeaturePatch& patch, const FeatureSupport& support, const char* memory,
           const AlignmentLimits& limits, const Warp* starts, int num_starts, char* work, Alignment* a) {
  const FeatureTemplate& tmpl = *reinterpret_cast<const FeatureTemplate*>(memory);
  Arena arena{work};
  Target target;
  target.work = TakeWork(patch, support.nodes, &arena);
  target.frame = FrameOf(patch);
  *a = {starts[0], -1, -1, NAN, NAN, NAN, 0, 0};
  Outcome outcome = Outcome::kOutside;
  if (DecodeFeatures(patch, target.work.gains, target.work.decoded, &target.samples)) {
    FeatureResidual residual;
    for (int i = 0; i < num_starts; ++i) {
      const Outcome evaluated = Evaluate(&target, support, tmpl, starts[i], &residual);
      if (outcome != Outcome::kConverged) outcome = evaluated;
      if (evaluated != Outcome::kConverged) continue;
      if (i == 0) a->initial_correlation = residual.correlation;
      if (residual.correlation > a->correlation) {
        a->correlation = residual.correlation;
        a->warp = starts[i];
      }
    }
    if (outcome == Outcome::kConverged) outcome = Iterate(&target, support, tmpl, limits, a);
  }
  a->outcome = static_cast<int32_t>(outcome);
}

}  // namespace

extern const FeatureKernel kFeatureKernel;
const FeatureKernel kFeatureKernel = {TemplateSize, WorkSize, Make, Align};

}  // namespace pixcli::PIXCLI_ISA
