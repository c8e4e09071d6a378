// Residuals at the projection of a 3D point. The projection is COLMAP's own: a cost function with measurement
// 0 gives the pixel as its residual, with derivatives for every camera model, for rigs, and for whatever
// COLMAP adds. It has no state, so one object serves all observations of a camera model.
#pragma once

#include <ceres/cost_function.h>

#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

namespace pixcli {

// Where a patch lies in its image: u = x s_x - .5 - corner.
struct Placement {
  double corner[2], scale[2];

  double ToPatch(double x, int axis) const { return x * scale[axis] - .5 - corner[axis]; }
};

// The base of all costs here: projects, lets the derived class sample its patch there, and chains
// derivatives. A point that does not project (behind the camera), or outside of the patch, has the clamped
// value of the patch and a derivative of zero; so has one whose projection is not finite.
class ProjectionCost : public ceres::CostFunction {
 public:
  // wrap_width: the width of an image whose left and right border meet, else 0. COLMAP gives x in the half
  // turn around the measurement, here 0; the one nearest to the patch is meant.
  ProjectionCost(std::shared_ptr<ceres::CostFunction> projection, double wrap_width)
      : projection_(std::move(projection)), wrap_width_(wrap_width) {
    if (projection_->num_residuals() != 2)
      throw std::invalid_argument("a projection has two residuals, x and y");
    *mutable_parameter_block_sizes() = projection_->parameter_block_sizes();
  }

  bool Evaluate(double const* const* parameters, double* residuals, double** jacobians) const final {
    const std::vector<int32_t>& sizes = parameter_block_sizes();
    thread_local std::vector<double> buffer, slope;
    thread_local std::vector<double*> blocks;
    double xy[2];
    if (jacobians != nullptr) {
      size_t total = 0;
      for (const int32_t size : sizes) total += 2 * static_cast<size_t>(size);
      buffer.resize(total);
      blocks.assign(sizes.size(), nullptr);
      double* next = buffer.data();
      for (size_t b = 0; b < sizes.size(); next += 2 * sizes[b], ++b) {
        if (jacobians[b] != nullptr) blocks[b] = next;
      }
    }
    bool projected = projection_->Evaluate(parameters, xy, jacobians != nullptr ? blocks.data() : nullptr);
    projected = projected && std::isfinite(xy[0]) && std::isfinite(xy[1]);
    if (!projected) xy[0] = xy[1] = 0;
    const Placement& placement = this->placement();
    if (wrap_width_ > 0) {
      const double centre = (placement.corner[0] + .5 * patch_width()) / placement.scale[0];
      xy[0] += wrap_width_ * std::round((centre - xy[0]) / wrap_width_);
    }
    const int rows = num_residuals();
    slope.resize(2 * rows);
    Sample(placement.ToPatch(xy[0], 0), placement.ToPatch(xy[1], 1), residuals,
           jacobians != nullptr ? slope.data() : nullptr);
    if (jacobians == nullptr) return true;
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < 2; ++c) slope[2 * r + c] *= placement.scale[c];
    }
    for (size_t b = 0; b < sizes.size(); ++b) {
      if (jacobians[b] == nullptr) continue;
      Chain(slope.data(), blocks[b], projected, rows, sizes[b], jacobians[b]);
    }
    return true;
  }

 protected:
  // Residuals at sample coordinates u, v of the patch and, unless null, their (rows, 2) derivatives.
  virtual void Sample(double u, double v, double* residuals, double* slope) const = 0;
  virtual const Placement& placement() const = 0;
  virtual int patch_width() const = 0;  // samples

 private:
  // (rows, 2) times (2, size). Columns that the projection leaves not finite, as at a singular point, are
  // zero.
  static void Chain(const double* slope, const double* block, bool projected, int rows, int size,
                    double* out) {
    for (int c = 0; c < size; ++c) {
      const double x = block[c], y = block[size + c];
      const bool usable = projected && std::isfinite(x) && std::isfinite(y);
      for (int r = 0; r < rows; ++r) {
        out[r * size + c] = usable ? slope[2 * r] * x + slope[2 * r + 1] * y : 0;
      }
    }
  }

  std::shared_ptr<ceres::CostFunction> projection_;
  double wrap_width_;
};

}  // namespace pixcli
