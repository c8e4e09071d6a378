// The featuremetric residual as Ceres sees it: one row for each channel and node, in double precision. It is
// the independent statement of what core/featuremetric minimises without ever forming a residual.
#pragma once

#include <ceres/cost_function.h>

#include <array>
#include <vector>

#include "core/interpolation.h"

namespace pixcli {

// One keypoint's patch; what it borrows must outlive it.
class SampledPatch {
 public:
  SampledPatch(const void* data, Storage storage, std::array<int64_t, 3> shape, std::array<double, 2> corner,
               std::array<double, 2> scale, const InterpolationOptions& options, const Kernels& kernels)
      : data_(data), options_(options), corner_(corner), scale_(scale), kernels_(kernels) {
    sampling_ = MakeSampling(options_, storage, shape[0], shape[1], shape[2]);
  }
  SampledPatch(const SampledPatch&) = delete;  // sampling_ points into options_

  int64_t dimension() const { return Dimension(sampling_); }

  // Rows of value and derivatives with respect to samples, see Sample.
  const double* Sample(const double* xy, std::vector<double>* rows) const {
    rows->resize(3 * RowStride(dimension()));
    SampleWith(kernels_, sampling_, data_, xy[0] * scale_[0] - .5 - corner_[0],
               xy[1] * scale_[1] - .5 - corner_[1], rows->data());
    return rows->data();
  }

  // (D, 2) derivatives with respect to image coordinates, times `sign`.
  void WriteJacobian(const double* rows, double sign, double* jacobian) const {
    const int64_t stride = RowStride(dimension());
    for (int64_t k = 0; k < dimension(); ++k) {
      for (int c = 0; c < 2; ++c) jacobian[2 * k + c] = sign * scale_[c] * rows[(c + 1) * stride + k];
    }
  }

 private:
  const void* data_;
  InterpolationOptions options_;
  std::array<double, 2> corner_, scale_;
  const Kernels& kernels_;
  Sampling sampling_;
};

// f_i(x_i) - f_j(x_j) over two keypoints.
class FeaturemetricEdgeCost : public ceres::CostFunction {
 public:
  FeaturemetricEdgeCost(std::unique_ptr<SampledPatch> i, std::unique_ptr<SampledPatch> j)
      : i_(std::move(i)), j_(std::move(j)) {
    set_num_residuals(static_cast<int>(i_->dimension()));
    *mutable_parameter_block_sizes() = {2, 2};
  }

  bool Evaluate(double const* const* parameters, double* residuals, double** jacobians) const override {
    thread_local std::vector<double> buffer_i, buffer_j;
    const double* fi = i_->Sample(parameters[0], &buffer_i);
    const double* fj = j_->Sample(parameters[1], &buffer_j);
    for (int k = 0; k < num_residuals(); ++k) residuals[k] = fi[k] - fj[k];
    if (jacobians == nullptr) return true;
    if (jacobians[0] != nullptr) i_->WriteJacobian(fi, 1, jacobians[0]);
    if (jacobians[1] != nullptr) j_->WriteJacobian(fj, -1, jacobians[1]);
    return true;
  }

 private:
  std::unique_ptr<SampledPatch> i_, j_;
};

// f(x) - reference over one keypoint.
class FeaturemetricReferenceCost : public ceres::CostFunction {
 public:
  FeaturemetricReferenceCost(std::unique_ptr<SampledPatch> patch, std::vector<double> reference)
      : patch_(std::move(patch)), reference_(std::move(reference)) {
    set_num_residuals(static_cast<int>(patch_->dimension()));
    *mutable_parameter_block_sizes() = {2};
  }

  bool Evaluate(double const* const* parameters, double* residuals, double** jacobians) const override {
    thread_local std::vector<double> buffer;
    const double* f = patch_->Sample(parameters[0], &buffer);
    for (int k = 0; k < num_residuals(); ++k) residuals[k] = f[k] - reference_[k];
    if (jacobians != nullptr && jacobians[0] != nullptr) patch_->WriteJacobian(f, 1, jacobians[0]);
    return true;
  }

 private:
  std::unique_ptr<SampledPatch> patch_;
  std::vector<double> reference_;
};

}  // namespace pixcli
