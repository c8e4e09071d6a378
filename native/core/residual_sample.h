// How many independent values a featuremetric residual is worth, measured on some of them.
#pragma once

#include <cstdint>
#include <vector>

namespace pixcli {

// Residuals of every step-th track, each with the derivatives of one of its ends. Tracks may be added by
// several threads, each track by one.
class ResidualSample {
 public:
  ResidualSample(int64_t num_tracks, int64_t dimension);

  bool Wants(int64_t track) const { return track % step_ == 0; }
  // `rows` of a keypoint as Sample writes them, `other` the values at the other end of an edge.
  void Add(int64_t track, const float* rows, const float* other);

  // Channels are correlated, and noise prefers the directions in which features change: what counts for the
  // covariance of a position is the part of a residual that looks like a shift. After the fit a residual has
  // no such part left along its own derivatives, so it is measured along the derivatives of other tracks.
  // White noise gives the dimension itself, and so do too few tracks. At least 3.
  double EffectiveDimension() const;

 private:
  int64_t step_, dimension_;
  std::vector<float> values_;  // (tracks, 3, dimension): residual, derivatives along x and y
  std::vector<uint8_t> used_;
};

}  // namespace pixcli
