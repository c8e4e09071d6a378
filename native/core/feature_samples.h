// Feature maps decoded to floats and sampled at the nodes of a support, for kernel sources only.
#pragma once

#include <math.h>

#include "core/arena.h"
#include "core/feature_kernel.h"
#include "core/sampling.h"

namespace pixcli::PIXCLI_ISA {
namespace {

inline int Padded(int channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

// The samples of a patch as floats, each padded with channels of zeros.
struct FeatureSamples {
  const float* data;
  int width, height, stride;
  Samples Extent() const { return {nullptr, width, height}; }
};

inline PatchView FrameOf(const FeaturePatch& patch) {
  return {nullptr, patch.width, patch.height, patch.x0, patch.y0, patch.pitch};
}

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

}  // namespace
}  // namespace pixcli::PIXCLI_ISA
