// What alignment kernels share, for kernel sources only: samples of a patch at the nodes of a support and
// their residual to a template, invariant to gain and bias, with Huber weights. Samples are taken by the
// cubic B-spline without prefilter: it blurs by 1/sqrt(3) of a sample, which the scale-space levels account
// for, and has smooth gradients.
#pragma once

#include <math.h>

#include "core/alignment_kernel.h"
#include "core/lanes.h"

namespace pixcli::PIXCLI_ISA {
namespace {

constexpr int kLanes = kLanesOf<float>;
typedef Vector<float, 4> V4;
typedef Vector<float, 8> V8;
typedef Vector<int64_t, 4> Pair4;
typedef Lanes<float> VN;
typedef Vector<int32_t, kLanes> VNInt;

constexpr int kMaxPatch = 192;     // samples a side
constexpr double kMaxStep = 1.5;   // pixels an iteration
constexpr double kSettled = 0.15;  // pixels; what was linearised is kept from there on

inline VN Load(const float* p) { return LoadAligned<VN>(p); }
inline VN Splat(float v) { return v - VN{}; }
inline VN Abs(VN v) { return Select(v < 0, -v, v); }
inline V4 LoadRow(const float* p) { return LoadAs<V4>(p); }

// Stores the lanes of both in turn.
inline void StoreInterleaved(Vector<float, 4> a, Vector<float, 4> b, float* out) {
  Store(out, Shuffle<0, 4, 1, 5>(a, b));
  Store(out + 4, Shuffle<2, 6, 3, 7>(a, b));
}
inline void StoreInterleaved(Vector<float, 8> a, Vector<float, 8> b, float* out) {
  Store(out, Shuffle<0, 8, 1, 9, 2, 10, 3, 11>(a, b));
  Store(out + 8, Shuffle<4, 12, 5, 13, 6, 14, 7, 15>(a, b));
}
inline void StoreInterleaved(Vector<float, 16> a, Vector<float, 16> b, float* out) {
  Store(out, Shuffle<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b));
  Store(out + 16, Shuffle<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b));
}

// The samples of one patch as floats, with room to read four from the last one.
struct Samples {
  const float* data;
  int width, height;
};

constexpr int kSamplePadding = 16;
struct SampleBuffer {
  alignas(64) float data[kMaxPatch * kMaxPatch + kSamplePadding];
};

inline bool HasSize(const PatchView& patch) {
  return patch.width >= 4 && patch.height >= 4 && patch.width <= kMaxPatch && patch.height <= kMaxPatch;
}

// Converts a patch into a buffer of width * height + kSamplePadding floats; false if its size is unusable.
inline bool Decode(const PatchView& patch, float* buffer, Samples* out) {
  if (!HasSize(patch)) return false;
  const int n = patch.width * patch.height;
  for (int i = 0; i < n; ++i) buffer[i] = patch.data[i];
  *out = {buffer, patch.width, patch.height};
  return true;
}

// A homography from nodes to patch coordinates (sample 0 at 0).
struct NodeMap {
  float u, v, ux, uy, vx, vy, wx, wy;
};

// Below it, the 4x4 samples around a coordinate are inside a patch of that many.
inline float LastOf(int samples) { return static_cast<float>(samples) - 2.001f; }

// Whether every node, within [-radius, radius]^2, has its 4x4 samples inside the patch.
inline bool Inside(const NodeMap& m, float radius, const Samples& s) {
  const float least = 1 - radius * (fabsf(m.wx) + fabsf(m.wy));
  if (!(least > .5f)) return false;
  const float reach = radius / least;
  const float du = reach * (fabsf(m.ux) + fabsf(m.uy)), dv = reach * (fabsf(m.vx) + fabsf(m.vy));
  return m.u - du >= 1 && m.v - dv >= 1 && m.u + du < LastOf(s.width) && m.v + dv < LastOf(s.height);
}

// The cubic B-spline's four weights at fraction f, and their derivatives.
constexpr V4 kWeight0 = {1 / 6.f, 4 / 6.f, 1 / 6.f, 0}, kWeight1 = {-.5f, 0, .5f, 0},
             kWeight2 = {.5f, -1, .5f, 0}, kWeight3 = {-1 / 6.f, .5f, -.5f, 1 / 6.f};
inline V8 TwoOfEach(V4 v) { return Shuffle<0, 0, 1, 1, 2, 2, 3, 3>(v, v); }
inline V4 SplineWeights(float f) { return kWeight0 + f * (kWeight1 + f * (kWeight2 + f * kWeight3)); }
inline V4 SplineSlopes(float f) { return kWeight1 + f * (2 * kWeight2 + f * (3 * kWeight3)); }

// Where the nodes fall: the first of a node's 4x4 samples, and its fractions along u and v within its cell.
struct Cells {
  alignas(64) int32_t corner[kMaxNodes];
  alignas(64) float fraction[kMaxNodes][2];

  int64_t Fractions(int k) const {  // both of a node, as they lie in memory
    int64_t both;
    memcpy(&both, fraction[k], sizeof(both));
    return both;
  }
};

// Places the nodes from k on at (u, v) in a patch of that width.
inline void Place(VN u, VN v, int width, int k, Cells* cells) {
  const VNInt i = Convert<VNInt>(u), j = Convert<VNInt>(v);
  StoreInterleaved(u - Convert<VN>(i), v - Convert<VN>(j), cells->fraction[k]);
  Store(cells->corner + k, (j - 1) * width + (i - 1));
}

inline void Locate(const Samples& s, const NodeMap& m, const SupportView& support, Cells* cells) {
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN x = Load(support.x + k), y = Load(support.y + k);
    const VN w = 1 / (1 + m.wx * x + m.wy * y);
    const VN u = m.u + (m.ux * x + m.uy * y) * w, v = m.v + (m.vx * x + m.vy * y) * w;
    Place(u, v, s.width, k, cells);
  }
}

inline V4 Rows(const float* p, int width, V4 w) {
  return w[0] * LoadRow(p) + w[1] * LoadRow(p + width) +
         (w[2] * LoadRow(p + 2 * width) + w[3] * LoadRow(p + 3 * width));
}

inline float Dot(V4 a, V4 b) {
  const V4 p = a * b;
  return (p[0] + p[1]) + (p[2] + p[3]);
}

#if defined(__AVX2__)

// Sums of the pairs of neighbours within each half: of a in the first two places of a half, of b in the
// others.
inline V8 AddPairs(V8 a, V8 b) {
  return Shuffle<0, 2, 8, 10, 4, 6, 12, 14>(a, b) + Shuffle<1, 3, 9, 11, 5, 7, 13, 15>(a, b);
}

// A node at a time: the four rows of its samples in two vectors, so that the sum of 16 products takes few
// instructions.
inline void SampleValues(const Samples& s, const Cells& cells, const SupportView& support, float* out) {
  // The weights along u and along v, in turn.
  const V8 c0 = TwoOfEach(kWeight0), c1 = TwoOfEach(kWeight1), c2 = TwoOfEach(kWeight2),
           c3 = TwoOfEach(kWeight3);
  for (int k = 0; k < support.num_padded; k += 8) {
    V8 product[8];
    for (int i = 0; i < 8; ++i) {
      const float* p = s.data + cells.corner[k + i];
      const int64_t both = cells.Fractions(k + i);
      const V8 f = Bits<V8>(Pair4{both, both, both, both});
      const V8 w = c0 + f * (c1 + f * (c2 + f * c3));
      const V8 rows01 = Shuffle<0, 1, 2, 3, 4, 5, 6, 7>(LoadRow(p), LoadRow(p + s.width));
      const V8 rows23 = Shuffle<0, 1, 2, 3, 4, 5, 6, 7>(LoadRow(p + 2 * s.width), LoadRow(p + 3 * s.width));
      product[i] =
          (rows01 * Shuffle<1, 1, 1, 1, 3, 3, 3, 3>(w, w) + rows23 * Shuffle<5, 5, 5, 5, 7, 7, 7, 7>(w, w)) *
          Shuffle<0, 2, 4, 6, 0, 2, 4, 6>(w, w);
    }
    const V8 first = AddPairs(AddPairs(product[0], product[1]), AddPairs(product[2], product[3]));
    const V8 second = AddPairs(AddPairs(product[4], product[5]), AddPairs(product[6], product[7]));
    Store(out + k, Shuffle<0, 1, 2, 3, 8, 9, 10, 11>(first, second) +
                       Shuffle<4, 5, 6, 7, 12, 13, 14, 15>(first, second));
  }
}

#else

inline void SampleValues(const Samples& s, const Cells& cells, const SupportView& support, float* out) {
  for (int k = 0; k < support.num_padded; ++k) {
    const V4 rows = Rows(s.data + cells.corner[k], s.width, SplineWeights(cells.fraction[k][1]));
    out[k] = Dot(SplineWeights(cells.fraction[k][0]), rows);
  }
}

#endif

inline void SampleGradients(const Samples& s, const Cells& cells, const SupportView& support, float* out,
                            float* gu, float* gv) {
  for (int k = 0; k < support.num_padded; ++k) {
    const float* p = s.data + cells.corner[k];
    const V4 weights = SplineWeights(cells.fraction[k][0]),
             rows = Rows(p, s.width, SplineWeights(cells.fraction[k][1]));
    out[k] = Dot(weights, rows);
    gu[k] = Dot(SplineSlopes(cells.fraction[k][0]), rows);
    gv[k] = Dot(weights, Rows(p, s.width, SplineSlopes(cells.fraction[k][1])));
  }
}

// In place: weighted mean 0 and deviation 1. Returns the deviation that was divided by.
inline float Normalise(const SupportView& support, float* value) {
  VN mean{};
  for (int k = 0; k < support.num_padded; k += kLanes) mean += Load(support.weight + k) * Load(value + k);
  const float m = Sum(mean);
  VN square{};
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN d = Load(value + k) - m;
    Store(value + k, d);
    square += Load(support.weight + k) * d * d;
  }
  const float deviation = sqrtf(Sum(square));
  const float inverse = deviation > 0 ? 1 / deviation : 0;
  for (int k = 0; k < support.num_padded; k += kLanes) Store(value + k, Load(value + k) * inverse);
  return deviation;
}

constexpr float kFlat = 1e-3f;  // deviation in units of an 8-bit patch, whose range is 255

inline NodeMap MapOf(const PatchView& patch, const Warp& a, double spacing) {
  const double p = 1 / patch.pitch, s = spacing * p;
  return {static_cast<float>((a.x - patch.x0) * p),
          static_cast<float>((a.y - patch.y0) * p),
          static_cast<float>(a.a11 * s),
          static_cast<float>(a.a12 * s),
          static_cast<float>(a.a21 * s),
          static_cast<float>(a.a22 * s),
          static_cast<float>(a.h1 * spacing),
          static_cast<float>(a.h2 * spacing)};
}

// Takes the parts along a constant and along the template out of a column of the Jacobian, which makes gain
// and bias free.
inline void TakeOutGainAndBias(const float* tmpl, const SupportView& support, float* column) {
  VN mean{}, along{};
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN w = Load(support.weight + k) * Load(column + k);
    mean += w;
    along += w * Load(tmpl + k);
  }
  const float m = Sum(mean), t = Sum(along);
  for (int k = 0; k < support.num_padded; k += kLanes) {
    Store(column + k, Load(column + k) - m - t * Load(tmpl + k));
  }
}

struct Residual {
  alignas(
      64) float value[kMaxNodes];  // samples first, then their difference to the template at its best gain
  alignas(64) float weight[kMaxNodes];  // of the window and Huber's
  float correlation;
  float limit;  // of Huber's loss: twice the robust deviation
  double variance;
};

// Turns samples into the residual. Returns their deviation; correlation and residual are meaningless if it is
// tiny.
inline float CompareWith(const float* tmpl, const SupportView& support, Residual* residual) {
  const float shift = residual->value[support.num_nodes / 2];  // keeps the sum of squares from cancelling
  VN sum{}, square{}, dot{};
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN d = Load(residual->value + k) - shift, wd = Load(support.weight + k) * d;
    sum += wd;
    square += wd * d;
    dot += wd * Load(tmpl + k);
  }
  const float mean = Sum(sum), deviation = sqrtf(fmaxf(Sum(square) - mean * mean, 0));
  residual->correlation = Sum(dot) / deviation;
  const float scale = 1 / (deviation * fmaxf(residual->correlation, .1f));
  const VN offset = Splat((shift + mean) * scale);
  VN absolute{};
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN r = Load(residual->value + k) * scale - offset - Load(tmpl + k);
    Store(residual->value + k, r);
    absolute += Load(support.weight + k) * Abs(r);
  }
  residual->limit = 2 * (1.2533f * Sum(absolute) + 1e-9f);
  return deviation;
}

// Huber's weights, the residual's robust variance, and the gradient of half its square by the parameters,
// whose columns of the Jacobian lie `stride` apart.
template <int kParams>
inline void AccumulateGradient(const float* jacobian, int stride, const SupportView& support,
                               Residual* residual, double* gradient) {
  const VN limit = Splat(residual->limit);
  VN b[kParams] = {}, square{}, total{};
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN r = Load(residual->value + k), size = Abs(r);
    VN w = Load(support.weight + k);
    w = Select(size > limit, w * limit / size, w);
    Store(residual->weight + k, w);
    const VN wr = w * r;
    square += wr * r;
    total += w;
    for (int p = 0; p < kParams; ++p) b[p] += wr * Load(jacobian + p * stride + k);
  }
  for (int p = 0; p < kParams; ++p) gradient[p] = Sum(b[p]);
  residual->variance = Sum(square) / Sum(total);
}

}  // namespace
}  // namespace pixcli::PIXCLI_ISA
