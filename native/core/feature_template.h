// The template of feature maps, for kernel sources only.
//
// Channels share their nodes. What the normal equations of a warp need of them is therefore, for each node,
// the products of the gradient with itself and with the residual, summed over the channels: two small numbers
// of values, whatever the number of channels. The Hessian is that of the template without robust weights and
// is made once.
#pragma once

#include <math.h>

#include "core/alignment_equations.h"
#include "core/feature_samples.h"

namespace pixcli::PIXCLI_ISA {
namespace {

constexpr int kNumAffine = 6;
constexpr float kLeastContrast = 1e-4f;  // of a template, in units of its values
constexpr double kDamping = 1e-4;
constexpr double kWarpDamping = 2.5e-4;  // of the linear map, at the border of the support

// The samples around the root, so scaled that their deviations over all channels have the squared sum 1.
struct FeatureTemplate {
  float *value, *gx, *gy;  // (nodes, stride); gradients by pixels of the root
  // By channel: mean and deviation of the values before scaling, the deviation after.
  float *mean, *raw_deviation, *deviation;
  // kCorrelation: what the columns of the Jacobian have along a constant and along the template, by channel.
  float *along_bias[kNumAffine], *along_gain[kNumAffine];
  double factor[kNumParams][kNumParams];  // of the Hessian of the affine parameters, the rest fixed
  double hessian[kNumParams][kNumParams];
  double spacing, pitch;  // of the nodes and of the samples, in pixels of the root
  float unit;             // that the values were scaled by
  int stride, num_channels;
  Outcome outcome;
};

inline int64_t FeatureTemplateSize(const FeaturePatch& patch, const SupportView& support) {
  const int64_t stride = Padded(patch.channels), row = Arena::Rounded(stride * 4);
  return Arena::Rounded(sizeof(FeatureTemplate)) + 3 * Arena::Rounded(support.num_nodes * stride * 4) +
         (4 + 2 * kNumAffine) * row + Arena::Rounded(DecodedSize(patch) * 4);
}

inline void ReduceChannels(const SupportView& support, Comparison comparison, FeatureTemplate* out) {
  const int stride = out->stride, n = support.num_nodes;
  for (int c = 0; c < stride; c += kLanes) {
    // About the first node's, which keeps the sum of squares from cancelling.
    const VN shift = Load(out->value + c);
    VN sum{}, square{};
    for (int k = 0; k < n; ++k) {
      const VN d = Load(out->value + k * stride + c) - shift;
      sum += support.weight[k] * d;
      square += support.weight[k] * d * d;
    }
    const VN variance = square - sum * sum;
    Store(out->mean + c, shift + sum);
    for (int i = 0; i < kLanes; ++i) out->raw_deviation[c + i] = sqrtf(variance[i] > 0 ? variance[i] : 0);
  }
  const float power = DotOf(out->raw_deviation, out->raw_deviation, stride);
  const float size = power + DotOf(out->mean, out->mean, stride);
  out->outcome = power > kLeastContrast * kLeastContrast * size ? Outcome::kConverged : Outcome::kFlat;
  if (out->outcome != Outcome::kConverged) return;
  out->unit = 1 / sqrtf(power);
  for (int c = 0; c < stride; ++c) out->deviation[c] = out->raw_deviation[c] * out->unit;
  for (int k = 0; k < n; ++k) {
    float *value = out->value + k * stride, *gx = out->gx + k * stride, *gy = out->gy + k * stride;
    for (int c = 0; c < stride; c += kLanes) {
      Store(gx + c, Load(gx + c) * out->unit);
      Store(gy + c, Load(gy + c) * out->unit);
      if (comparison == Comparison::kCorrelation) {
        const VN deviation = Load(out->raw_deviation + c);
        Store(value + c, Select(deviation > 0, (Load(value + c) - Load(out->mean + c)) / deviation, VN{}));
      } else {
        Store(value + c, Load(value + c) * out->unit);
      }
    }
  }
}

// The Hessian of the affine parameters: of position by pixels, of the linear map by nodes.
inline void MakeHessian(const SupportView& support, Comparison comparison, FeatureTemplate* out) {
  const int stride = out->stride;
  NormalEquations eq = {};
  for (int k = 0; k < support.num_nodes; ++k) {
    const float *gx = out->gx + k * stride, *gy = out->gy + k * stride;
    const double x = support.x[k], y = support.y[k], w = support.weight[k];
    const double xx = w * DotOf(gx, gx, stride), xy = w * DotOf(gx, gy, stride),
                 yy = w * DotOf(gy, gy, stride);
    const double u[kNumAffine] = {1, 0, x, y, 0, 0}, v[kNumAffine] = {0, 1, 0, 0, x, y};
    for (int p = 0; p < kNumAffine; ++p) {
      for (int q = 0; q <= p; ++q)
        eq.h[p][q] += xx * u[p] * u[q] + xy * (u[p] * v[q] + v[p] * u[q]) + yy * v[p] * v[q];
    }
  }
  if (comparison == Comparison::kCorrelation) {
    for (int c = 0; c < stride; c += kLanes) {
      VN bias[kNumAffine] = {}, gain[kNumAffine] = {};
      for (int k = 0; k < support.num_nodes; ++k) {
        const VN gx = support.weight[k] * Load(out->gx + k * stride + c),
                 gy = support.weight[k] * Load(out->gy + k * stride + c),
                 t = Load(out->value + k * stride + c);
        const VN columns[kNumAffine] = {
            gx, gy, gx * support.x[k], gx * support.y[k], gy * support.x[k], gy * support.y[k]};
        for (int p = 0; p < kNumAffine; ++p) {
          bias[p] += columns[p];
          gain[p] += columns[p] * t;
        }
      }
      for (int p = 0; p < kNumAffine; ++p) {
        Store(out->along_bias[p] + c, bias[p]);
        Store(out->along_gain[p] + c, gain[p]);
      }
    }
    for (int p = 0; p < kNumAffine; ++p) {
      for (int q = 0; q <= p; ++q) {
        eq.h[p][q] -= DotOf(out->along_bias[p], out->along_bias[q], stride) +
                      DotOf(out->along_gain[p], out->along_gain[q], stride);
      }
    }
  }
  for (int p = 0; p < kNumAffine; ++p)
    eq.h[p][p] += p < 2 ? kDamping : kWarpDamping * support.radius * support.radius;
  Freeze(kNumAffine, &eq);
  if (!Factor(eq.h, out->factor)) out->outcome = Outcome::kFlat;
  for (int p = 0; p < kNumParams; ++p) {
    for (int q = 0; q <= p; ++q) out->hessian[p][q] = out->hessian[q][p] = eq.h[p][q];
  }
}

inline FeatureTemplate* MakeFeatureTemplate(const FeaturePatch& patch, const FeatureSupport& support,
                                            double x, double y, double spacing, Arena* arena) {
  FeatureTemplate* out = reinterpret_cast<FeatureTemplate*>(arena->Take(sizeof(FeatureTemplate)));
  const SupportView& nodes = support.nodes;
  out->stride = Padded(patch.channels);
  out->num_channels = patch.channels;
  out->spacing = spacing;
  out->pitch = patch.pitch;
  const int64_t values = static_cast<int64_t>(nodes.num_nodes) * out->stride;
  out->value = arena->Floats(values);
  out->gx = arena->Floats(values);
  out->gy = arena->Floats(values);
  out->mean = arena->Floats(out->stride);
  out->raw_deviation = arena->Floats(out->stride);
  out->deviation = arena->Floats(out->stride);
  for (int p = 0; p < kNumAffine; ++p) {
    out->along_bias[p] = arena->Floats(out->stride);
    out->along_gain[p] = arena->Floats(out->stride);
  }
  float* gains = arena->Floats(out->stride);
  FeatureSamples samples;
  const NodeMap map = MapOf(FrameOf(patch), {x, y, 1, 0, 0, 1, 0, 0}, spacing);
  out->outcome = Outcome::kOutside;
  if (!DecodeFeatures(patch, gains, arena->Floats(DecodedSize(patch)), &samples) ||
      !Inside(map, nodes.radius, samples.Extent()))
    return out;
  Cells cells;
  Locate(samples.Extent(), map, nodes, &cells);
  SampleFeatureGradients(samples, cells, nodes.num_nodes, out->value, out->gx, out->gy);
  const float by_pixel = static_cast<float>(1 / patch.pitch);
  for (int k = 0; k < nodes.num_nodes; ++k) {
    const int64_t at = static_cast<int64_t>(k) * out->stride;
    float *f = out->value + at, *gx = out->gx + at, *gy = out->gy + at;
    float inverse = 1, along_x = 0, along_y = 0;
    if (support.comparison == Comparison::kCosine) {
      const float power = DotOf(f, f, out->stride) + 1e-20f;
      inverse = 1 / sqrtf(power);
      along_x = DotOf(f, gx, out->stride) / power;
      along_y = DotOf(f, gy, out->stride) / power;
    }
    for (int c = 0; c < out->stride; c += kLanes) {
      const VN value = Load(f + c);
      Store(gx + c, (Load(gx + c) - along_x * value) * (inverse * by_pixel));
      Store(gy + c, (Load(gy + c) - along_y * value) * (inverse * by_pixel));
      Store(f + c, value * inverse);
    }
  }
  ReduceChannels(nodes, support.comparison, out);
  if (out->outcome == Outcome::kConverged) MakeHessian(nodes, support.comparison, out);
  return out;
}

// The factor of the template's Hessian with the parameters from `first` on fixed; false if there is none.
inline bool FactorFrozen(const FeatureTemplate& tmpl, int first, double factor[kNumParams][kNumParams]) {
  NormalEquations eq;
  for (int p = 0; p < kNumParams; ++p) {
    for (int q = 0; q <= p; ++q) eq.h[p][q] = tmpl.hessian[p][q];
  }
  Freeze(first, &eq);
  return Factor(eq.h, factor);
}

}  // namespace
}  // namespace pixcli::PIXCLI_ISA
