#include "core/references.h"

#include <algorithm>
#include <cmath>

namespace pixcli {
namespace {

const void* PatchOf(const FeatureLevel& level, const Sampling& sampling, int64_t row) {
  return static_cast<const char*>(level.data) + row * PatchBytes(sampling);
}

double SquaredDistance(const double* a, const double* b, int64_t dimension) {
  double sum = 0;
  for (int64_t k = 0; k < dimension; ++k) sum += (a[k] - b[k]) * (a[k] - b[k]);
  return sum;
}

// Samples an observation; false if it does not count.
bool SampleObservation(const ReferenceProblem& problem, const Sampling& sampling, int64_t observation,
                       std::vector<double>* rows, double* features) {
  const FeatureLevel& level = problem.level;
  const int64_t row = level.rows[observation], dimension = Dimension(sampling);
  if (row < 0) return false;
  double uv[2];
  for (int c = 0; c < 2; ++c) {
    uv[c] = problem.xy[2 * observation + c] * level.scales[2 * row + c] - .5 - level.corners[2 * row + c];
    const double last = static_cast<double>(c == 0 ? level.width : level.height) - 1;
    if (!(uv[c] >= 0 && uv[c] <= last)) return false;
  }
  SampleWith(CurrentKernels(), sampling, PatchOf(level, sampling, row), uv[0], uv[1], rows->data());
  std::copy_n(rows->data(), dimension, features);
  return std::all_of(features, features + dimension, [](double f) { return std::isfinite(f); });
}

// The robust mean of `count` rows of features; returns the number of iterations.
int FindRobustMean(const std::vector<double>& features, int64_t count, int64_t dimension,
                   const ReferenceOptions& options, std::vector<double>* mean) {
  constexpr double kAtRest = 1e-12;  // of the squared length of the mean
  std::vector<double> next(dimension);
  mean->assign(dimension, 0);
  for (int iteration = 0;; ++iteration) {
    std::fill(next.begin(), next.end(), 0);
    double total = 0;
    for (int64_t i = 0; i < count; ++i) {
      const double* f = features.data() + i * dimension;
      double weight = 1;  // the plain mean comes first
      if (iteration > 0) options.loss(SquaredDistance(f, mean->data(), dimension), &weight);
      total += weight;
      for (int64_t k = 0; k < dimension; ++k) next[k] += weight * f[k];
    }
    if (!(total > 0)) return iteration;  // Tukey's loss, and all of them far away
    double length = 0;
    for (double& value : next) value /= total, length += value * value;
    const double moved = SquaredDistance(next.data(), mean->data(), dimension);
    mean->swap(next);
    if (iteration >= options.max_iterations || (iteration > 0 && moved <= kAtRest * length)) return iteration;
  }
}

}  // namespace

bool ComputeReferences(const ReferenceProblem& problem, const ReferenceOptions& options, const Poll& poll,
                       ReferenceResult* result) {
  const FeatureLevel& level = problem.level;
  const Sampling sampling =
      MakeSampling(options.interpolation, level.storage, level.height, level.width, level.channels);
  const int64_t dimension = Dimension(sampling);
  result->features.assign(problem.num_points * dimension, 0);
  result->nearest.assign(problem.num_points, -1);
  result->iterations.assign(problem.num_points, 0);
  result->counts.assign(problem.point_ptr[problem.num_points], 0);
  if (options.keep_observations) {
    result->observations.assign(problem.point_ptr[problem.num_points] * dimension, 0);
  }
  const auto solve = [&](int64_t begin, int64_t end, int) {
    std::vector<double> rows(3 * RowStride(dimension)), features, mean;
    std::vector<int64_t> members;
    for (int64_t p = begin; p < end; ++p) {
      const int64_t first = problem.point_ptr[p], last = problem.point_ptr[p + 1];
      features.resize((last - first) * dimension);
      members.clear();
      for (int64_t k = first; k < last; ++k) {
        double* place = features.data() + static_cast<int64_t>(members.size()) * dimension;
        if (!SampleObservation(problem, sampling, k, &rows, place)) continue;
        members.push_back(k);
        result->counts[k] = 1;
        if (!options.keep_observations) continue;
        std::copy_n(place, dimension, result->observations.data() + k * dimension);
      }
      const auto count = static_cast<int64_t>(members.size());
      if (count == 0) continue;
      result->iterations[p] = FindRobustMean(features, count, dimension, options, &mean);
      // Of two observations both are as near, and equal ones all are: rounding must not choose.
      constexpr double kRounding = 1e-9, kEqual = 1e-20;
      double square = 0;
      for (const double value : mean) square += value * value;
      int64_t nearest = 0;
      double least = SquaredDistance(features.data(), mean.data(), dimension);
      for (int64_t i = 1; i < count; ++i) {
        const double distance = SquaredDistance(features.data() + i * dimension, mean.data(), dimension);
        if (distance < least * (1 - kRounding) - kEqual * square) nearest = i, least = distance;
      }
      result->nearest[p] = members[nearest];
      std::copy_n(features.data() + nearest * dimension, dimension, result->features.data() + p * dimension);
    }
  };
  return ParallelFor(problem.num_points, 64, options.num_threads, poll, solve);
}

bool ComputeCostMaps(const FeatureLevel& level, int64_t num_observations, const int64_t* reference,
                     const float* references, const InterpolationOptions& interpolation, int num_threads,
                     const Poll& poll, float* maps) {
  const Sampling sampling =
      MakeSampling(interpolation, level.storage, level.height, level.width, level.channels);
  const int64_t dimension = Dimension(sampling), samples = level.height * level.width;
  const auto fill = [&](int64_t begin, int64_t end, int) {
    std::vector<double> rows(3 * RowStride(dimension)), target(PaddedDimension(dimension), 0);
    for (int64_t k = begin; k < end; ++k) {
      float* map = maps + 3 * samples * k;
      std::fill_n(map, 3 * samples, 0.f);
      if (reference[k] < 0 || level.rows[k] < 0) continue;
      std::copy_n(references + reference[k] * dimension, dimension, target.data());
      const void* patch = PatchOf(level, sampling, level.rows[k]);
      for (int64_t s = 0; s < samples; ++s) {
        SampleWith(CurrentKernels(), sampling, patch, static_cast<double>(s % level.width),
                   static_cast<double>(s / level.width), rows.data());
        const ResidualGram gram = ResidualGramWith(CurrentKernels(), rows.data(), target.data(), dimension);
        const double distance = std::sqrt(gram.rr), inverse = distance > 0 ? 1 / distance : 0;
        map[3 * s] = static_cast<float>(distance);
        map[3 * s + 1] = static_cast<float>(gram.ur * inverse);
        map[3 * s + 2] = static_cast<float>(gram.vr * inverse);
      }
    }
  };
  return ParallelFor(num_observations, 16, num_threads, poll, fill);
}

}  // namespace pixcli
