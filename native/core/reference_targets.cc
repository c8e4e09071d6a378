#include "core/reference_targets.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace pixcli {
namespace {

// Evaluates keypoints one by one; its buffers are allocated once.
class Evaluator {
 public:
  Evaluator(const ReferenceTargets& targets, const InterpolationOptions& interpolation, const Loss& loss)
      : targets_(targets),
        interpolation_(interpolation),
        loss_(loss),
        sampling_(MakeSampling(interpolation_, targets.level.storage, targets.level.height,
                               targets.level.width, targets.level.channels)),
        nodes_(interpolation_.nodes),
        rows_(3 * RowStride(Dimension(sampling_))),
        reference_(PaddedDimension(Dimension(sampling_)), 0.f) {
    sampling_.nodes = nodes_.data();
  }
  Evaluator(const Evaluator&) = delete;

  bool HasTargets(int64_t keypoint) const {
    return targets_.level.rows[keypoint] >= 0 && targets_.ptr[keypoint] < targets_.ptr[keypoint + 1];
  }

  // Must be called before the following, which are about this keypoint.
  void Select(int64_t keypoint) {
    keypoint_ = keypoint;
    if (targets_.warps == nullptr) return;
    const double* warp = targets_.warps + 4 * keypoint;
    for (size_t k = 0; k < nodes_.size(); k += 2) {
      const double x = interpolation_.nodes[k], y = interpolation_.nodes[k + 1];
      nodes_[k] = warp[0] * x + warp[1] * y, nodes_[k + 1] = warp[2] * x + warp[3] * y;
    }
  }

  // The pixels along one axis from which all nodes lie inside the patch.
  std::array<double, 2> Range(int axis) const {
    double first = 0, last = 0;
    for (size_t k = axis; k < nodes_.size(); k += 2) {
      first = std::min(first, nodes_[k]), last = std::max(last, nodes_[k]);
    }
    const auto size = static_cast<double>(axis == 0 ? targets_.level.width : targets_.level.height);
    return {Pixel(axis, -first), Pixel(axis, size - 1 - last)};
  }

  TargetCost Evaluate(const double* xy) {
    const FeatureLevel& level = targets_.level;
    const int64_t row = level.rows[keypoint_], dimension = Dimension(sampling_);
    const double *scale = level.scales + 2 * row, nan = std::numeric_limits<double>::quiet_NaN();
    if (!std::isfinite(xy[0]) || !std::isfinite(xy[1])) return {nan, nan, nan, nan, nan, nan};
    SampleWith(CurrentKernels(), sampling_,
               static_cast<const char*>(level.data) + row * PatchBytes(sampling_),
               xy[0] * scale[0] - .5 - level.corners[2 * row],
               xy[1] * scale[1] - .5 - level.corners[2 * row + 1], rows_.data());
    TargetCost sum{};
    for (int64_t t = targets_.ptr[keypoint_]; t < targets_.ptr[keypoint_ + 1]; ++t) {
      std::copy_n(targets_.references + targets_.reference[t] * dimension, dimension, reference_.data());
      const ResidualGram gram =
          ResidualGramWith(CurrentKernels(), rows_.data(), reference_.data(), dimension);
      double weight;
      sum.cost += .5 * loss_(gram.rr, &weight);
      sum.x += weight * scale[0] * gram.ur;
      sum.y += weight * scale[1] * gram.vr;
      sum.xx += weight * scale[0] * scale[0] * gram.uu;
      sum.xy += weight * scale[0] * scale[1] * gram.uv;
      sum.yy += weight * scale[1] * scale[1] * gram.vv;
    }
    return sum;
  }

 private:
  double Pixel(int axis, double sample) const {
    const FeatureLevel& level = targets_.level;
    const int64_t row = level.rows[keypoint_];
    return (sample + level.corners[2 * row + axis] + .5) / level.scales[2 * row + axis];
  }

  const ReferenceTargets& targets_;
  InterpolationOptions interpolation_;
  Loss loss_;
  Sampling sampling_;
  std::vector<double> nodes_;
  std::vector<float> rows_, reference_;
  int64_t keypoint_ = 0;
};

struct Box {
  std::array<double, 2> lower, upper;

  double Clamp(int axis, double value) const { return std::max(lower[axis], std::min(upper[axis], value)); }
  // Whether the cost pushes outwards at a border.
  bool Holds(int axis, double value, double gradient) const {
    return (value <= lower[axis] && gradient > 0) || (value >= upper[axis] && gradient < 0);
  }
};

// The step of Levenberg-Marquardt along the axes that are not held.
std::array<double, 2> Step(const TargetCost& at, double damping, bool hold_x, bool hold_y) {
  constexpr double kTiny = 1e-30;
  const double xx = at.xx * (1 + damping) + kTiny, yy = at.yy * (1 + damping) + kTiny;
  if (hold_x && hold_y) return {0, 0};
  if (hold_x) return {0, -at.y / yy};
  if (hold_y) return {-at.x / xx, 0};
  const double determinant = std::max(xx * yy - at.xy * at.xy, 1e-12 * xx * yy);
  return {-(yy * at.x - at.xy * at.y) / determinant, -(xx * at.y - at.xy * at.x) / determinant};
}

TargetCost Minimize(Evaluator* evaluator, const TargetAlignmentOptions& options, const Box& box, double* xy) {
  constexpr double kLeastDamping = 1e-9, kLargestDamping = 1e9;
  TargetCost now = evaluator->Evaluate(xy);
  double damping = 1e-4;
  for (int iteration = 0; iteration < options.max_iterations && damping < kLargestDamping; ++iteration) {
    const auto step = Step(now, damping, box.Holds(0, xy[0], now.x), box.Holds(1, xy[1], now.y));
    const double trial[2] = {box.Clamp(0, xy[0] + step[0]), box.Clamp(1, xy[1] + step[1])};
    const double moved = std::max(std::abs(trial[0] - xy[0]), std::abs(trial[1] - xy[1]));
    if (!(moved > options.parameter_tolerance)) break;
    const TargetCost there = evaluator->Evaluate(trial);
    if (there.cost < now.cost) {
      std::copy_n(trial, 2, xy);
      now = there;
      damping = std::max(damping / 10, kLeastDamping);
    } else {
      damping *= 10;
    }
  }
  return now;
}

}  // namespace

void EvaluateTargets(const ReferenceTargets& targets, const InterpolationOptions& interpolation,
                     const Loss& loss, const double* xy, TargetCost* costs) {
  Evaluator evaluator(targets, interpolation, loss);
  for (int64_t k = 0; k < targets.num_keypoints; ++k) {
    evaluator.Select(k);
    costs[k] = evaluator.HasTargets(k) ? evaluator.Evaluate(xy + 2 * k) : TargetCost{};
  }
}

void AlignToTargets(const ReferenceTargets& targets, const TargetAlignmentOptions& options,
                    const double* detected, double* xy, TargetAlignment* results) {
  Evaluator evaluator(targets, options.interpolation, options.loss);
  for (int64_t k = 0; k < targets.num_keypoints; ++k) {
    results[k] = {TargetOutcome::kUnusable, 0, {}};
    if (!evaluator.HasTargets(k)) continue;
    evaluator.Select(k);
    Box box;
    bool usable = true;
    for (int c = 0; c < 2; ++c) {
      const auto [first, last] = evaluator.Range(c);
      usable = usable && detected[2 * k + c] >= first && detected[2 * k + c] <= last;
      box.lower[c] = std::max(first, detected[2 * k + c] - options.bound);
      box.upper[c] = std::min(last, detected[2 * k + c] + options.bound);
    }
    double start[2] = {box.Clamp(0, xy[2 * k]), box.Clamp(1, xy[2 * k + 1])};
    if (!usable || !std::isfinite(start[0]) || !std::isfinite(start[1])) continue;
    results[k].before = evaluator.Evaluate(start).cost;
    if (!std::isfinite(results[k].before)) continue;
    results[k].after = Minimize(&evaluator, options, box, start);
    bool at_bound = false;
    for (int c = 0; c < 2; ++c) {
      at_bound = at_bound || start[c] <= box.lower[c] || start[c] >= box.upper[c];
    }
    results[k].outcome = at_bound ? TargetOutcome::kAtBound : TargetOutcome::kAligned;
    std::copy_n(start, 2, xy + 2 * k);
  }
}

}  // namespace pixcli
