#include "core/featuremetric.h"

#include <cmath>
#include <limits>
#include <memory>
#include <numeric>

#include "core/residual_sample.h"

namespace pixcli {
namespace {

// Edges sorted by the track that holds both ends; others take no part.
struct TrackGraph {
  std::vector<int32_t> slot;  // of each keypoint: its place in its track, -1 in none
  std::vector<int64_t> ptr;   // of each track into `edge`
  std::vector<int64_t> edge;
};

TrackGraph GroupEdges(const FeaturemetricProblem& problem) {
  TrackGraph graph;
  std::vector<int32_t> track(problem.num_keypoints, -1);
  graph.slot.assign(problem.num_keypoints, -1);
  for (int64_t t = 0; t < problem.num_tracks; ++t) {
    for (int64_t p = problem.track_ptr[t]; p < problem.track_ptr[t + 1]; ++p) {
      track[problem.members[p]] = static_cast<int32_t>(t);
      graph.slot[problem.members[p]] = static_cast<int32_t>(p - problem.track_ptr[t]);
    }
  }
  const auto track_of = [&](int64_t e) {
    const int32_t a = track[problem.edges[2 * e]], b = track[problem.edges[2 * e + 1]];
    return a == b ? a : -1;
  };
  graph.ptr.assign(problem.num_tracks + 1, 0);
  for (int64_t e = 0; e < problem.num_edges; ++e) {
    if (track_of(e) >= 0) ++graph.ptr[track_of(e) + 1];
  }
  std::partial_sum(graph.ptr.begin(), graph.ptr.end(), graph.ptr.begin());
  graph.edge.resize(graph.ptr.back());
  std::vector<int64_t> next(graph.ptr.begin(), graph.ptr.end() - 1);
  for (int64_t e = 0; e < problem.num_edges; ++e) {
    if (track_of(e) >= 0) graph.edge[next[track_of(e)]++] = e;
  }
  return graph;
}

// First track of each portion of work: short tracks are taken together, so that threads rarely meet.
std::vector<int64_t> SplitWork(const FeaturemetricProblem& problem) {
  constexpr int64_t kMaxKeypoints = 64;
  std::vector<int64_t> first = {0};
  for (int64_t t = 1; t < problem.num_tracks; ++t) {
    if (problem.track_ptr[t + 1] - problem.track_ptr[first.back()] > kMaxKeypoints) first.push_back(t);
  }
  first.push_back(problem.num_tracks);
  return first;
}

// What the guard needs to know of a keypoint after its track was solved.
struct Assessment {
  double before, after;        // cost of its own edges
  double square;               // weighted mean of its edges' ‖f_i - f_j‖²
  std::array<double, 3> gram;  // derivatives, pixels
  bool at_bound;
};

struct Shared {
  const FeaturemetricProblem& problem;
  const FeaturemetricOptions& options;
  TrackGraph graph;
  std::vector<Sampling> samplings;  // of each level
  std::vector<Assessment> assessments;
  ResidualSample sample;
  FeaturemetricResult* result;
};

// The tracks of one thread.
class Worker {
 public:
  explicit Worker(Shared* shared)
      : s_(*shared),
        problem_(s_.problem),
        options_(s_.options),
        result_(*s_.result),
        solver_(options_.solver) {}

  void Solve(int64_t track);
  void Guard(int64_t track);

 private:
  Status InitialStatus(int32_t keypoint) const;
  void Build(int64_t track);
  void Start(bool detected);
  double EvaluateLevel(size_t level);
  void OwnCosts(double Assessment::* cost);
  void Assess();
  void Finish(int64_t track, const SolverSummary& summary);
  Status Judge(int32_t keypoint) const;
  bool Usable(int32_t keypoint) const {
    return result_.status[keypoint] != Status::kInvalid && result_.status[keypoint] != Status::kOutOfImage;
  }

  Shared& s_;
  const FeaturemetricProblem& problem_;
  const FeaturemetricOptions& options_;
  FeaturemetricResult& result_;
  TrackSolver solver_;
  std::vector<int32_t> keypoints_, local_, parent_;
  std::vector<Edge> edges_;
  std::vector<Vec2> detected_, position_;
  std::vector<uint8_t> held_;
  std::vector<PlacedPatch> views_;
};

Status Worker::InitialStatus(int32_t keypoint) const {
  const double *xy = problem_.xy + 2 * keypoint, *nodes = options_.interpolation.nodes.data();
  if (!std::isfinite(xy[0]) || !std::isfinite(xy[1])) return Status::kInvalid;
  for (const FeatureLevel& level : problem_.levels) {
    const int64_t row = level.rows[keypoint];
    if (row < 0) return Status::kInvalid;
    for (int c = 0; c < 2; ++c) {
      const double u = xy[c] * level.scales[2 * row + c] - .5 - level.corners[2 * row + c];
      const double last = static_cast<double>(c == 0 ? level.width : level.height) - 1;
      for (size_t k = c; k < options_.interpolation.nodes.size(); k += 2) {
        if (!(u + nodes[k] >= 0 && u + nodes[k] <= last)) return Status::kOutOfImage;
      }
    }
  }
  return Status::kMoved;
}

// Local arrays of the usable keypoints and their edges, and the status of every member. In each connected
// part the first keypoint is the root, which is never moved: nothing else would say where the part lies.
void Worker::Build(int64_t track) {
  const int64_t begin = problem_.track_ptr[track], end = problem_.track_ptr[track + 1];
  local_.assign(end - begin, -1);
  keypoints_.clear();
  for (int64_t p = begin; p < end; ++p) {
    if (!Usable(problem_.members[p])) continue;
    local_[p - begin] = static_cast<int32_t>(keypoints_.size());
    keypoints_.push_back(problem_.members[p]);
  }
  const auto n = static_cast<int32_t>(keypoints_.size());
  edges_.clear();
  std::vector<uint8_t> beside_root(n, 0);
  if (!options_.root_edges_only) {
    for (int64_t k = s_.graph.ptr[track]; k < s_.graph.ptr[track + 1]; ++k) {
      const int64_t e = s_.graph.edge[k];
      const int32_t i = local_[s_.graph.slot[problem_.edges[2 * e]]];
      const int32_t j = local_[s_.graph.slot[problem_.edges[2 * e + 1]]];
      const double weight = problem_.weights != nullptr ? problem_.weights[e] : 1;
      if (i < 0 || j < 0 || i == j || !(weight > 0)) continue;
      edges_.push_back({i, j, weight});
      if (i == 0 || j == 0) beside_root[std::max(i, j)] = 1;
    }
  }
  const double root_weight = options_.root_edges_only ? 1 : options_.root_regularize_weight;
  for (int32_t k = 1; k < n && root_weight > 0; ++k) {
    if (!beside_root[k]) edges_.push_back({0, k, root_weight});
  }

  parent_.resize(n);
  std::iota(parent_.begin(), parent_.end(), 0);
  const auto find = [&](int32_t k) {
    while (parent_[k] != k) k = parent_[k] = parent_[parent_[k]];
    return k;
  };
  for (const Edge& edge : edges_) {
    const int32_t a = find(edge.i), b = find(edge.j);
    parent_[std::max(a, b)] = std::min(a, b);
  }
  std::vector<int32_t> degree(n, 0);
  for (const Edge& edge : edges_) ++degree[edge.i], ++degree[edge.j];
  held_.assign(n, 0);
  for (int32_t k = 0; k < n; ++k) {
    Status& status = result_.status[keypoints_[k]];
    if (degree[k] == 0) {
      status = Status::kUnmatched;
    } else if (problem_.constant != nullptr && problem_.constant[keypoints_[k]]) {
      status = Status::kConstant;
    } else if (parent_[k] == k) {
      status = Status::kRoot;
    }
    held_[k] = status != Status::kMoved;
  }
}

void Worker::Start(bool detected) {
  detected_.clear(), position_.clear();
  for (const int32_t keypoint : keypoints_) {
    const double *from = problem_.xy + 2 * keypoint, *now = result_.xy.data() + 2 * keypoint;
    detected_.push_back({from[0], from[1]});
    position_.push_back(detected ? detected_.back() : Vec2{now[0], now[1]});
  }
  solver_.Reset(detected_, position_, edges_, held_);
}

double Worker::EvaluateLevel(size_t index) {
  const FeatureLevel& level = problem_.levels[index];
  const int64_t bytes = PatchBytes(s_.samplings[index]);
  views_.clear();
  for (const int32_t keypoint : keypoints_) {
    const int64_t row = level.rows[keypoint];
    views_.push_back(
        {static_cast<const char*>(level.data) + row * bytes,
         {level.scales[2 * row], level.scales[2 * row + 1]},
         {static_cast<double>(level.corners[2 * row]), static_cast<double>(level.corners[2 * row + 1])}});
  }
  solver_.SetLevel(s_.samplings[index], views_);
  return solver_.Evaluate();
}

void Worker::OwnCosts(double Assessment::* cost) {
  for (const int32_t keypoint : keypoints_) s_.assessments[keypoint].*cost = 0;
  for (size_t e = 0; e < edges_.size(); ++e) {
    double derivative;
    const double own = edges_[e].weight * options_.solver.loss(solver_.squares()[e], &derivative);
    s_.assessments[keypoints_[edges_[e].i]].*cost += own;
    s_.assessments[keypoints_[edges_[e].j]].*cost += own;
  }
}

void Worker::Assess() {
  OwnCosts(&Assessment::after);
  std::vector<double> sum(keypoints_.size(), 0), total(keypoints_.size(), 0);
  for (size_t e = 0; e < edges_.size(); ++e) {
    double derivative;
    options_.solver.loss(solver_.squares()[e], &derivative);
    for (const int32_t k : {edges_[e].i, edges_[e].j}) {
      sum[k] += edges_[e].weight * derivative * solver_.squares()[e];
      total[k] += edges_[e].weight * derivative;
    }
  }
  for (size_t k = 0; k < keypoints_.size(); ++k) {
    if (held_[k]) continue;
    Assessment& assessment = s_.assessments[keypoints_[k]];
    assessment.square = sum[k] / total[k];
    assessment.gram = solver_.PixelGram(static_cast<int32_t>(k));
    assessment.at_bound = solver_.AtBound(static_cast<int32_t>(k));
  }
}

void Worker::Finish(int64_t track, const SolverSummary& summary) {
  Assess();
  for (size_t k = 0; k < keypoints_.size(); ++k) {
    for (int c = 0; c < 2; ++c) result_.xy[2 * keypoints_[k] + c] = solver_.position()[k][c];
  }
  result_.cost_after[track] = summary.cost;
  result_.iterations[track] += summary.iterations;
  result_.termination[track] = summary.termination;
}

void Worker::Solve(int64_t track) {
  for (int64_t p = problem_.track_ptr[track]; p < problem_.track_ptr[track + 1]; ++p) {
    result_.status[problem_.members[p]] = InitialStatus(problem_.members[p]);
  }
  // Features that are not finite show when they are first sampled: their keypoint then leaves the track.
  double cost = 0;
  for (bool clean = false; !clean;) {
    clean = true;
    Build(track);
    if (edges_.empty()) return;
    Start(true);
    for (size_t level = 0; level < problem_.levels.size(); ++level) {
      cost = EvaluateLevel(level);
      for (size_t k = 0; k < keypoints_.size(); ++k) {
        if (solver_.Finite(static_cast<int32_t>(k))) continue;
        result_.status[keypoints_[k]] = Status::kInvalid;
        clean = false;
      }
    }
    if (!clean) {
      for (const int32_t keypoint : keypoints_) {
        if (Usable(keypoint)) result_.status[keypoint] = Status::kMoved;
      }
    }
  }
  result_.cost_before[track] = cost;
  OwnCosts(&Assessment::before);
  SolverSummary summary;
  for (size_t level = 0; level < problem_.levels.size(); ++level) {
    if (problem_.levels.size() > 1) EvaluateLevel(level);
    const int32_t before = summary.iterations;
    summary = solver_.Solve();
    summary.iterations += before;
  }
  Finish(track, summary);
  if (!s_.sample.Wants(track)) return;
  for (const Edge& edge : edges_) {
    const int32_t moved = held_[edge.i] ? edge.j : edge.i;
    if (held_[moved]) continue;
    s_.sample.Add(track, solver_.rows(moved), solver_.rows(edge.i + edge.j - moved));
    break;
  }
}

// Position covariance = variance of a residual's value * inverse Gram matrix. A keypoint's own derivatives
// count and not the inverse Hessian of its track: the noise of a keypoint's features is common to all its
// edges, so that more edges do not measure its position any better.
std::array<double, 3> Covariance(const Assessment& a, double effective_dimension) {
  const auto [xx, xy, yy] = a.gram;
  const double determinant = xx * yy - xy * xy;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  if (!(determinant > 1e-9 * xx * yy)) return {nan, nan, nan};
  const double factor = a.square / (effective_dimension - 2) / determinant;
  return {factor * yy, -factor * xy, factor * xx};
}

// Weak texture comes first: such a keypoint may run anywhere, its bound included.
Status Worker::Judge(int32_t keypoint) const {
  const Assessment& a = s_.assessments[keypoint];
  const auto [xx, xy, yy] = Covariance(a, result_.effective_dimension);
  const double largest = .5 * (xx + yy) + std::hypot(.5 * (xx - yy), xy);
  if (!(std::sqrt(largest) <= options_.max_deviation)) return Status::kWeakTexture;
  if (a.at_bound) return Status::kOutOfBound;
  return a.after <= a.before * (1 + 1e-6) ? Status::kMoved : Status::kWorseScore;
}

// Keypoints that fail go back to where they were detected and the rest of the track is solved anew around
// them, until all that still move pass.
void Worker::Guard(int64_t track) {
  constexpr int kMaxRounds = 10;
  for (int round = 0;; ++round) {
    bool failed = false;
    for (int64_t p = problem_.track_ptr[track]; p < problem_.track_ptr[track + 1]; ++p) {
      const int32_t keypoint = problem_.members[p];
      Status& status = result_.status[keypoint];
      if (status != Status::kMoved) continue;
      const Status verdict = round < kMaxRounds ? Judge(keypoint) : Status::kWorseScore;
      if (verdict == Status::kMoved) continue;
      status = verdict;
      failed = true;
      for (int c = 0; c < 2; ++c) result_.xy[2 * keypoint + c] = problem_.xy[2 * keypoint + c];
    }
    if (!failed) return;
    Build(track);
    Start(false);
    EvaluateLevel(problem_.levels.size() - 1);
    Finish(track, solver_.Solve());
  }
}

}  // namespace

bool AdjustFeaturemetric(const FeaturemetricProblem& problem, const FeaturemetricOptions& options,
                         const Poll& poll, FeaturemetricResult* result) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  result->xy.assign(problem.xy, problem.xy + 2 * problem.num_keypoints);
  result->status.assign(problem.num_keypoints, Status::kUnmatched);
  result->covariance.assign(3 * problem.num_keypoints, nan);
  result->iterations.assign(problem.num_tracks, 0);
  result->termination.assign(problem.num_tracks, Termination::kConverged);
  result->cost_before.assign(problem.num_tracks, 0);
  result->cost_after.assign(problem.num_tracks, 0);

  std::vector<Sampling> samplings;
  for (const FeatureLevel& level : problem.levels) {
    samplings.push_back(
        MakeSampling(options.interpolation, level.storage, level.height, level.width, level.channels));
  }
  Shared shared{problem,
                options,
                GroupEdges(problem),
                samplings,
                std::vector<Assessment>(problem.num_keypoints),
                ResidualSample(problem.num_tracks, Dimension(samplings.back())),
                result};

  const std::vector<int64_t> first = SplitWork(problem);
  const auto portions = static_cast<int64_t>(first.size()) - 1;
  std::vector<std::unique_ptr<Worker>> workers(ResolveNumThreads(options.num_threads));
  const auto run = [&](void (Worker::*method)(int64_t), const Poll& phase_poll) {
    return ParallelFor(portions, 1, options.num_threads, phase_poll,
                       [&](int64_t begin, int64_t end, int thread) {
                         if (!workers[thread]) workers[thread] = std::make_unique<Worker>(&shared);
                         for (int64_t t = first[begin]; t < first[end]; ++t)
                           (workers[thread].get()->*method)(t);
                       });
  };
  const Poll solve_poll = [&](int64_t done) { return !poll || poll(first[done]); };
  const Poll guard_poll = [&](int64_t) { return !poll || poll(problem.num_tracks); };
  if (!run(&Worker::Solve, solve_poll)) return false;
  result->effective_dimension = shared.sample.EffectiveDimension();
  if (options.guard && !run(&Worker::Guard, guard_poll)) return false;

  for (int64_t k = 0; k < problem.num_keypoints; ++k) {
    if (result->status[k] != Status::kMoved) continue;
    const auto covariance = Covariance(shared.assessments[k], result->effective_dimension);
    for (int c = 0; c < 3; ++c) result->covariance[3 * k + c] = static_cast<float>(covariance[c]);
  }
  return true;
}

}  // namespace pixcli
