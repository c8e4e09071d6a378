// Featuremetric adjustment of one track: Levenberg-Marquardt on inner products.
#pragma once

#include <cstdint>
#include <vector>

#include "core/block_system.h"
#include "core/interpolation.h"
#include "core/loss.h"

namespace pixcli {

struct SolverOptions {
  Loss loss;
  double bound;  // pixels a keypoint may move along x and along y
  int max_iterations;
  double function_tolerance;   // relative decrease of the cost
  double gradient_tolerance;   // largest entry of the projected gradient
  double parameter_tolerance;  // largest step of a keypoint, pixels
  int64_t dense_limit;         // longer tracks solve their normal equations iteratively
};

enum class Termination : uint8_t { kConverged, kMaxIterations, kFailed };

struct SolverSummary {
  int32_t iterations = 0;
  Termination termination = Termination::kConverged;
  double cost = 0;  // 1/2 sum of weight * rho(‖f_i - f_j‖²)
};

// A patch around a keypoint: image coordinate x is at x * scale - 0.5 - corner in its samples.
struct PlacedPatch {
  const void* data;
  Vec2 scale, corner;
};

// The problem of one track at one level and its solver. Kept by a thread and reset for each track, so that
// its buffers are allocated once.
class TrackSolver {
 public:
  explicit TrackSolver(const SolverOptions& options) : options_(options) {}

  // Begins a track. Keypoints that are held stay at their position; the others stay within the bound of where
  // they were detected.
  void Reset(const std::vector<Vec2>& detected, const std::vector<Vec2>& position,
             const std::vector<Edge>& edges, const std::vector<uint8_t>& held);
  void SetLevel(const Sampling& sampling, const std::vector<PlacedPatch>& views);

  // Samples and linearises at the present positions; returns the cost.
  double Evaluate();
  // Minimises from where Evaluate was called.
  SolverSummary Solve();

  // Of the last evaluation:
  const std::vector<Vec2>& position() const { return position_; }
  const std::vector<double>& squares() const { return now_.squares; }  // ‖f_i - f_j‖² of each edge
  bool Finite(int32_t keypoint) const;
  // Derivatives' Gram matrix in pixels: xx, xy, yy.
  std::array<double, 3> PixelGram(int32_t keypoint) const;
  const float* rows(int32_t keypoint) const { return Rows(keypoint, now_); }
  bool AtBound(int32_t keypoint) const;

 private:
  struct State {
    float* rows;  // three for each keypoint
    std::vector<Gram> grams;
    std::vector<double> squares;
    BlockSystem system;
    double cost, rounding;  // what single precision may change the cost by
  };

  const float* Rows(int32_t keypoint, const State& state) const {
    return (held_[keypoint] ? held_rows_ : state.rows) + keypoint * 3 * stride_;
  }
  void SampleKeypoint(int32_t keypoint, const Vec2& at, float* rows, Gram* gram) const;
  void Linearize(const std::vector<Vec2>& at, State* state) const;
  double FindDamping(double radius);

  SolverOptions options_;
  Sampling sampling_{};
  int64_t stride_ = 0;
  std::vector<Vec2> detected_, position_, lower_, upper_;
  std::vector<Edge> edges_;
  std::vector<uint8_t> held_;
  std::vector<PlacedPatch> views_;
  std::vector<float> buffer_;
  float* held_rows_ = nullptr;
  State now_, next_;
  std::vector<Vec2> trial_, step_, damping_, product_;
};

}  // namespace pixcli
