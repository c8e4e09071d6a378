#include "costs/rigid_manifold.h"

#include <algorithm>
#include <cmath>

namespace pixcli {
namespace {

// p = a b, of quaternions x y z w.
void Multiply(const double* a, const double* b, double* p) {
  p[0] = a[3] * b[0] + a[0] * b[3] + a[1] * b[2] - a[2] * b[1];
  p[1] = a[3] * b[1] + a[1] * b[3] + a[2] * b[0] - a[0] * b[2];
  p[2] = a[3] * b[2] + a[2] * b[3] + a[0] * b[1] - a[1] * b[0];
  p[3] = a[3] * b[3] - a[0] * b[0] - a[1] * b[1] - a[2] * b[2];
}

// (4, 3): derivatives of exp(d) q at d = 0; its columns are orthonormal for a unit q.
void Slope(const double* q, double (&slope)[4][3]) {
  const double rows[4][3] = {
      {q[3], q[2], -q[1]}, {-q[2], q[3], q[0]}, {q[1], -q[0], q[3]}, {-q[0], -q[1], -q[2]}};
  std::copy_n(&rows[0][0], 12, &slope[0][0]);
}

}  // namespace

RigidManifold::RigidManifold(int constant_axis) {
  for (int axis = 0; axis < 3; ++axis) {
    if (axis != constant_axis) axes_.push_back(axis);
  }
}

bool RigidManifold::Plus(const double* x, const double* delta, double* x_plus_delta) const {
  const double norm = std::hypot(delta[0], delta[1], delta[2]);
  const double factor = norm > 0 ? std::sin(norm) / norm : 1;
  const double step[4] = {factor * delta[0], factor * delta[1], factor * delta[2], std::cos(norm)};
  double moved[7];
  Multiply(step, x, moved);
  std::copy_n(x + 4, 3, moved + 4);
  for (size_t k = 0; k < axes_.size(); ++k) moved[4 + axes_[k]] += delta[3 + k];
  std::copy_n(moved, 7, x_plus_delta);
  return true;
}

bool RigidManifold::PlusJacobian(const double* x, double* jacobian) const {
  const int m = TangentSize();
  std::fill_n(jacobian, 7 * m, 0.0);
  double slope[4][3];
  Slope(x, slope);
  for (int r = 0; r < 4; ++r) std::copy_n(slope[r], 3, jacobian + r * m);
  for (size_t k = 0; k < axes_.size(); ++k) jacobian[(4 + axes_[k]) * m + 3 + k] = 1;
  return true;
}

bool RigidManifold::Minus(const double* y, const double* x, double* y_minus_x) const {
  const double conjugate[4] = {-x[0], -x[1], -x[2], x[3]};
  double q[4];
  Multiply(y, conjugate, q);
  const double sine = std::hypot(q[0], q[1], q[2]);
  const double factor = sine > 0 ? std::atan2(sine, q[3]) / sine : 1;
  for (int c = 0; c < 3; ++c) y_minus_x[c] = factor * q[c];
  for (size_t k = 0; k < axes_.size(); ++k) y_minus_x[3 + k] = y[4 + axes_[k]] - x[4 + axes_[k]];
  return true;
}

bool RigidManifold::MinusJacobian(const double* x, double* jacobian) const {
  std::fill_n(jacobian, 7 * TangentSize(), 0.0);
  double slope[4][3];
  Slope(x, slope);
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 4; ++c) jacobian[r * 7 + c] = slope[c][r];
  }
  for (size_t k = 0; k < axes_.size(); ++k) jacobian[(3 + k) * 7 + 4 + axes_[k]] = 1;
  return true;
}

}  // namespace pixcli
