// Robust losses with the definitions of Ceres: rho(s) of a squared norm s, with scale a.
#pragma once

#include <cmath>
#include <limits>

namespace pixcli {

enum class LossType { kTrivial, kCauchy, kHuber, kSoftL1, kArctan, kTukey };

// All of them are concave in s (rho'' <= 0). Ceres then weights residual and Jacobian by sqrt(rho'), and so
// do the normal equations here: the same steps.
struct Loss {
  LossType type;
  double scale;

  // Returns rho(s) and writes rho'(s).
  double operator()(double s, double* derivative) const {
    const double a = scale, b = scale * scale;
    switch (type) {
      case LossType::kTrivial: *derivative = 1; return s;
      case LossType::kCauchy: {
        const double q = s / b;
        *derivative = 1 / (1 + q);
        return b * (q > 1e-3 ? std::log(1 + q) : std::log1p(q));  // log is twice as fast
      }
      case LossType::kHuber:
        *derivative = s > b ? a / std::sqrt(s) : 1;
        return s > b ? 2 * a * std::sqrt(s) - b : s;
      case LossType::kSoftL1: {
        const double root = std::sqrt(1 + s / b);
        *derivative = 1 / root;
        return 2 * s / (1 + root);
      }
      case LossType::kArctan: *derivative = 1 / (1 + s * s / b); return a * std::atan2(s, a);
      case LossType::kTukey: {
        const double v = s > b ? 0 : 1 - s / b;
        *derivative = v * v;
        return b / 3 * (1 - v * v * v);
      }
    }
    *derivative = 0;
    return std::numeric_limits<double>::quiet_NaN();
  }
};

}  // namespace pixcli
