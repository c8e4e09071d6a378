// Feature maps at the nodes of a support and their residual to a template, for kernel sources only.
//
// Channels share their nodes. What the normal equations of a warp need of them is therefore, for each node,
// the products of the gradient with itself and with the residual, summed over the channels: two small numbers
// of values, whatever the number of channels. The Hessian is that of the template without robust weights and
// is made once.
#pragma once

#include <math.h>

#include "core/alignment_equations.h"
#include "core/arena.h"
#include "core/feature_kernel.h"

namespace pixcli::PIXCLI_ISA {
namespace {

constexpr int kNumAffine = 6;
constexpr float kLeastDeviation = .1f;   // of a channel, in units of the template's: noise is not blown up
constexpr float kLeastContrast = 1e-4f;  // of a template, in units of its values
constexpr double kDamping = 1e-4;
constexpr double kWarpDamping = 2.5e-4;  // of the linear map, at the border of the support
constexpr float kLeastGain = .3f;

inline int Padded(int channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

// The samples of a patch as floats, each padded with channels of zeros.
struct FeatureSamples {
  const float* data;
  int width, height, stride;
  Samples Extent() const { return {nullptr, width, height}; }
};

inline int64_t DecodedSize(const FeaturePatch& patch) {
  return static_cast<int64_t>(patch.width) * patch.height * Padded(patch.channels);
}

template <class T, class Convert>
inline void DecodeAs(const FeaturePatch& patch, const Convert& convert, float* out) {
  const int channels = patch.channels, stride = Padded(channels);
  const T* in = static_cast<const T*>(patch.data);
  alignas(64) T tail[kLanes] = {};
  for (int i = 0; i < patch.width * patch.height; ++i, in += channels, out += stride) {
    int c = 0;
    for (; c + kLanes <= channels; c += kLanes) Store(out + c, convert(in + c, c));
    if (c < channels) {
      for (int k = c; k < channels; ++k) tail[k - c] = in[k];
      Store(out + c, convert(tail, c));
    }
  }
}

// As DecodeAs, of 4-bit integers.
inline void DecodeNibbles(const FeaturePatch& patch, const float* gains, float* out) {
  const int channels = patch.channels, stride = Padded(channels);
  const uint8_t* in = static_cast<const uint8_t*>(patch.data);
  for (int i = 0; i < patch.width * patch.height; ++i, in += (channels + 1) / 2, out += stride) {
    for (int c = 0; c + 1 < channels; c += 2) {
      const int pair = in[c / 2];
      out[c] = static_cast<float>((pair & 15) - 8) * gains[c];
      out[c + 1] = static_cast<float>((pair >> 4) - 8) * gains[c + 1];
    }
    if (channels % 2 != 0) {
      out[channels - 1] = static_cast<float>((in[channels / 2] & 15) - 8) * gains[channels - 1];
    }
    for (int c = channels; c < stride; ++c) out[c] = 0;
  }
}

// `gains` has room for Padded(channels).
inline bool DecodeFeatures(const FeaturePatch& patch, float* gains, float* buffer, FeatureSamples* out) {
  if (patch.width < 4 || patch.height < 4) return false;
  switch (patch.type) {
    case FeatureType::kFloat:
      DecodeAs<float>(patch, [](const float* p, int) { return LoadAs<VN>(p); }, buffer);
      break;
    case FeatureType::kHalf:
      DecodeAs<uint16_t>(patch, [](const uint16_t* p, int) { return LoadHalf<kLanes>(p); }, buffer);
      break;
    case FeatureType::kInt8:
      for (int c = 0; c < Padded(patch.channels); ++c) gains[c] = c < patch.channels ? patch.gains[c] : 0;
      DecodeAs<int8_t>(
          patch,
          [gains](const int8_t* p, int c) {
            return Convert<VN>(LoadAs<Vector<int8_t, kLanes>>(p)) * Load(gains + c);
          },
          buffer);
      break;
    case FeatureType::kInt4: DecodeNibbles(patch, patch.gains, buffer); break;
  }
  *out = {buffer, patch.width, patch.height, Padded(patch.channels)};
  return true;
}

// Values (nodes, stride) at the cells.
inline void SampleFeatures(const FeatureSamples& s, const Cells& cells, int num_nodes, float* out) {
  const int64_t row = static_cast<int64_t>(s.width) * s.stride;
  for (int k = 0; k < num_nodes; ++k, out += s.stride) {
    const float* p = s.data + static_cast<int64_t>(cells.corner[k]) * s.stride;
    const V4 wu = SplineWeights(cells.fraction[k][0]), wv = SplineWeights(cells.fraction[k][1]);
    for (int c = 0; c < s.stride; c += kLanes) {
      VN sum{};
      for (int r = 0; r < 4; ++r) {
        const float* q = p + r * row + c;
        sum += wv[r] * (wu[0] * Load(q) + wu[1] * Load(q + s.stride) + wu[2] * Load(q + 2 * s.stride) +
                        wu[3] * Load(q + 3 * s.stride));
      }
      Store(out + c, sum);
    }
  }
}

// The same with gradients by samples.
inline void SampleFeatureGradients(const FeatureSamples& s, const Cells& cells, int num_nodes, float* out,
                                   float* gu, float* gv) {
  const int64_t row = static_cast<int64_t>(s.width) * s.stride;
  for (int k = 0; k < num_nodes; ++k, out += s.stride, gu += s.stride, gv += s.stride) {
    const float* p = s.data + static_cast<int64_t>(cells.corner[k]) * s.stride;
    const V4 wu = SplineWeights(cells.fraction[k][0]), wv = SplineWeights(cells.fraction[k][1]),
             su = SplineSlopes(cells.fraction[k][0]), sv = SplineSlopes(cells.fraction[k][1]);
    for (int c = 0; c < s.stride; c += kLanes) {
      VN value{}, by_u{}, by_v{};
      for (int r = 0; r < 4; ++r) {
        const float* q = p + r * row + c;
        VN sum{}, slope{};
        for (int i = 0; i < 4; ++i) {
          const VN f = Load(q + i * s.stride);
          sum += wu[i] * f;
          slope += su[i] * f;
        }
        value += wv[r] * sum;
        by_u += wv[r] * slope;
        by_v += sv[r] * sum;
      }
      Store(out + c, value);
      Store(gu + c, by_u);
      Store(gv + c, by_v);
    }
  }
}

inline float DotOf(const float* a, const float* b, int n) {
  VN sum{};
  for (int c = 0; c < n; c += kLanes) sum += Load(a + c) * Load(b + c);
  return Sum(sum);
}

// Scales the vector of each node to unit length.
inline void NormaliseVectors(int num_nodes, int stride, float* values) {
  for (int k = 0; k < num_nodes; ++k, values += stride) {
    const float inverse = 1 / sqrtf(DotOf(values, values, stride) + 1e-20f);
    for (int c = 0; c < stride; c += kLanes) Store(values + c, Load(values + c) * inverse);
  }
}

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
  const PatchView frame = {nullptr, patch.width, patch.height, patch.x0, patch.y0, patch.pitch};
  const NodeMap map = MapOf(frame, {x, y, 1, 0, 0, 1, 0, 0}, spacing);
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
