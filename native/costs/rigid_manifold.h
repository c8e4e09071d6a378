// The manifold of a rigid transformation, as COLMAP stores it: qx qy qz qw tx ty tz.
#pragma once

#include <ceres/manifold.h>

#include <vector>

namespace pixcli {

// The quaternion moves to exp(d) q, d being half the rotation vector, as with ceres::EigenQuaternionManifold.
// One axis of the translation may be held, which fixes the scale of a reconstruction.
class RigidManifold : public ceres::Manifold {
 public:
  explicit RigidManifold(int constant_axis);  // 0, 1, 2; -1 for none

  int AmbientSize() const override { return 7; }
  int TangentSize() const override { return 3 + static_cast<int>(axes_.size()); }
  bool Plus(const double* x, const double* delta, double* x_plus_delta) const override;
  bool PlusJacobian(const double* x, double* jacobian) const override;
  bool Minus(const double* y, const double* x, double* y_minus_x) const override;
  bool MinusJacobian(const double* x, double* jacobian) const override;

 private:
  std::vector<int> axes_;  // of the translation that vary
};

}  // namespace pixcli
