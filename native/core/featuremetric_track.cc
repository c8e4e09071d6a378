#include "core/featuremetric_track.h"

#include <algorithm>
#include <cmath>

namespace pixcli {
namespace {

// Of a feature's values, relative to its norm.
constexpr double kRounding = 2e-7;

}  // namespace

void TrackSolver::Reset(const std::vector<Vec2>& detected, const std::vector<Vec2>& position,
                        const std::vector<Edge>& edges, const std::vector<uint8_t>& held) {
  detected_ = detected;
  position_ = position;
  edges_ = edges;
  held_ = held;
}

void TrackSolver::SetLevel(const Sampling& sampling, const std::vector<PlacedPatch>& views) {
  sampling_ = sampling;
  views_ = views;
  stride_ = RowStride(Dimension(sampling));
  const size_t nodes = detected_.size(), block = nodes * 3 * stride_;
  buffer_.resize(std::max(buffer_.size(), 3 * block + kRowAlignment));
  const auto misplaced = reinterpret_cast<uintptr_t>(buffer_.data()) / sizeof(float) % kRowAlignment;
  held_rows_ = buffer_.data() + (kRowAlignment - misplaced) % kRowAlignment;
  now_.rows = held_rows_ + block;
  next_.rows = now_.rows + block;

  // The box: within the bound, and no node leaves the patch, where derivatives would be lost.
  Vec2 first{}, last{};
  for (int32_t k = 0; k < sampling.num_nodes; ++k) {
    for (int c = 0; c < 2; ++c) {
      first[c] = std::min(first[c], sampling.nodes[2 * k + c]);
      last[c] = std::max(last[c], sampling.nodes[2 * k + c]);
    }
  }
  const Vec2 size = {sampling.width - 1.0, sampling.height - 1.0};
  lower_.resize(nodes), upper_.resize(nodes);
  for (size_t k = 0; k < nodes; ++k) {
    for (int c = 0; c < 2; ++c) {
      const double zero = (views[k].corner[c] + .5) / views[k].scale[c];  // where sample 0 lies in the image
      lower_[k][c] = std::max(detected_[k][c] - options_.bound, zero - first[c] / views[k].scale[c]);
      upper_[k][c] =
          std::min(detected_[k][c] + options_.bound, zero + (size[c] - last[c]) / views[k].scale[c]);
      if (!held_[k]) position_[k][c] = std::max(lower_[k][c], std::min(upper_[k][c], position_[k][c]));
    }
  }
}

void TrackSolver::SampleKeypoint(int32_t keypoint, const Vec2& at, float* rows, Gram* gram) const {
  const PlacedPatch& view = views_[keypoint];
  CurrentKernels().interpolation.sample(sampling_, view.data, at[0] * view.scale[0] - .5 - view.corner[0],
                                        at[1] * view.scale[1] - .5 - view.corner[1], rows);
  CurrentKernels().inner_products.gram(rows, Dimension(sampling_), gram);
}

// Every keypoint is sampled once; edges then need inner products alone.
void TrackSolver::Linearize(const std::vector<Vec2>& at, State* state) const {
  state->grams.resize(at.size());
  for (size_t k = 0; k < at.size(); ++k) {
    if (!held_[k])
      SampleKeypoint(static_cast<int32_t>(k), at[k], state->rows + k * 3 * stride_, &state->grams[k]);
  }
  BlockSystem& system = state->system;
  system.Reset(at.size(), edges_.size());
  state->squares.resize(edges_.size());
  state->cost = state->rounding = 0;
  const auto products_of = CurrentKernels().inner_products.edge_products;
  for (size_t e = 0; e < edges_.size(); ++e) {
    const auto [i, j, weight] = edges_[e];
    EdgeProducts p;
    products_of(Rows(i, *state), Rows(j, *state), Dimension(sampling_), &p);
    double derivative;
    state->squares[e] = p.dd;
    state->cost += .5 * weight * options_.loss(p.dd, &derivative);
    const double w = weight * derivative;
    state->rounding += kRounding * w * std::sqrt(p.dd * state->grams[i].ff);
    const Vec2 &si = views_[i].scale, &sj = views_[j].scale;
    system.gradient[i][0] += w * si[0] * p.d_ui;
    system.gradient[i][1] += w * si[1] * p.d_vi;
    system.gradient[j][0] -= w * sj[0] * p.d_uj;
    system.gradient[j][1] -= w * sj[1] * p.d_vj;
    system.coupling[e] = {-w * si[0] * sj[0] * p.uu, -w * si[0] * sj[1] * p.uv, -w * si[1] * sj[0] * p.vu,
                          -w * si[1] * sj[1] * p.vv};
    for (const int32_t k : {i, j}) {
      const Vec2& s = views_[k].scale;
      const Gram& g = state->grams[k];
      system.diagonal[k][0] += w * s[0] * s[0] * g.uu;
      system.diagonal[k][1] += w * s[0] * s[1] * g.uv;
      system.diagonal[k][2] += w * s[0] * s[1] * g.uv;
      system.diagonal[k][3] += w * s[1] * s[1] * g.vv;
    }
  }
}

double TrackSolver::Evaluate() {
  now_.grams.resize(position_.size());
  for (size_t k = 0; k < held_.size(); ++k) {
    if (held_[k])
      SampleKeypoint(static_cast<int32_t>(k), position_[k], held_rows_ + k * 3 * stride_, &now_.grams[k]);
  }
  next_.grams = now_.grams;
  Linearize(position_, &now_);
  return now_.cost;
}

// Damping of the free coordinates, zero for the held ones: those of held keypoints and those at a bound that
// the cost pushes outwards. Returns the largest entry of the gradient over the free ones.
double TrackSolver::FindDamping(double radius) {
  double largest = 0;
  damping_.assign(position_.size(), Vec2{});
  for (size_t k = 0; k < position_.size(); ++k) {
    if (held_[k]) continue;
    for (int c = 0; c < 2; ++c) {
      const double gradient = now_.system.gradient[k][c];
      if (position_[k][c] <= lower_[k][c] && gradient > 0) continue;
      if (position_[k][c] >= upper_[k][c] && gradient < 0) continue;
      largest = std::max(largest, std::abs(gradient));
      damping_[k][c] = std::max(now_.system.diagonal[k][3 * c], 1e-6) / radius;
    }
  }
  return largest;
}

SolverSummary TrackSolver::Solve() {
  constexpr double kMinRelativeDecrease = 1e-3;
  SolverSummary summary;
  summary.termination = Termination::kMaxIterations;
  double radius = 1e4, shrink = 2;
  while (summary.iterations < options_.max_iterations) {
    if (!(FindDamping(radius) > options_.gradient_tolerance)) {
      summary.termination = Termination::kConverged;
      break;
    }
    ++summary.iterations;
    const bool solved = now_.system.Solve(edges_, damping_, options_.dense_limit, &step_);
    double longest = 0, predicted = 0;
    if (solved) {
      trial_ = position_;
      for (size_t k = 0; k < step_.size(); ++k) {
        for (int c = 0; c < 2; ++c) {
          if (!(damping_[k][c] > 0)) continue;
          trial_[k][c] = std::max(lower_[k][c], std::min(upper_[k][c], position_[k][c] + step_[k][c]));
          step_[k][c] = trial_[k][c] - position_[k][c];
          longest = std::max(longest, std::abs(step_[k][c]));
        }
      }
      now_.system.Multiply(edges_, step_, &product_);
      for (size_t k = 0; k < step_.size(); ++k) {
        for (int c = 0; c < 2; ++c) {
          predicted -= step_[k][c] * (now_.system.gradient[k][c] + .5 * product_[k][c]);
        }
      }
      if (longest <= options_.parameter_tolerance) {
        summary.termination = Termination::kConverged;
        break;
      }
    }
    double decrease = 0, quality = 0;
    if (solved && predicted > 0) {
      Linearize(trial_, &next_);
      decrease = now_.cost - next_.cost;
      // Near the optimum the cost changes by less than its rounding, while the gradient still shows the way.
      const bool below_rounding = predicted < now_.rounding && std::abs(decrease) < now_.rounding;
      quality = below_rounding ? 1 : decrease / predicted;
    }
    if (quality > kMinRelativeDecrease) {
      std::swap(now_, next_);
      position_.swap(trial_);
      radius = std::min(1e16, radius / std::max(1.0 / 3, 1 - std::pow(2 * quality - 1, 3)));
      shrink = 2;
      // A tolerance of zero is none: in single precision a cost may stay the same long before the optimum.
      if (options_.function_tolerance > 0 && std::abs(decrease) <= options_.function_tolerance * next_.cost) {
        summary.termination = Termination::kConverged;
        break;
      }
    } else {
      radius /= shrink;
      shrink *= 2;
      if (radius < 1e-32) {
        summary.termination = Termination::kFailed;
        break;
      }
    }
  }
  summary.cost = now_.cost;
  return summary;
}

bool TrackSolver::Finite(int32_t keypoint) const {
  const Gram& g = now_.grams[keypoint];
  return std::isfinite(g.ff + g.uu + g.vv);
}

std::array<double, 3> TrackSolver::PixelGram(int32_t keypoint) const {
  const Gram& g = now_.grams[keypoint];
  const Vec2& s = views_[keypoint].scale;
  return {s[0] * s[0] * g.uu, s[0] * s[1] * g.uv, s[1] * s[1] * g.vv};
}

bool TrackSolver::AtBound(int32_t keypoint) const {
  constexpr double kEdge = 1e-6;  // pixels
  for (int c = 0; c < 2; ++c) {
    const double x = position_[keypoint][c];
    if (x <= lower_[keypoint][c] + kEdge || x >= upper_[keypoint][c] - kEdge) return true;
  }
  return false;
}

}  // namespace pixcli
