// The normal equations of an alignment, the covariance of the position and what a step does to a warp, for
// kernel sources only.
#pragma once

#include "core/sampling.h"

namespace pixcli::PIXCLI_ISA {
namespace {

typedef Vector<double, 2> V2;

constexpr double kMaxWarpStep = 0.3;

struct NormalEquations {
  double h[kNumParams][kNumParams];  // lower triangle
  double b[kNumParams];
};

// The rows `first` to `last` - 1 of the lower triangle; in several calls, so that the sums stay in registers.
template <int first, int last>
inline void AccumulateHessianRows(const Template& tmpl, const SupportView& support, const Residual& residual,
                                  NormalEquations* eq) {
  constexpr int kCount = (last * (last + 1) - first * (first + 1)) / 2;
  VN h[(kCount + 3) / 4 * 4] = {};
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN w = Load(residual.weight + k);
    for (int p = first, i = 0; p < last; ++p) {
      const VN wj = w * Load(tmpl.jacobian[p] + k);
      for (int q = 0; q <= p; ++q, ++i) h[i] += wj * Load(tmpl.jacobian[q] + k);
    }
  }
  float sums[(kCount + 3) / 4 * 4];
  for (int i = 0; i < kCount; i += 4) Store(sums + i, SumFour(h[i], h[i + 1], h[i + 2], h[i + 3]));
  for (int p = first, i = 0; p < last; ++p) {
    for (int q = 0; q <= p; ++q, ++i) eq->h[p][q] = sums[i];
  }
}

[[maybe_unused]] void AccumulateHessian(const Template& tmpl, const SupportView& support,
                                        const Residual& residual, NormalEquations* eq) {
  AccumulateHessianRows<0, 4>(tmpl, support, residual, eq);
  AccumulateHessianRows<4, 6>(tmpl, support, residual, eq);
  AccumulateHessianRows<6, 8>(tmpl, support, residual, eq);
}

// The weight of the prior of the perspective part, whose parameters are in units of h * spacing^2.
[[maybe_unused]] double PerspectivePrior(const Template& tmpl, const SupportView& support, double variance) {
  const double deviation = tmpl.perspective_deviation * tmpl.spacing * tmpl.spacing;
  return variance / (support.independent * deviation * deviation);
}

// Cholesky factor of a lower triangle, with the inverse of its diagonal; false if it is not positive
// definite.
bool Factor(const double h[kNumParams][kNumParams], double l[kNumParams][kNumParams]) {
  PIXCLI_UNROLL
  for (int i = 0; i < kNumParams; ++i) {
    for (int j = 0; j <= i; ++j) {
      double s = h[i][j];
      for (int k = 0; k < j; ++k) s -= l[i][k] * l[j][k];
      if (i != j) {
        l[i][j] = s * l[j][j];
      } else if (s > 1e-12 * h[i][i]) {
        l[i][i] = 1 / sqrt(s);
      } else {
        return false;
      }
    }
  }
  return true;
}

// Takes the parameters from `first` on out of the normal equations.
void Freeze(int first, NormalEquations* eq) {
  for (int p = first; p < kNumParams; ++p) {
    for (int q = 0; q < p; ++q) eq->h[p][q] = 0;
    eq->h[p][p] = 1;
  }
}

// For one right-hand side or, as a vector, for several.
template <class T>
void Solve(const double l[kNumParams][kNumParams], const T b[kNumParams], T x[kNumParams]) {
  PIXCLI_UNROLL
  for (int i = 0; i < kNumParams; ++i) {
    T s = b[i];
    for (int k = 0; k < i; ++k) s -= l[i][k] * x[k];
    x[i] = s * l[i][i];
  }
  PIXCLI_UNROLL
  for (int i = kNumParams - 1; i >= 0; --i) {
    T s = x[i];
    for (int k = i + 1; k < kNumParams; ++k) s -= l[k][i] * x[k];
    x[i] = s * l[i][i];
  }
}

// What noise of `variance` in the template's normalised samples adds to the Hessian, times x: gradients are
// noisy as well, by kGradientNoise times that (per node squared) in any direction.
constexpr double kGradientNoise = 1.4;
void MultiplyGradientNoise(const SupportView& support, double variance, double spacing,
                           const V2 x[kNumParams], V2 product[kNumParams]) {
  const double noise = kGradientNoise * variance / (spacing * spacing);
  const double first = noise * support.second_moment, second = noise * support.fourth_moment;
  for (int p = 0; p < 2; ++p) {
    product[p] = noise * x[p] - first * x[p + 6];
    product[p + 6] = second * x[p + 6] - first * x[p];
  }
  for (int p = 2; p < 6; ++p) product[p] = first * x[p];
}

// A field over the support's nodes, row by row with a border of zeros.
class NodeField {
 public:
  NodeField(const float* values, int side) : side_(side), stride_(side + 2) {
    Clear(-1, 2 * stride_ + 1);
    for (int r = 0; r < side; ++r) {
      float* row = At((r + 2) * stride_ + 1);
      for (int c = 0; c < side; c += kLanes) Store(row + c, LoadAs<VN>(values + r * side + c));
      row[side] = row[side + 1] = 0;
    }
    Clear((side + 2) * stride_, (side + 4) * stride_ + kLanes);
  }

  // One vector of the field, smoothed so that white noise would get the correlation of the spline's samples a
  // step apart, wherever nodes fall between them: .49, two steps apart .05, at a variance of 1.
  VN Smoothed(int k) const {
    return (Row(k - stride_) + kMiddle * Row(k) + Row(k + stride_)) * (1 / (2 + kMiddle * kMiddle));
  }
  int begin() const { return stride_; }  // of what smoothing leaves other than zero
  int end() const { return (side_ + 3) * stride_; }

 private:
  static constexpr int kMaxSide = 31;
  static constexpr float kMiddle = 3.64f;
  VN Row(int k) const { return LoadAs<VN>(At(k - 1)) + kMiddle * LoadAs<VN>(At(k)) + LoadAs<VN>(At(k + 1)); }
  void Clear(int begin, int end) {
    for (int k = begin; k < end; ++k) *At(k) = 0;
  }
  float* At(int k) { return data_ + 1 + k; }
  const float* At(int k) const { return data_ + 1 + k; }

  int side_, stride_;
  float data_[(kMaxSide + 4) * (kMaxSide + 2) + 3 * kLanes];
};

// Stores a covariance in the template's image as one in the image that the warp leads to.
inline void CarryCovariance(double p, double q, double r, Alignment* a) {
  const Warp& w = a->warp;
  a->cov_xx = w.a11 * w.a11 * p + 2 * w.a11 * w.a12 * q + w.a12 * w.a12 * r;
  a->cov_xy = w.a11 * w.a21 * p + (w.a11 * w.a22 + w.a12 * w.a21) * q + w.a12 * w.a22 * r;
  a->cov_yy = w.a21 * w.a21 * p + 2 * w.a21 * w.a22 * q + w.a22 * w.a22 * r;
}

// The covariance of the position: noise of the residual's variance, half of it the template's, carried
// through the solution. Neighbouring nodes share samples, which correlates their noise.
[[maybe_unused]] void PositionCovariance(const Template& tmpl, const SupportView& support,
                                         const Residual& residual, int num_free,
                                         const double l[kNumParams][kNumParams], Alignment* a) {
  // Each parameter, gain and bias among them, has taken an independent sample out of the residual, of which
  // the correlation leaves about two thirds; the perspective is held by its prior.
  const double fitted = 1.5 * ((num_free < 6 ? num_free : 6) + 2);
  const double variance = residual.variance / fmax(1 - fitted / support.independent, .25);
  // Two rows of the inverse Hessian, from which the noise is taken out to first order: beyond, what disagrees
  // for other reasons would be taken for noise.
  V2 rows[kNumParams], noise[kNumParams];
  const V2 unit[kNumParams] = {{1, 0}, {0, 1}};
  Solve(l, unit, rows);
  MultiplyGradientNoise(support, variance / 2, tmpl.spacing, rows, noise);
  for (int p = 0; p < kNumParams; ++p) noise[p] = (p < num_free ? noise[p] : V2{}) + unit[p];
  Solve(l, noise, rows);
  alignas(64) float influence[2][kMaxNodes + kLanes];  // of each node on the position
  for (int k = 0; k < support.num_padded; k += kLanes) {
    VN x{}, y{};
    for (int p = 0; p < kNumParams; ++p) {
      const VN j = Load(tmpl.jacobian[p] + k);
      x += static_cast<float>(rows[p][0]) * j;
      y += static_cast<float>(rows[p][1]) * j;
    }
    const VN w = Load(residual.weight + k);
    Store(influence[0] + k, w * x);
    Store(influence[1] + k, w * y);
  }
  const int side = 2 * static_cast<int>(support.radius) + 1;
  const NodeField on_x(influence[0], side), on_y(influence[1], side);
  VN xx{}, xy{}, yy{};
  for (int k = on_x.begin(); k < on_x.end(); k += kLanes) {
    const VN x = on_x.Smoothed(k), y = on_y.Smoothed(k);
    xx += x * x;
    xy += x * y;
    yy += y * y;
  }
  CarryCovariance(variance * Sum(xx), variance * Sum(xy), variance * Sum(yy), a);
}

// Composes the warp with the inverse of the increment d, limited to a trust region. Returns the shift in
// image pixels and stores the largest change of the linear map.
[[maybe_unused]] double Compose(const double d[kNumParams], double spacing, Warp* a, double* warp_change) {
  double largest = 0;
  for (int p = 2; p < 6; ++p) largest = fmax(largest, fabs(d[p]) / spacing);
  const double length = sqrt(d[0] * d[0] + d[1] * d[1]);
  const double k =
      fmin(length > kMaxStep ? kMaxStep / length : 1, largest > kMaxWarpStep ? kMaxWarpStep / largest : 1);
  const double s = k / spacing, t = s / spacing;
  // The increment as a homography of template pixels, and its adjugate, which is its inverse up to scale.
  const double e[3][3] = {
      {1 + s * d[2], s * d[3], k * d[0]}, {s * d[4], 1 + s * d[5], k * d[1]}, {t * d[6], t * d[7], 1}};
  double inverse[3][3];
  for (int i = 0; i < 3; ++i) {
    const int i1 = (i + 1) % 3, i2 = (i + 2) % 3;
    for (int j = 0; j < 3; ++j) {
      const int j1 = (j + 1) % 3, j2 = (j + 2) % 3;
      inverse[j][i] = e[i1][j1] * e[i2][j2] - e[i1][j2] * e[i2][j1];
    }
  }
  const double w[3][3] = {{a->a11, a->a12, 0}, {a->a21, a->a22, 0}, {a->h1, a->h2, 1}};  // about (x, y)
  double n[3][3];
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j)
      n[i][j] = w[i][0] * inverse[0][j] + w[i][1] * inverse[1][j] + w[i][2] * inverse[2][j];
  }
  const double scale = 1 / n[2][2];
  for (auto& row : n) {
    for (double& value : row) value *= scale;
  }
  const double mx = n[0][2], my = n[1][2];
  a->x += mx;
  a->y += my;
  a->h1 = n[2][0], a->h2 = n[2][1];
  a->a11 = n[0][0] - mx * n[2][0], a->a12 = n[0][1] - mx * n[2][1];
  a->a21 = n[1][0] - my * n[2][0], a->a22 = n[1][1] - my * n[2][1];
  *warp_change = k * largest;
  return sqrt(mx * mx + my * my);
}

}  // namespace
}  // namespace pixcli::PIXCLI_ISA
