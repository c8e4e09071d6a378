// The residual of feature maps to their template and the covariance that follows from it, for kernel sources
// only.
#pragma once

#include <math.h>

#include "core/feature_template.h"

namespace pixcli::PIXCLI_ISA {
namespace {

constexpr float kLeastDeviation = .1f;  // of a channel, in units of the template's: noise is not blown up
constexpr float kLeastGain = .3f;

// Memory to compare samples with a template.
struct FeatureWork {
  float *decoded, *gains, *value;
  float *mean, *inverse, *slope;  // by channel: residual = deviation * (value - mean) * inverse - slope * t
  float *bias_residual, *gain_residual;  // by channel
};

inline int64_t FeatureWorkSize(const FeaturePatch& patch, const SupportView& support) {
  const int64_t stride = Padded(patch.channels);
  return Arena::Rounded(DecodedSize(patch) * 4) + 6 * Arena::Rounded(stride * 4) +
         Arena::Rounded(support.num_nodes * stride * 4);
}

inline FeatureWork TakeWork(const FeaturePatch& patch, const SupportView& support, Arena* arena) {
  const int64_t stride = Padded(patch.channels);
  FeatureWork work;
  work.decoded = arena->Floats(DecodedSize(patch));
  work.value = arena->Floats(support.num_nodes * stride);
  float** const channels[] = {&work.gains, &work.mean,          &work.inverse,
                              &work.slope, &work.bias_residual, &work.gain_residual};
  for (float** column : channels) *column = arena->Floats(stride);
  return work;
}

// The residual of samples to a template: the gradient of half its square by the affine parameters, with
// Huber's weights on the length of the residual at each node.
struct FeatureResidual {
  alignas(64) float weight[kMaxNodes];  // of the window and Huber's
  double gradient[kNumAffine];
  double total, variance;  // of the weights; of the residual
  float correlation;       // over all channels, each free of its bias
  double gain;             // by which steps fall short
};

// Turns samples (nodes, stride) in work->value into the residual, in place; false if they are flat.
inline bool CompareFeatures(const FeatureTemplate& tmpl, const FeatureSupport& support, FeatureWork* work,
                            FeatureResidual* out) {
  const SupportView& nodes = support.nodes;
  const int n = nodes.num_nodes, stride = tmpl.stride;
  const bool correlate = support.comparison == Comparison::kCorrelation;
  if (support.comparison == Comparison::kCosine) NormaliseVectors(n, stride, work->value);
  VN covariance{}, power{};
  for (int c = 0; c < stride; c += kLanes) {
    const VN shift = Load(work->value + c);
    VN sum{}, square{}, dot{};
    for (int k = 0; k < n; ++k) {
      const VN d = Load(work->value + k * stride + c) - shift, wd = nodes.weight[k] * d;
      sum += wd;
      square += wd * d;
      dot += wd * Load(tmpl.value + k * stride + c);
    }
    const VN variance = square - sum * sum;
    VN deviation;
    for (int i = 0; i < kLanes; ++i) deviation[i] = sqrtf(variance[i] > 0 ? variance[i] : 0);
    power += deviation * deviation;
    const VN mine = Load(tmpl.deviation + c);
    if (correlate) {
      const VN least = kLeastDeviation * Load(tmpl.raw_deviation + c),
               divisor = Select(deviation > least, deviation, least);
      const VN inverse = Select(divisor > 0, 1 / divisor, VN{}), r = dot * inverse;
      covariance += mine * mine * r;
      Store(work->mean + c, shift + sum);
      Store(work->inverse + c, inverse * mine);
      Store(work->slope + c, r * mine);
    } else {
      covariance += dot - sum * Load(tmpl.mean + c) * tmpl.unit;
      Store(work->mean + c, VN{});
      Store(work->inverse + c, Splat(tmpl.unit));
      Store(work->slope + c, Splat(1));
    }
  }
  const float deviation = sqrtf(Sum(power));
  if (!(deviation * tmpl.unit > 1e-3f)) return false;
  out->correlation = correlate ? Sum(covariance) : Sum(covariance) / deviation;
  out->gain = correlate ? fmaxf(out->correlation, kLeastGain) : 1;
  alignas(64) float size[kMaxNodes], along_x[kMaxNodes], along_y[kMaxNodes];
  double mean_size = 0;
  for (int k = 0; k < n; ++k) {
    const int64_t at = static_cast<int64_t>(k) * stride;
    VN square{}, qx{}, qy{};
    for (int c = 0; c < stride; c += kLanes) {
      const VN r = (Load(work->value + at + c) - Load(work->mean + c)) * Load(work->inverse + c) -
                   Load(work->slope + c) * Load(tmpl.value + at + c);
      Store(work->value + at + c, r);
      square += r * r;
      qx += r * Load(tmpl.gx + at + c);
      qy += r * Load(tmpl.gy + at + c);
    }
    size[k] = sqrtf(Sum(square));
    along_x[k] = Sum(qx);
    along_y[k] = Sum(qy);
    mean_size += nodes.weight[k] * size[k];
  }
  const float limit = static_cast<float>(2 * mean_size) + 1e-9f;
  out->total = 0;
  double squares = 0;
  for (double& g : out->gradient) g = 0;
  for (int k = 0; k < n; ++k) {
    const float w = nodes.weight[k] * (size[k] > limit ? limit / size[k] : 1);
    const double x = nodes.x[k], y = nodes.y[k], qx = w * along_x[k], qy = w * along_y[k];
    const double columns[kNumAffine] = {qx, qy, qx * x, qx * y, qy * x, qy * y};
    for (int p = 0; p < kNumAffine; ++p) out->gradient[p] += columns[p];
    out->weight[k] = w;
    out->total += w;
    squares += static_cast<double>(w) * size[k] * size[k];
  }
  out->variance = squares / out->total;
  if (!correlate) return true;
  for (int c = 0; c < stride; c += kLanes) {
    VN bias{}, gain{};
    for (int k = 0; k < n; ++k) {
      const VN wr = out->weight[k] * Load(work->value + k * stride + c);
      bias += wr;
      gain += wr * Load(tmpl.value + k * stride + c);
    }
    Store(work->bias_residual + c, bias);
    Store(work->gain_residual + c, gain);
  }
  for (int p = 0; p < kNumAffine; ++p) {
    out->gradient[p] -= DotOf(tmpl.along_bias[p], work->bias_residual, stride) +
                        DotOf(tmpl.along_gain[p], work->gain_residual, stride);
  }
  return true;
}

// The covariance of the position in the root's image, given the factor of the Hessian: noise of each
// channel's variance, half of it the template's, carried through the solution as PositionCovariance does for
// a single channel. Noise that channels have in common adds up: by how much, the lengths of the gradients at
// the nodes tell.
inline void FeatureCovariance(const FeatureTemplate& tmpl, const FeatureSupport& support,
                              const FeatureResidual& residual, int num_free,
                              const double factor[kNumParams][kNumParams], FeatureWork* work, double out[3]) {
  const SupportView& nodes = support.nodes;
  const int n = nodes.num_nodes, stride = tmpl.stride, side = 2 * static_cast<int>(nodes.radius) + 1;
  const bool correlate = support.comparison == Comparison::kCorrelation;
  // Nodes further apart hardly share samples.
  const bool shared = tmpl.spacing < 1.5 * tmpl.pitch;
  const double fitted =
      (shared ? 1.5 : 1) * ((correlate ? 2 : 0) + static_cast<double>(num_free) / tmpl.num_channels);
  const double missing = 1 / (residual.total * fmax(1 - fitted / nodes.independent, .25));
  float* variance = work->bias_residual;
  for (int c = 0; c < stride; c += kLanes) {
    VN square{};
    for (int k = 0; k < n; ++k) {
      const VN r = Load(work->value + k * stride + c);
      square += residual.weight[k] * r * r;
    }
    Store(variance + c, square * static_cast<float>(missing));
  }
  double sum = 0, common = 0, single = 0;
  for (int c = 0; c < tmpl.num_channels; ++c) sum += variance[c];
  for (int k = 0; k < n; ++k) {
    const int64_t at = static_cast<int64_t>(k) * stride;
    VN qx{}, qy{}, square{};
    for (int c = 0; c < stride; c += kLanes) {
      const VN r = Load(work->value + at + c), gx = Load(tmpl.gx + at + c), gy = Load(tmpl.gy + at + c);
      qx += r * gx;
      qy += r * gy;
      square += Load(variance + c) * (gx * gx + gy * gy);
    }
    const double x = Sum(qx), y = Sum(qy), w = residual.weight[k] * residual.weight[k];
    common += w * (x * x + y * y) * missing * residual.total;
    single += w * Sum(square);
  }
  V2 rows[kNumParams], noise[kNumParams];
  const V2 unit[kNumParams] = {{1, 0}, {0, 1}};
  Solve(factor, unit, rows);
  MultiplyGradientNoise(nodes, sum / 2, tmpl.pitch, rows, noise);
  for (int p = 0; p < kNumParams; ++p) noise[p] = (p < num_free ? noise[p] : V2{}) + unit[p];
  Solve(factor, noise, rows);
  double xx = 0, xy = 0, yy = 0;
  alignas(64) float influence[2][kMaxNodes + kLanes] = {};
  for (int c = 0; c < tmpl.num_channels; ++c) {
    V2 bias{}, gain{};
    for (int p = 0; p < num_free && correlate; ++p) {
      bias += rows[p] * static_cast<double>(tmpl.along_bias[p][c]);
      gain += rows[p] * static_cast<double>(tmpl.along_gain[p][c]);
    }
    for (int k = 0; k < n; ++k) {
      const int64_t at = static_cast<int64_t>(k) * stride + c;
      const double gx = tmpl.gx[at], gy = tmpl.gy[at], x = nodes.x[k], y = nodes.y[k], t = tmpl.value[at];
      V2 column = gx * rows[0] + gy * rows[1];
      if (num_free > 2) column += gx * (x * rows[2] + y * rows[3]) + gy * (x * rows[4] + y * rows[5]);
      column = (column - bias - t * gain) * static_cast<double>(residual.weight[k]);
      influence[0][k] = static_cast<float>(column[0]);
      influence[1][k] = static_cast<float>(column[1]);
    }
    const NodeField on_x(influence[0], side), on_y(influence[1], side);
    VN pxx{}, pxy{}, pyy{};
    const int begin = shared ? on_x.begin() : 0, end = shared ? on_x.end() : nodes.num_padded;
    for (int k = begin; k < end; k += kLanes) {
      const VN x = shared ? on_x.Smoothed(k) : Load(influence[0] + k),
               y = shared ? on_y.Smoothed(k) : Load(influence[1] + k);
      pxx += x * x;
      pxy += x * y;
      pyy += y * y;
    }
    xx += variance[c] * Sum(pxx);
    xy += variance[c] * Sum(pxy);
    yy += variance[c] * Sum(pyy);
  }
  const double scale =
      fmax(common / single, 1) / (residual.gain * residual.gain * residual.total * residual.total);
  out[0] = xx * scale;
  out[1] = xy * scale;
  out[2] = yy * scale;
}

}  // namespace
}  // namespace pixcli::PIXCLI_ISA
