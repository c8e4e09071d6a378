// f(projection of X) - reference: featuremetric bundle adjustment, and its maps of distances.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "core/interpolation.h"
#include "costs/patch_window.h"
#include "costs/projection_cost.h"

namespace pixcli {

// Exactly the same ‖r‖², Jᵀr and JᵀJ in three rows: the Cholesky factor of the Gram matrix of [u v r].
// residuals (3,), slope (3, 2) or null.
inline void Compress(const ResidualGram& gram, double* residuals, double* slope) {
  // Below this share of what it was, a pivot is rounding.
  constexpr double kRounding = 1e-14;
  const double l00 = std::sqrt(gram.uu), inverse0 = l00 > 0 ? 1 / l00 : 0;
  const double l10 = gram.uv * inverse0, r0 = gram.ur * inverse0;
  const double rest = gram.vv - l10 * l10;
  const double l11 = rest > kRounding * gram.vv ? std::sqrt(rest) : 0;
  const double r1 = l11 > 0 ? (gram.vr - l10 * r0) / l11 : 0;
  residuals[0] = r0, residuals[1] = r1;
  residuals[2] = std::sqrt(std::max(gram.rr - r0 * r0 - r1 * r1, 0.0));
  if (slope == nullptr) return;
  const double rows[6] = {l00, l10, 0, l11, 0, 0};
  std::copy_n(rows, 6, slope);
}

// The patches of observations and the references that they are compared with, shared by the costs of a
// problem. Patches are borrowed, `owner` keeps them; references (m, D) are copied. Of patches that are
// `mapped` from a file, nothing stays in memory but what costs sample.
class ReferencedPatches {
 public:
  ReferencedPatches(const void* data, Storage storage, std::array<int64_t, 4> shape,
                    std::vector<Placement> placements, std::vector<double> warps,
                    const InterpolationOptions& options, const float* references, int64_t num_references,
                    bool portable, bool mapped, std::shared_ptr<const void> owner)
      : options_(options),
        kernels_(portable ? PortableKernels() : CurrentKernels()),
        sampling_(MakeSampling(options_, storage, shape[1], shape[2], shape[3])),
        data_(static_cast<const char*>(data)),
        placements_(std::move(placements)),
        warps_(std::move(warps)),
        num_references_(num_references),
        windows_(options_.nodes == std::vector<double>{0, 0}),
        mapped_(mapped),
        owner_(std::move(owner)) {
    const int64_t dimension = Dimension(sampling_), padded = PaddedDimension(dimension);
    const auto copy = [&](auto* to) {
      to->assign(num_references * padded, 0);
      for (int64_t m = 0; m < num_references; ++m) {
        for (int64_t k = 0; k < dimension; ++k) {
          (*to)[m * padded + k] =
              static_cast<typename std::decay_t<decltype(*to)>::value_type>(references[m * dimension + k]);
        }
      }
    };
    double_precision() ? copy(&references_double_) : copy(&references_);
  }
  ReferencedPatches(const ReferencedPatches&) = delete;  // sampling_ points into options_

  int64_t size() const { return static_cast<int64_t>(placements_.size()); }
  int64_t num_references() const { return num_references_; }
  const Sampling& sampling() const { return sampling_; }
  const Kernels& kernels() const { return kernels_; }
  // Whether costs keep a window of their patch: they sample one node, at the projection itself.
  bool windows() const { return windows_; }
  bool mapped() const { return mapped_; }
  const Placement& placement(int64_t patch) const { return placements_[patch]; }
  const void* patch(int64_t patch) const { return data_ + patch * PatchBytes(sampling_); }
  // Doubles are sampled in double precision; half and float in single, which is exact to their own rounding.
  bool double_precision() const { return sampling_.storage == Storage::kDouble; }

  // How to sample a patch: its warp moves the nodes, whose places are written to `nodes`.
  Sampling sampling(int64_t patch, std::vector<double>* nodes) const {
    Sampling sampling = sampling_;
    if (warps_.empty()) return sampling;
    nodes->resize(options_.nodes.size());
    const double* warp = warps_.data() + 4 * patch;
    for (size_t k = 0; k < options_.nodes.size(); k += 2) {
      const double x = options_.nodes[k], y = options_.nodes[k + 1];
      (*nodes)[k] = warp[0] * x + warp[1] * y, (*nodes)[k + 1] = warp[2] * x + warp[3] * y;
    }
    sampling.nodes = nodes->data();
    return sampling;
  }

  template <class R>
  const R* reference(int64_t index) const {
    const int64_t offset = index * PaddedDimension(Dimension(sampling_));
    if constexpr (std::is_same_v<R, double>) {
      return references_double_.data() + offset;
    } else {
      return references_.data() + offset;
    }
  }

 private:
  InterpolationOptions options_;
  const Kernels& kernels_;
  Sampling sampling_;
  const char* data_;
  std::vector<Placement> placements_;
  std::vector<double> warps_;
  int64_t num_references_;
  bool windows_, mapped_;
  std::shared_ptr<const void> owner_;
  std::vector<float> references_;
  std::vector<double> references_double_;
};

// Parameters are those of the projection. Three rows, or one for each channel and node if not `compressed`:
// the oracle of the former.
class FeaturemetricProjectionCost : public ProjectionCost {
 public:
  FeaturemetricProjectionCost(std::shared_ptr<ceres::CostFunction> projection,
                              std::shared_ptr<const ReferencedPatches> patches, int64_t patch,
                              int64_t reference, double wrap_width, bool compressed)
      : ProjectionCost(std::move(projection), wrap_width),
        patches_(std::move(patches)),
        patch_(patch),
        reference_(reference),
        compressed_(compressed) {
    set_num_residuals(compressed ? 3 : static_cast<int>(Dimension(patches_->sampling())));
  }

 protected:
  void Sample(double u, double v, double* residuals, double* slope) const override {
    // Another thread is here only if this cost serves two residual blocks; it then does without what is kept.
    if (!compressed_ || busy_.test_and_set(std::memory_order_acquire)) {
      return SampleAnew(u, v, residuals, slope);
    }
    if (!(u == last_.u && v == last_.v)) {
      SampleAnew(u, v, last_.residuals, last_.slope, patches_->windows() ? &window_ : nullptr);
      last_.u = u, last_.v = v;
    }
    std::copy_n(last_.residuals, 3, residuals);
    if (slope != nullptr) std::copy_n(last_.slope, 6, slope);
    busy_.clear(std::memory_order_release);
  }
  const Placement& placement() const override { return patches_->placement(patch_); }
  int patch_width() const override { return patches_->sampling().width; }

 private:
  // A solver asks for the cost of a step and, once it is accepted, for derivatives at the same place: what
  // costs most is done once, for all of it.
  struct Last {
    double u = std::numeric_limits<double>::quiet_NaN(), v = 0;
    double residuals[3], slope[6];
  };

  void SampleAnew(double u, double v, double* residuals, double* slope, PatchWindow* window = nullptr) const {
    patches_->double_precision() ? SampleIn<double>(u, v, residuals, slope, window)
                                 : SampleIn<float>(u, v, residuals, slope, window);
  }

  template <class R>
  void SampleIn(double u, double v, double* residuals, double* slope, PatchWindow* window) const {
    thread_local std::vector<double> nodes;
    Sampling sampling = patches_->sampling(patch_, &nodes);
    const void* data = patches_->patch(patch_);
    if (window != nullptr && PatchWindow::Serves(sampling, u, v)) {
      window->MoveTo(sampling, data, patches_->mapped(), &u, &v);
      sampling = PatchWindow::Inside(sampling), data = window->data();
    }
    const int64_t dimension = Dimension(sampling), stride = RowStride(dimension);
    thread_local std::vector<R> rows;
    rows.resize(3 * stride);
    SampleWith(patches_->kernels(), sampling, data, u, v, rows.data());
    const R* reference = patches_->reference<R>(reference_);
    if (compressed_) {
      Compress(ResidualGramWith(patches_->kernels(), rows.data(), reference, dimension), residuals, slope);
      return;
    }
    for (int64_t k = 0; k < dimension; ++k) residuals[k] = static_cast<double>(rows[k] - reference[k]);
    if (slope == nullptr) return;
    for (int64_t k = 0; k < dimension; ++k) {
      for (int c = 0; c < 2; ++c) slope[2 * k + c] = static_cast<double>(rows[(c + 1) * stride + k]);
    }
  }

  std::shared_ptr<const ReferencedPatches> patches_;
  int64_t patch_, reference_;
  bool compressed_;
  mutable std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  mutable Last last_;
  mutable PatchWindow window_;
};

// Maps (n, height, width, 3) of the distance ‖f - reference‖ and its derivatives at the samples of patches,
// see core/references.h; `owner` keeps them.
struct CostMaps {
  std::shared_ptr<const void> owner;
  const float* data;
  int64_t height, width;
  std::vector<Placement> placements;
};

// The distance to the reference. Between samples, its square s is interpolated by bicubic Hermite
// polynomials, which is smooth where the distance has its tip. Three rows r with ‖r‖² = s and Jᵀr half its
// gradient g; JᵀJ is half its second derivative where that is positive, beyond the g gᵀ / 4s that the
// distance alone would give and with which a solver would crawl.
class CostMapProjectionCost : public ProjectionCost {
 public:
  CostMapProjectionCost(std::shared_ptr<ceres::CostFunction> projection, std::shared_ptr<const CostMaps> maps,
                        int64_t map, double wrap_width)
      : ProjectionCost(std::move(projection), wrap_width), maps_(std::move(maps)), map_(map) {
    set_num_residuals(3);
  }

 protected:
  void Sample(double u, double v, double* residuals, double* slope) const override {
    const Axis x(u, maps_->width), y(v, maps_->height);
    double s = 0, su = 0, sv = 0, suu = 0, suv = 0, svv = 0;
    for (int j = 0; j < 2; ++j) {
      // Along x: the interpolated square and its derivative along y, each with derivatives along x.
      double square[3] = {}, across[3] = {};
      for (int i = 0; i < 2; ++i) {
        const Corner at = CornerAt(x.first + i, y.first + j);
        for (int order = 0; order < 3; ++order) {
          square[order] += x.value[order][i] * at.s + x.tangent[order][i] * at.su;
          across[order] += x.value[order][i] * at.sv + x.tangent[order][i] * at.suv;
        }
      }
      s += y.value[0][j] * square[0] + y.tangent[0][j] * across[0];
      su += y.value[0][j] * square[1] + y.tangent[0][j] * across[1];
      sv += y.value[1][j] * square[0] + y.tangent[1][j] * across[0];
      suu += y.value[0][j] * square[2] + y.tangent[0][j] * across[2];
      suv += y.value[1][j] * square[1] + y.tangent[1][j] * across[1];
      svv += y.value[2][j] * square[0] + y.tangent[2][j] * across[0];
    }
    s = std::max(s, 0.0);
    const double inverse = s > 0 ? 1 / s : 0, gu = s > 0 ? .5 * su : 0, gv = s > 0 ? .5 * sv : 0;
    ResidualGram gram = {gu * gu * inverse, gu * gv * inverse, gv * gv * inverse, gu, gv, s};
    AddPositivePart(.5 * suu - gram.uu, .5 * suv - gram.uv, .5 * svv - gram.vv, &gram);
    Compress(gram, residuals, slope);
  }
  const Placement& placement() const override { return maps_->placements[map_]; }
  int patch_width() const override { return static_cast<int>(maps_->width); }

 private:
  // The squared distance at a sample and its derivatives, the mixed one from the differences of the others.
  struct Corner {
    double s, su, sv, suv;
  };
  Corner CornerAt(int64_t column, int64_t row) const {
    const int64_t left = std::max(column - 1, int64_t{0}), right = std::min(column + 1, maps_->width - 1);
    const int64_t top = std::max(row - 1, int64_t{0}), bottom = std::min(row + 1, maps_->height - 1);
    const double along_v =
        (Slope(column, bottom, 1) - Slope(column, top, 1)) / static_cast<double>(bottom - top);
    const double along_u = (Slope(right, row, 2) - Slope(left, row, 2)) / static_cast<double>(right - left);
    const float* at = At(column, row);
    return {static_cast<double>(at[0]) * at[0], Slope(column, row, 1), Slope(column, row, 2),
            .5 * (along_u + along_v)};
  }
  const float* At(int64_t column, int64_t row) const {
    return maps_->data + 3 * ((map_ * maps_->height + row) * maps_->width + column);
  }
  double Slope(int64_t column, int64_t row, int axis) const {
    const float* at = At(column, row);
    return 2.0 * at[0] * at[axis];
  }

  // Weights of value and derivative at the two samples around a coordinate, for the interpolated value and
  // its first and second derivative; beyond the border the value of the border.
  struct Axis {
    Axis(double t, int64_t size) {
      const double last = static_cast<double>(size - 1);
      const bool inside = t >= 0 && t <= last;
      const double clamped = inside ? t : (t > last ? last : 0);
      first = std::min(static_cast<int64_t>(clamped), size - 2);
      const double q = clamped - static_cast<double>(first), d = inside ? 1 : 0;
      const double rise[3] = {q * q * (3 - 2 * q), d * 6 * q * (1 - q), d * (6 - 12 * q)};
      const double left[3] = {q * (1 - q) * (1 - q), d * (1 - q) * (1 - 3 * q), d * (6 * q - 4)};
      const double right[3] = {q * q * (q - 1), d * q * (3 * q - 2), d * (6 * q - 2)};
      for (int order = 0; order < 3; ++order) {
        value[order][0] = (order == 0 ? 1 : 0) - rise[order], value[order][1] = rise[order];
        tangent[order][0] = left[order], tangent[order][1] = right[order];
      }
    }
    int64_t first;
    double value[3][2], tangent[3][2];
  };

  // Adds what is positive of the symmetric matrix [a b; b c].
  static void AddPositivePart(double a, double b, double c, ResidualGram* gram) {
    const double mean = .5 * (a + c), radius = std::hypot(.5 * (a - c), b);
    const double low = mean - radius, high = mean + radius;
    if (high <= 0) return;
    if (low >= 0) {
      gram->uu += a, gram->uv += b, gram->vv += c;
      return;
    }
    // high / (high - low) times the matrix less `low` on its diagonal: the part of the larger eigenvalue.
    const double factor = high / (2 * radius);
    gram->uu += factor * (a - low), gram->uv += factor * b, gram->vv += factor * (c - low);
  }

  std::shared_ptr<const CostMaps> maps_;
  int64_t map_;
};

}  // namespace pixcli
