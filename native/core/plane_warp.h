// The warp between two views that a plane induces, for kernel sources only. See core/surface_kernel.h.
#pragma once

#include "core/surface_kernel.h"

namespace pixcli::PIXCLI_ISA {
namespace {

constexpr double kLeastDepth = .1;  // in a view, in units of that of the point

// The reference's local frame carried into a view's.
struct Relative {
  double r[3][2], t[3], ratio;  // q = r m + ratio e3 + t (offset + slope m), ratio: of the distances
};

inline Relative Between(const SurfaceView& reference, const SurfaceView& view) {
  Relative out;
  out.ratio = view.distance / reference.distance;
  for (int a = 0; a < 3; ++a) {
    double r[3];
    for (int b = 0; b < 3; ++b) {
      r[b] = view.rotation[a][0] * reference.rotation[b][0] + view.rotation[a][1] * reference.rotation[b][1] +
             view.rotation[a][2] * reference.rotation[b][2];
    }
    out.r[a][0] = r[0];
    out.r[a][1] = r[1];
    out.t[a] = (a == 2 ? out.ratio : 0) - r[2];
  }
  return out;
}

// The homography from tangents to tangents that a plane induces; its last element is 1.
struct Homography {
  double h[3][3];
  double depth;  // what it was divided by
};

inline bool Induced(const Relative& relative, const Plane& plane, Homography* out) {
  auto& h = out->h;
  for (int a = 0; a < 3; ++a) {
    h[a][0] = relative.r[a][0] + relative.t[a] * plane.slope_x;
    h[a][1] = relative.r[a][1] + relative.t[a] * plane.slope_y;
    h[a][2] = relative.t[a] * plane.offset + (a == 2 ? relative.ratio : 0);
  }
  out->depth = h[2][2];
  if (!(out->depth > kLeastDepth * relative.ratio)) return false;
  for (auto& row : h) {
    for (double& value : row) value /= out->depth;
  }
  return true;
}

// What happens at the plane's centre.
struct Derivatives {
  double x, y;            // where it is seen
  double m_by_offset[2];  // how far the plane's offset moves a view's content, in tangents of the reference
  double by_m[2][2];      // of the image position by the tangents of the reference
  double by_offset[2];    // of the image position
};

inline bool Differentiate(const SurfaceView& view, const Relative& relative, const Homography& g,
                          Derivatives* out) {
  const double n[2] = {g.h[0][2], g.h[1][2]};
  double p[2][2], n_by_m[2][2], n_by_offset[2];
  for (int a = 0; a < 2; ++a) {
    const double* c = view.curvature[a];
    p[a][0] = view.jacobian[a][0] + 2 * c[0] * n[0] + c[1] * n[1];
    p[a][1] = view.jacobian[a][1] + c[1] * n[0] + 2 * c[2] * n[1];
    (a == 0 ? out->x : out->y) = (a == 0 ? view.x : view.y) + view.jacobian[a][0] * n[0] +
                                 view.jacobian[a][1] * n[1] + c[0] * n[0] * n[0] + c[1] * n[0] * n[1] +
                                 c[2] * n[1] * n[1];
    for (int k = 0; k < 2; ++k) n_by_m[a][k] = g.h[a][k] - n[a] * g.h[2][k];
    n_by_offset[a] = (relative.t[a] - n[a] * relative.t[2]) / g.depth;
  }
  const double det = n_by_m[0][0] * n_by_m[1][1] - n_by_m[0][1] * n_by_m[1][0];
  if (!(det > 1e-6)) return false;  // seen edge on, or from behind
  out->m_by_offset[0] = (n_by_m[1][1] * n_by_offset[0] - n_by_m[0][1] * n_by_offset[1]) / det;
  out->m_by_offset[1] = (n_by_m[0][0] * n_by_offset[1] - n_by_m[1][0] * n_by_offset[0]) / det;
  for (int a = 0; a < 2; ++a) {
    for (int k = 0; k < 2; ++k) out->by_m[a][k] = p[a][0] * n_by_m[0][k] + p[a][1] * n_by_m[1][k];
    out->by_offset[a] = p[a][1] * n_by_offset[1] + p[a][0] * n_by_offset[0];
  }
  return true;
}

}  // namespace
}  // namespace pixcli::PIXCLI_ISA
