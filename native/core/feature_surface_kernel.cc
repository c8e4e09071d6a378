// Planes and shifts on feature maps. A plane's parameters move the nodes of the reference as affine maps of
// its pixels do, so that its normal equations are those of the affine map, reduced.
#include "core/feature_kernel.h"
#include "core/feature_residual.h"
#include "core/plane_solver.h"

namespace pixcli::PIXCLI_ISA {
namespace {

struct FeatureMaps {
  typedef FeaturePatch Patch;
  typedef FeatureSupport Support;
  typedef PlanePair<Patch> Pair;
  typedef FeatureResidual Residual;

  struct Reference {
    FeatureTemplate* nodes;
    float *m1, *m2;  // tangents of the nodes
    Outcome outcome;
  };

  struct View {
    const Reference* reference;
    FeatureSamples samples;
    FeatureWork work;
  };

  struct Shift {
    double factor[kNumParams][kNumParams];
    double gradient[2];
    Alignment carried;  // its warp leads from pixels of the reference to pixels of the view
  };

  static const SupportView& Nodes(const Support& support) { return support.nodes; }

  static int64_t ReferenceSize(const Patch& patch, const Support& support) {
    return Arena::Rounded(sizeof(Reference)) + FeatureTemplateSize(patch, support.nodes) +
           2 * Arena::Rounded(support.nodes.num_padded * static_cast<int64_t>(sizeof(float)));
  }
  static int64_t ViewSize(const Patch& patch, const Support& support) {
    return FeatureWorkSize(patch, support.nodes);
  }

  static const Reference* MakeReference(const SurfaceView& view, const Pair& pair, const Support& support,
                                        Arena* arena) {
    Reference* out = reinterpret_cast<Reference*>(arena->Take(sizeof(Reference)));
    out->nodes = MakeFeatureTemplate(pair.reference_patch, support, view.x, view.y, pair.spacing, arena);
    out->m1 = arena->Floats(support.nodes.num_padded);
    out->m2 = arena->Floats(support.nodes.num_padded);
    out->outcome = out->nodes->outcome;
    NodeTangents(view, support.nodes, pair.spacing, out->m1, out->m2);
    return out;
  }

  static bool OpenView(const Pair& pair, const Support& support, const Reference* reference, Arena* arena,
                       View* out) {
    out->reference = reference;
    out->work = TakeWork(pair.patch, support.nodes, arena);
    return DecodeFeatures(pair.patch, out->work.gains, out->work.decoded, &out->samples);
  }

  static Outcome Compare(const Pair& pair, const Support& support, const Homography& g, double dx, double dy,
                         View* view, Residual* residual) {
    Cells cells;
    const Reference& reference = *view->reference;
    if (!LocateOnPlane(view->samples.Extent(), FrameOf(pair.patch), *pair.view, g, reference.m1, reference.m2,
                       support.nodes, dx, dy, &cells))
      return Outcome::kOutside;
    SampleFeatures(view->samples, cells, support.nodes.num_nodes, view->work.value);
    return CompareFeatures(*reference.nodes, support, &view->work, residual) ? Outcome::kConverged
                                                                             : Outcome::kFlat;
  }

  // The affine parameters by those of the plane: how its offset and slopes move the nodes, in pixels of the
  // reference, by pixels and by nodes.
  static void AffineByPlane(const SurfaceView& reference, const Derivatives& d, double spacing,
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

  // The Hessian is the template's: there is nothing to update.
  static double AddToPlane(const SurfaceView& reference, const Derivatives& d, const Support& support, bool,
                           View* view, Residual* residual, PlaneEquations* eq) {
    double by_plane[kNumAffine][kNumPlane];
    const FeatureTemplate& tmpl = *view->reference->nodes;
    AffineByPlane(reference, d, tmpl.spacing, by_plane);
    const double weight = WeightOf(support.nodes, residual->variance);
    for (int p = 0, i = 0; p < kNumPlane; ++p) {
      for (int a = 0; a < kNumAffine; ++a) eq->b[p] += weight * by_plane[a][p] * residual->gradient[a];
      for (int q = 0; q <= p; ++q, ++i) {
        double sum = 0;
        for (int a = 0; a < kNumAffine; ++a) {
          for (int b = 0; b < kNumAffine; ++b) sum += by_plane[a][p] * tmpl.hessian[a][b] * by_plane[b][q];
        }
        eq->h[i] += weight * residual->total * residual->gain * sum;
      }
    }
    return sqrt(d.by_offset[0] * d.by_offset[0] + d.by_offset[1] * d.by_offset[1]);
  }

  static bool OpenShift(const SurfaceView& reference, const Derivatives& d, const Support&, const View& view,
                        Shift* shift) {
    const auto& j = reference.jacobian;
    const double det = j[0][0] * j[1][1] - j[0][1] * j[1][0];
    if (!(fabs(det) > 0)) return false;
    Warp& warp = shift->carried.warp;
    warp.a11 = (d.by_m[0][0] * j[1][1] - d.by_m[0][1] * j[1][0]) / det;
    warp.a12 = (d.by_m[0][1] * j[0][0] - d.by_m[0][0] * j[0][1]) / det;
    warp.a21 = (d.by_m[1][0] * j[1][1] - d.by_m[1][1] * j[1][0]) / det;
    warp.a22 = (d.by_m[1][1] * j[0][0] - d.by_m[1][0] * j[0][1]) / det;
    return FactorFrozen(*view.reference->nodes, 2, shift->factor);
  }

  static bool LinearizeShift(const Support&, bool, const View&, Residual* residual, Shift* shift) {
    for (int p = 0; p < 2; ++p)
      shift->gradient[p] = residual->gradient[p] / (residual->gain * residual->total);
    return true;
  }

  static void StepOfShift(const Shift& shift, double s[2]) {
    const double b[kNumParams] = {shift.gradient[0], shift.gradient[1]};
    double of_reference[kNumParams];
    Solve(shift.factor, b, of_reference);
    const Warp& a = shift.carried.warp;
    s[0] = a.a11 * of_reference[0] + a.a12 * of_reference[1];
    s[1] = a.a21 * of_reference[0] + a.a22 * of_reference[1];
  }

  static void Covariance(const Support& support, const Residual& residual, const Shift& shift, View* view,
                         SurfaceShift* out) {
    double c[3];
    FeatureCovariance(*view->reference->nodes, support, residual, 2, shift.factor, &view->work, c);
    Alignment carried = shift.carried;
    CarryCovariance(c[0], c[1], c[2], &carried);
    out->cov_xx = carried.cov_xx;
    out->cov_xy = carried.cov_xy;
    out->cov_yy = carried.cov_yy;
  }
};

}  // namespace

extern const FeatureSurfaceKernel kFeatureSurfaceKernel;
const FeatureSurfaceKernel kFeatureSurfaceKernel = PlaneSolver<FeatureMaps>::kKernel;

}  // namespace pixcli::PIXCLI_ISA
