#include "core/residual_sample.h"

#include <algorithm>

#include "core/interpolation_kernel.h"

namespace pixcli {
namespace {

constexpr int64_t kMaxTracks = 64;
constexpr size_t kMinTracks = 8, kPairsPerTrack = 8;

double Dot(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t k = 0; k < n; ++k) sum += a[k] * b[k];
  return sum;
}

}  // namespace

ResidualSample::ResidualSample(int64_t num_tracks, int64_t dimension)
    : step_(std::max<int64_t>((num_tracks + kMaxTracks - 1) / kMaxTracks, 1)), dimension_(dimension) {
  used_.assign((num_tracks + step_ - 1) / step_, 0);
  values_.resize(used_.size() * 3 * dimension);
}

void ResidualSample::Add(int64_t track, const float* rows, const float* other) {
  float* out = &values_[track / step_ * 3 * dimension_];
  const int64_t stride = RowStride(dimension_);
  for (int64_t k = 0; k < dimension_; ++k) {
    out[k] = rows[k] - other[k];
    out[dimension_ + k] = rows[stride + k];
    out[2 * dimension_ + k] = rows[2 * stride + k];
  }
  used_[track / step_] = 1;
}

double ResidualSample::EffectiveDimension() const {
  const int64_t n = dimension_;
  std::vector<size_t> tracks;
  for (size_t t = 0; t < used_.size(); ++t) {
    if (used_[t]) tracks.push_back(t);
  }
  double part = 0;
  int64_t pairs = 0;
  for (size_t i = 0; i < tracks.size(); ++i) {
    const float *u = &values_[(3 * tracks[i] + 1) * n], *v = u + n;
    const double uu = Dot(u, u, n), uv = Dot(u, v, n), vv = Dot(v, v, n), determinant = uu * vv - uv * uv;
    if (!(determinant > 1e-9 * uu * vv)) continue;
    for (size_t k = 1; k <= std::min(kPairsPerTrack, tracks.size() - 1); ++k) {
      const float* r = &values_[3 * tracks[(i + k) % tracks.size()] * n];
      const double rr = Dot(r, r, n), ru = Dot(r, u, n), rv = Dot(r, v, n);
      if (!(rr > 0)) continue;
      part += (ru * ru * vv - 2 * ru * rv * uv + rv * rv * uu) / (determinant * rr);
      ++pairs;
    }
  }
  const auto dimension = static_cast<double>(n);
  if (tracks.size() < kMinTracks || !(part > 0)) return std::max(3.0, dimension);
  return std::max(3.0, std::min(dimension, 2 * static_cast<double>(pairs) / part));
}

}  // namespace pixcli
