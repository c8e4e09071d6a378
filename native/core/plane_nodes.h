// The nodes of a support as tangents of a reference view, and where a plane carries them, for kernel sources
// only. See core/surface_kernel.h for the geometry.
#pragma once

#include "core/plane_warp.h"
#include "core/sampling.h"

namespace pixcli::PIXCLI_ISA {
namespace {

constexpr float kLeastZ = .1f;  // of a node, in units of the depth of the centre

// Nodes of a support by their tangents in the reference, located in a patch of a view that sees the plane
// moved by (dx, dy); false if one of them lies outside or behind.
inline bool LocateOnPlane(const Samples& s, const PatchView& patch, const SurfaceView& view,
                          const Homography& g, const float* m1_of, const float* m2_of,
                          const SupportView& support, double dx, double dy, Cells* cells) {
  const double scale = 1 / patch.pitch;
  float h[3][3], j[2][2], c[2][3];
  for (int a = 0; a < 3; ++a) {
    for (int b = 0; b < 3; ++b) h[a][b] = static_cast<float>(g.h[a][b]);
  }
  for (int a = 0; a < 2; ++a) {
    for (int b = 0; b < 2; ++b) j[a][b] = static_cast<float>(view.jacobian[a][b] * scale);
    for (int b = 0; b < 3; ++b) c[a][b] = static_cast<float>(view.curvature[a][b] * scale);
  }
  const float u0 = static_cast<float>((view.x + dx - patch.x0) * scale),
              v0 = static_cast<float>((view.y + dy - patch.y0) * scale);
  const VN low = Splat(1), high_u = Splat(LastOf(s.width)), high_v = Splat(LastOf(s.height));
  VNInt outside{};
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN m1 = Load(m1_of + k), m2 = Load(m2_of + k);
    const VN z = h[2][0] * m1 + h[2][1] * m2 + h[2][2], w = 1 / z;
    const VN n1 = (h[0][0] * m1 + h[0][1] * m2 + h[0][2]) * w,
             n2 = (h[1][0] * m1 + h[1][1] * m2 + h[1][2]) * w;
    const VN u = u0 + n1 * (j[0][0] + c[0][0] * n1 + c[0][1] * n2) + n2 * (j[0][1] + c[0][2] * n2);
    const VN v = v0 + n1 * (j[1][0] + c[1][0] * n1 + c[1][1] * n2) + n2 * (j[1][1] + c[1][2] * n2);
    const VNInt inside = (u >= low) & (v >= low) & (u < high_u) & (v < high_v) & (z > kLeastZ);
    outside |= ~inside;
    Place(u, v, s.width, k, cells);
  }
  for (int i = 0; i < kLanes; ++i) {
    if (outside[i]) return false;
  }
  return true;
}

// The tangents of the reference's nodes: the projection's fit inverted.
inline void NodeTangents(const SurfaceView& view, const SupportView& support, double spacing, float* m1_of,
                         float* m2_of) {
  const auto& j = view.jacobian;
  const double det = j[0][0] * j[1][1] - j[0][1] * j[1][0];
  const float i00 = static_cast<float>(j[1][1] / det), i01 = static_cast<float>(-j[0][1] / det),
              i10 = static_cast<float>(-j[1][0] / det), i11 = static_cast<float>(j[0][0] / det);
  float c[2][3];
  for (int a = 0; a < 2; ++a) {
    for (int b = 0; b < 3; ++b) c[a][b] = static_cast<float>(view.curvature[a][b]);
  }
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN x = Load(support.x + k) * static_cast<float>(spacing),
             y = Load(support.y + k) * static_cast<float>(spacing);
    VN m1 = i00 * x + i01 * y, m2 = i10 * x + i11 * y;
    for (int i = 0; i < 2; ++i) {
      const VN p = m1 * m1, q = m1 * m2, r = m2 * m2;
      const VN a = x - (c[0][0] * p + c[0][1] * q + c[0][2] * r),
               b = y - (c[1][0] * p + c[1][1] * q + c[1][2] * r);
      m1 = i00 * a + i01 * b;
      m2 = i10 * a + i11 * b;
    }
    Store(m1_of + k, m1);
    Store(m2_of + k, m2);
  }
}

}  // namespace
}  // namespace pixcli::PIXCLI_ISA
