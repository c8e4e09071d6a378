// Featuremetric keypoint adjustment: all tracks, on all threads, with a guard on every keypoint.
#pragma once

#include <cstdint>
#include <vector>

#include "core/featuremetric_track.h"
#include "core/parallel.h"
#include "core/status.h"

namespace pixcli {

// Patches of one feature map around keypoints.
struct FeatureLevel {
  Storage storage;
  const void* data;  // (num_patches, height, width, channels)
  int64_t num_patches, height, width, channels;
  const int32_t* corners;  // (num_patches, 2) column, row of the first sample in the feature map
  const double* scales;    // (num_patches, 2) samples per pixel along x and y
  const int64_t* rows;     // (num_keypoints,) patch of each keypoint, -1 where it has none
};

struct FeaturemetricProblem {
  int64_t num_keypoints, num_tracks, num_edges;
  const double* xy;                  // (num_keypoints, 2)
  const int64_t* track_ptr;          // (num_tracks + 1,)
  const int32_t* members;            // keypoints of each track, its root first
  const int32_t* edges;              // (num_edges, 2)
  const double* weights;             // (num_edges,) or null for ones
  const uint8_t* constant;           // (num_keypoints,) or null
  std::vector<FeatureLevel> levels;  // coarse to fine
};

struct FeaturemetricOptions {
  InterpolationOptions interpolation;
  SolverOptions solver;
  bool root_edges_only;           // an edge of weight 1 from the root to every other member, and no other
  double root_regularize_weight;  // if positive, the weight of an edge to the root for members without one
  double max_deviation;           // pixels; a keypoint with a larger predicted deviation is not moved
  bool guard;                     // off: positions as solved, whatever they are
  int num_threads;
};

struct FeaturemetricResult {
  std::vector<double> xy;           // (num_keypoints, 2)
  std::vector<Status> status;       // (num_keypoints,)
  std::vector<float> covariance;    // (num_keypoints, 3): xx, xy, yy in square pixels; NaN unless moved
  std::vector<int32_t> iterations;  // (num_tracks,) like the rest
  std::vector<Termination> termination;
  std::vector<double> cost_before, cost_after;  // at the finest level
  // Independent values in a residual, of the channels times nodes that it has (see ResidualSample).
  double effective_dimension = 0;
};

// Returns false if the poll, which is told the number of tracks done, stopped it.
bool AdjustFeaturemetric(const FeaturemetricProblem& problem, const FeaturemetricOptions& options,
                         const Poll& poll, FeaturemetricResult* result);

}  // namespace pixcli
