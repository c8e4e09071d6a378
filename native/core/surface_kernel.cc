// Planes and shifts on grey patches, whose residual is one value at each node.
#include "core/surface_kernel.h"

#include "core/plane_solver.h"

namespace pixcli::PIXCLI_ISA {
namespace {

struct GreyMaps {
  typedef PatchView Patch;
  typedef SupportView Support;
  typedef PlanePair<Patch> Pair;
  typedef pixcli::PIXCLI_ISA::Residual Residual;

  struct Reference {
    float *m1, *m2;          // tangents of the nodes
    float *value, *gx, *gy;  // zero-mean, unit-deviation samples and their gradients by pixels
    Outcome outcome;
  };

  struct View {
    const Reference* reference;
    Samples samples;
    float* jacobian;  // columns by the plane's parameters, or by x and y
    double h[6];      // lower triangle of their Hessian
    double speed;     // pixels by the plane's offset
    bool has_jacobian;
  };

  struct Shift {
    double h[3], determinant, b[2];
  };

  static const SupportView& Nodes(const Support& support) { return support; }

  static int64_t SamplesSize(const Patch& patch) {
    return Arena::Rounded((static_cast<int64_t>(patch.width) * patch.height + kSamplePadding) * 4);
  }
  static int64_t ReferenceSize(const Patch& patch, const Support& support) {
    return Arena::Rounded(sizeof(Reference)) + 5 * Arena::Rounded(support.num_padded * int64_t{4}) +
           SamplesSize(patch);
  }
  static int64_t ViewSize(const Patch& patch, const Support& support) {
    return SamplesSize(patch) + Arena::Rounded(kNumPlane * support.num_padded * int64_t{4});
  }

  static bool DecodeInto(Arena* arena, const Patch& patch, Samples* samples) {
    return Decode(patch, reinterpret_cast<float*>(arena->Take(SamplesSize(patch))), samples);
  }

  static const Reference* MakeReference(const SurfaceView& view, const Pair& pair, const Support& support,
                                        Arena* arena) {
    const Patch& patch = pair.reference_patch;
    Reference* out = reinterpret_cast<Reference*>(arena->Take(sizeof(Reference)));
    float** const columns[] = {&out->m1, &out->m2, &out->value, &out->gx, &out->gy};
    for (float** column : columns) *column = arena->Floats(support.num_padded);
    Samples samples;
    Cells cells;
    out->outcome = Outcome::kOutside;
    const NodeMap map = MapOf(patch, {view.x, view.y, 1, 0, 0, 1, 0, 0}, pair.spacing);
    if (!DecodeInto(arena, patch, &samples) || !Inside(map, support.radius, samples)) return out;
    NodeTangents(view, support, pair.spacing, out->m1, out->m2);
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

  static bool OpenView(const Pair& pair, const Support& support, const Reference* reference, Arena* arena,
                       View* out) {
    out->reference = reference;
    out->has_jacobian = false;
    const bool decoded = DecodeInto(arena, pair.patch, &out->samples);
    out->jacobian = arena->Floats(kNumPlane * support.num_padded);
    return decoded;
  }

  static Outcome Compare(const Pair& pair, const Support& support, const Homography& g, double dx, double dy,
                         View* view, Residual* residual) {
    Cells cells;
    const Reference& reference = *view->reference;
    if (!LocateOnPlane(view->samples, pair.patch, *pair.view, g, reference.m1, reference.m2, support, dx, dy,
                       &cells))
      return Outcome::kOutside;
    SampleValues(view->samples, cells, support, residual->value);
    return CompareWith(reference.value, support, residual) < kFlat ? Outcome::kFlat : Outcome::kConverged;
  }

  static void UpdateJacobian(const SurfaceView& reference, const Derivatives& d, const Support& support,
                             View* view) {
    const Reference& tmpl = *view->reference;
    const auto& j = reference.jacobian;
    const float ex = static_cast<float>(j[0][0] * d.m_by_offset[0] + j[0][1] * d.m_by_offset[1]),
                ey = static_cast<float>(j[1][0] * d.m_by_offset[0] + j[1][1] * d.m_by_offset[1]);
    const int stride = support.num_padded;
    for (int k = 0; k < stride; k += kLanes) {
      const VN q = Load(tmpl.gx + k) * ex + Load(tmpl.gy + k) * ey;
      Store(view->jacobian + k, q);
      Store(view->jacobian + stride + k, q * Load(tmpl.m1 + k));
      Store(view->jacobian + 2 * stride + k, q * Load(tmpl.m2 + k));
    }
    for (int p = 0; p < kNumPlane; ++p) TakeOutGainAndBias(tmpl.value, support, view->jacobian + p * stride);
    view->speed = sqrt(d.by_offset[0] * d.by_offset[0] + d.by_offset[1] * d.by_offset[1]);
    view->has_jacobian = true;
  }

  template <int kParams>
  static void AccumulateHessian(const float* jacobian, const Support& support, const Residual& residual,
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

  static double AddToPlane(const SurfaceView& reference, const Derivatives& d, const Support& support,
                           bool update, View* view, Residual* residual, PlaneEquations* eq) {
    update = update || !view->has_jacobian;
    if (update) UpdateJacobian(reference, d, support, view);
    double b[kNumPlane];
    AccumulateGradient<kNumPlane>(view->jacobian, support.num_padded, support, residual, b);
    if (update) AccumulateHessian<kNumPlane>(view->jacobian, support, *residual, view->h);
    const double weight = WeightOf(support, residual->variance);
    for (int i = 0; i < 6; ++i) eq->h[i] += weight * view->h[i];
    for (int i = 0; i < kNumPlane; ++i) eq->b[i] += weight * b[i];
    return view->speed;
  }

  static bool OpenShift(const SurfaceView& reference, const Derivatives& d, const Support& support,
                        const View& view, Shift*) {
    // Pixels of the view to pixels of the reference.
    const auto& j = reference.jacobian;
    const double det = d.by_m[0][0] * d.by_m[1][1] - d.by_m[0][1] * d.by_m[1][0];
    if (!(fabs(det) > 0)) return false;
    float back[2][2];
    for (int a = 0; a < 2; ++a) {
      back[a][0] = static_cast<float>((j[a][0] * d.by_m[1][1] - j[a][1] * d.by_m[1][0]) / det);
      back[a][1] = static_cast<float>((j[a][1] * d.by_m[0][0] - j[a][0] * d.by_m[0][1]) / det);
    }
    const Reference& tmpl = *view.reference;
    const int stride = support.num_padded;
    for (int k = 0; k < stride; k += kLanes) {
      const VN gx = Load(tmpl.gx + k), gy = Load(tmpl.gy + k);
      Store(view.jacobian + k, gx * back[0][0] + gy * back[1][0]);
      Store(view.jacobian + stride + k, gx * back[0][1] + gy * back[1][1]);
    }
    for (int p = 0; p < 2; ++p) TakeOutGainAndBias(tmpl.value, support, view.jacobian + p * stride);
    return true;
  }

  static bool LinearizeShift(const Support& support, bool update, const View& view, Residual* residual,
                             Shift* shift) {
    AccumulateGradient<2>(view.jacobian, support.num_padded, support, residual, shift->b);
    if (!update) return true;
    double* h = shift->h;
    AccumulateHessian<2>(view.jacobian, support, *residual, h);
    shift->determinant = h[0] * h[2] - h[1] * h[1];
    return shift->determinant > 1e-9 * (h[0] + h[2]) * (h[0] + h[2]);
  }

  static void StepOfShift(const Shift& shift, double s[2]) {
    const double *h = shift.h, *b = shift.b;
    s[0] = (h[2] * b[0] - h[1] * b[1]) / shift.determinant;
    s[1] = (h[0] * b[1] - h[1] * b[0]) / shift.determinant;
  }

  static void Covariance(const Support& support, const Residual& residual, const Shift& shift, View*,
                         SurfaceShift* out) {
    const double variance = residual.variance / (support.independent * shift.determinant);
    out->cov_xx = variance * shift.h[2];
    out->cov_xy = -variance * shift.h[1];
    out->cov_yy = variance * shift.h[0];
  }
};

}  // namespace

extern const SurfaceKernel kSurfaceKernel;
const SurfaceKernel kSurfaceKernel = PlaneSolver<GreyMaps>::kKernel;

}  // namespace pixcli::PIXCLI_ISA
