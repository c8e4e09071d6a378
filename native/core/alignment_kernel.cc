// Inverse-compositional Gauss-Newton of a patch to a template on a local homography, invariant to gain and
// bias, with Huber weights. Samples are taken by the cubic B-spline without prefilter: it blurs by 1/sqrt(3)
// of a sample, which the scale-space levels account for, and has smooth gradients.
#include "core/alignment_kernel.h"

#include <math.h>

#include "core/lanes.h"

namespace pixcli::PIXCLI_ISA {
namespace {

constexpr int kLanes = kLanesOf<float>;
typedef Vector<double, 2> V2;
typedef Vector<float, 4> V4;
typedef float V4Unaligned __attribute__((vector_size(16), aligned(4)));
typedef Vector<float, 8> V8;
typedef Vector<int64_t, 4> Pair4;
typedef Lanes<float> VN;
typedef Vector<int32_t, kLanes> VNInt;

constexpr int kMaxPatch = 192;    // samples a side
constexpr double kMaxStep = 1.5;  // pixels an iteration
constexpr double kMaxWarpStep = 0.3;
constexpr double kSettled = 0.15;  // pixels; the Hessian is kept from there on

inline VN Load(const float* p) { return *reinterpret_cast<const VN*>(p); }  // aligned
inline VN Splat(float v) { return v - VN{}; }
inline VN Abs(VN v) { return v < 0 ? -v : v; }
inline VNInt Interleaved(int first) {
  VNInt order = {};
  for (int i = 0; i < kLanes; ++i) order[i] = first + i / 2 + (i % 2) * kLanes;
  return order;
}
inline V4 LoadRow(const float* p) { return *reinterpret_cast<const V4Unaligned*>(p); }

// The samples of one patch as floats, with room to read four from the last one.
struct Samples {
  alignas(64) float data[kMaxPatch * kMaxPatch + 16];
  int width, height;
};

bool Decode(const PatchView& patch, Samples* out) {
  if (patch.width < 4 || patch.height < 4 || patch.width > kMaxPatch || patch.height > kMaxPatch)
    return false;
  const int n = patch.width * patch.height;
  for (int i = 0; i < n; ++i) out->data[i] = patch.data[i];
  out->width = patch.width;
  out->height = patch.height;
  return true;
}

// A homography from nodes to patch coordinates (sample 0 at 0).
struct NodeMap {
  float u, v, ux, uy, vx, vy, wx, wy;
};

// Whether every node, within [-radius, radius]^2, has its 4x4 samples inside the patch.
bool Inside(const NodeMap& m, float radius, const Samples& s) {
  const float least = 1 - radius * (fabsf(m.wx) + fabsf(m.wy));
  if (!(least > .5f)) return false;
  const float reach = radius / least;
  const float du = reach * (fabsf(m.ux) + fabsf(m.uy)), dv = reach * (fabsf(m.vx) + fabsf(m.vy));
  return m.u - du >= 1 && m.v - dv >= 1 && m.u + du < s.width - 2.001f && m.v + dv < s.height - 2.001f;
}

// The cubic B-spline's four weights at fraction f, and their derivatives.
constexpr V4 kWeight0 = {1 / 6.f, 4 / 6.f, 1 / 6.f, 0}, kWeight1 = {-.5f, 0, .5f, 0},
             kWeight2 = {.5f, -1, .5f, 0}, kWeight3 = {-1 / 6.f, .5f, -.5f, 1 / 6.f};
inline V8 TwoOfEach(V4 v) { return __builtin_shufflevector(v, v, 0, 0, 1, 1, 2, 2, 3, 3); }
inline V4 SplineWeights(float f) { return kWeight0 + f * (kWeight1 + f * (kWeight2 + f * kWeight3)); }
inline V4 SplineSlopes(float f) { return kWeight1 + f * (2 * kWeight2 + f * (3 * kWeight3)); }

// Where the nodes fall: the first of a node's 4x4 samples, and its fractions along u and v within its cell.
struct Cells {
  alignas(64) int32_t corner[kMaxNodes];
  alignas(64) float fraction[kMaxNodes][2];

  int64_t Fractions(int k) const {  // both of a node, as they lie in memory
    int64_t both;
    __builtin_memcpy(&both, fraction[k], sizeof(both));
    return both;
  }
};

void Locate(const Samples& s, const NodeMap& m, const SupportView& support, Cells* cells) {
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN x = Load(support.x + k), y = Load(support.y + k);
    const VN w = 1 / (1 + m.wx * x + m.wy * y);
    const VN u = m.u + (m.ux * x + m.uy * y) * w, v = m.v + (m.vx * x + m.vy * y) * w;
    const VNInt i = __builtin_convertvector(u, VNInt), j = __builtin_convertvector(v, VNInt);
    const VN fu = u - __builtin_convertvector(i, VN), fv = v - __builtin_convertvector(j, VN);
    Store(cells->fraction[k], __builtin_shuffle(fu, fv, Interleaved(0)));
    Store(cells->fraction[k] + kLanes, __builtin_shuffle(fu, fv, Interleaved(kLanes / 2)));
    *reinterpret_cast<VNInt*>(cells->corner + k) = (j - 1) * s.width + (i - 1);
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
  return __builtin_shufflevector(a, b, 0, 2, 8, 10, 4, 6, 12, 14) +
         __builtin_shufflevector(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
}

// A node at a time: the four rows of its samples in two vectors, so that the sum of 16 products takes few
// instructions.
void SampleValues(const Samples& s, const NodeMap& m, const SupportView& support, float* out) {
  Cells cells;
  Locate(s, m, support, &cells);
  // The weights along u and along v, in turn.
  const V8 c0 = TwoOfEach(kWeight0), c1 = TwoOfEach(kWeight1), c2 = TwoOfEach(kWeight2),
           c3 = TwoOfEach(kWeight3);
  for (int k = 0; k < support.num_padded; k += 8) {
    V8 product[8];
    for (int i = 0; i < 8; ++i) {
      const float* p = s.data + cells.corner[k + i];
      const int64_t both = cells.Fractions(k + i);
      const V8 f = reinterpret_cast<V8>(Pair4{both, both, both, both});
      const V8 w = c0 + f * (c1 + f * (c2 + f * c3));
      const V8 rows01 = __builtin_shufflevector(LoadRow(p), LoadRow(p + s.width), 0, 1, 2, 3, 4, 5, 6, 7);
      const V8 rows23 =
          __builtin_shufflevector(LoadRow(p + 2 * s.width), LoadRow(p + 3 * s.width), 0, 1, 2, 3, 4, 5, 6, 7);
      product[i] = (rows01 * __builtin_shufflevector(w, w, 1, 1, 1, 1, 3, 3, 3, 3) +
                    rows23 * __builtin_shufflevector(w, w, 5, 5, 5, 5, 7, 7, 7, 7)) *
                   __builtin_shufflevector(w, w, 0, 2, 4, 6, 0, 2, 4, 6);
    }
    const V8 first = AddPairs(AddPairs(product[0], product[1]), AddPairs(product[2], product[3]));
    const V8 second = AddPairs(AddPairs(product[4], product[5]), AddPairs(product[6], product[7]));
    *reinterpret_cast<V8*>(out + k) = __builtin_shufflevector(first, second, 0, 1, 2, 3, 8, 9, 10, 11) +
                                      __builtin_shufflevector(first, second, 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

#else

void SampleValues(const Samples& s, const NodeMap& m, const SupportView& support, float* out) {
  Cells cells;
  Locate(s, m, support, &cells);
  for (int k = 0; k < support.num_padded; ++k) {
    const V4 rows = Rows(s.data + cells.corner[k], s.width, SplineWeights(cells.fraction[k][1]));
    out[k] = Dot(SplineWeights(cells.fraction[k][0]), rows);
  }
}

#endif

void SampleGradients(const Samples& s, const NodeMap& m, const SupportView& support, float* out, float* gu,
                     float* gv) {
  Cells cells;
  Locate(s, m, support, &cells);
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
float Normalise(const SupportView& support, float* value) {
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

NodeMap MapOf(const PatchView& patch, const Warp& a, double spacing) {
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

Outcome MakeTemplate(const PatchView& patch, const SupportView& support, double x, double y, Template* out) {
  Samples samples;
  const NodeMap map = MapOf(patch, {x, y, 1, 0, 0, 1, 0, 0}, out->spacing);
  if (!Decode(patch, &samples) || !Inside(map, support.radius, samples)) return Outcome::kOutside;
  SampleGradients(samples, map, support, out->value, out->jacobian[0], out->jacobian[1]);
  out->deviation = Normalise(support, out->value);
  if (out->deviation < kFlat) return Outcome::kFlat;
  // By pixels of the root for the position, by nodes for the rest.
  const float scale = static_cast<float>(1 / (patch.pitch * out->deviation));
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN x_node = Load(support.x + k), y_node = Load(support.y + k);
    const VN a = Load(out->jacobian[0] + k) * scale, b = Load(out->jacobian[1] + k) * scale;
    const VN radial = -(a * x_node + b * y_node);
    const VN columns[kNumParams] = {a,          b,          a * x_node,      a * y_node,
                                    b * x_node, b * y_node, radial * x_node, radial * y_node};
    for (int p = 0; p < kNumParams; ++p) Store(out->jacobian[p] + k, columns[p]);
  }
  for (auto& column : out->jacobian) {
    VN mean{}, along{};
    for (int k = 0; k < support.num_padded; k += kLanes) {
      const VN w = Load(support.weight + k) * Load(column + k);
      mean += w;
      along += w * Load(out->value + k);
    }
    const float m = Sum(mean), t = Sum(along);
    for (int k = 0; k < support.num_padded; k += kLanes) {
      Store(column + k, Load(column + k) - m - t * Load(out->value + k));
    }
  }
  return Outcome::kConverged;
}

struct Residual {
  alignas(
      64) float value[kMaxNodes];  // samples first, then their difference to the template at its best gain
  alignas(64) float weight[kMaxNodes];  // of the window and Huber's
  float correlation;
  float limit;  // of Huber's loss: twice the robust deviation
  double variance;
};

struct NormalEquations {
  double h[kNumParams][kNumParams];  // lower triangle
  double b[kNumParams];
};

// Turns samples into the residual. Returns their deviation; correlation and residual are meaningless if it is
// tiny.
float CompareWith(const Template& tmpl, const SupportView& support, Residual* residual) {
  const float shift = residual->value[support.num_nodes / 2];  // keeps the sum of squares from cancelling
  VN sum{}, square{}, dot{};
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN d = Load(residual->value + k) - shift, wd = Load(support.weight + k) * d;
    sum += wd;
    square += wd * d;
    dot += wd * Load(tmpl.value + k);
  }
  const float mean = Sum(sum), deviation = sqrtf(fmaxf(Sum(square) - mean * mean, 0));
  residual->correlation = Sum(dot) / deviation;
  const float scale = 1 / (deviation * fmaxf(residual->correlation, .1f));
  const VN offset = Splat((shift + mean) * scale);
  VN absolute{};
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN r = Load(residual->value + k) * scale - offset - Load(tmpl.value + k);
    Store(residual->value + k, r);
    absolute += Load(support.weight + k) * Abs(r);
  }
  residual->limit = 2 * (1.2533f * Sum(absolute) + 1e-9f);
  return deviation;
}

// Huber's weights, the residual's robust variance and the gradient of half its square.
void AccumulateGradient(const Template& tmpl, const SupportView& support, Residual* residual,
                        NormalEquations* eq) {
  const VN limit = Splat(residual->limit);
  VN b[kNumParams] = {}, square{}, total{};
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN r = Load(residual->value + k), size = Abs(r);
    VN w = Load(support.weight + k);
    w = size > limit ? w * limit / size : w;
    Store(residual->weight + k, w);
    const VN wr = w * r;
    square += wr * r;
    total += w;
    for (int p = 0; p < kNumParams; ++p) b[p] += wr * Load(tmpl.jacobian[p] + k);
  }
  for (int p = 0; p < kNumParams; p += 4) {
    const V4 sums = SumFour(b[p], b[p + 1], b[p + 2], b[p + 3]);
    for (int q = 0; q < 4; ++q) eq->b[p + q] = sums[q];
  }
  residual->variance = Sum(square) / Sum(total);
}

// The rows `first` to `last` - 1 of the lower triangle; in several calls, so that the sums stay in registers.
template <int first, int last>
inline void AccumulateHessianRows(const Template& tmpl, const SupportView& support, const Residual& residual,
                                  NormalEquations* eq) {
  constexpr int kCount = (last * (last + 1) - first * (first + 1)) / 2;
  VN h[(kCount + 3) / 4 * 4] = {};
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN w = Load(residual.weight + k);
    for (int p = first, i = 0; p < last; ++p) {
      const VN wj = w * Load(tmpl.jacobian[p] + k);
      for (int q = 0; q <= p; ++q, ++i) h[i] += wj * Load(tmpl.jacobian[q] + k);
    }
  }
  float sums[(kCount + 3) / 4 * 4];
  for (int i = 0; i < kCount; i += 4) Store(sums + i, SumFour(h[i], h[i + 1], h[i + 2], h[i + 3]));
  for (int p = first, i = 0; p < last; ++p) {
    for (int q = 0; q <= p; ++q, ++i) eq->h[p][q] = sums[i];
  }
}

void AccumulateHessian(const Template& tmpl, const SupportView& support, const Residual& residual,
                       NormalEquations* eq) {
  AccumulateHessianRows<0, 4>(tmpl, support, residual, eq);
  AccumulateHessianRows<4, 6>(tmpl, support, residual, eq);
  AccumulateHessianRows<6, 8>(tmpl, support, residual, eq);
}

// The weight of the prior of the perspective part, whose parameters are in units of h * spacing^2.
double PerspectivePrior(const Template& tmpl, const SupportView& support, double variance) {
  const double deviation = tmpl.perspective_deviation * tmpl.spacing * tmpl.spacing;
  return variance / (support.independent * deviation * deviation);
}

// Cholesky factor of a lower triangle, with the inverse of its diagonal; false if it is not positive
// definite.
bool Factor(const double h[kNumParams][kNumParams], double l[kNumParams][kNumParams]) {
#pragma GCC unroll 8
  for (int i = 0; i < kNumParams; ++i) {
    for (int j = 0; j <= i; ++j) {
      double s = h[i][j];
      for (int k = 0; k < j; ++k) s -= l[i][k] * l[j][k];
      if (i != j) {
        l[i][j] = s * l[j][j];
      } else if (s > 1e-12 * h[i][i]) {
        l[i][i] = 1 / sqrt(s);
      } else {
        return false;
      }
    }
  }
  return true;
}

// Takes the parameters from `first` on out of the normal equations.
void Freeze(int first, NormalEquations* eq) {
  for (int p = first; p < kNumParams; ++p) {
    for (int q = 0; q < p; ++q) eq->h[p][q] = 0;
    eq->h[p][p] = 1;
  }
}

// For one right-hand side or, as a vector, for several.
template <class T>
void Solve(const double l[kNumParams][kNumParams], const T b[kNumParams], T x[kNumParams]) {
#pragma GCC unroll 8
  for (int i = 0; i < kNumParams; ++i) {
    T s = b[i];
    for (int k = 0; k < i; ++k) s -= l[i][k] * x[k];
    x[i] = s * l[i][i];
  }
#pragma GCC unroll 8
  for (int i = kNumParams - 1; i >= 0; --i) {
    T s = x[i];
    for (int k = i + 1; k < kNumParams; ++k) s -= l[k][i] * x[k];
    x[i] = s * l[i][i];
  }
}

// Composes the warp with the inverse of the increment d, limited to a trust region. Returns the shift in
// image pixels and stores the largest change of the linear map.
double Compose(const double d[kNumParams], double spacing, Warp* a, double* warp_change) {
  double largest = 0;
  for (int p = 2; p < 6; ++p) largest = fmax(largest, fabs(d[p]) / spacing);
  const double length = sqrt(d[0] * d[0] + d[1] * d[1]);
  const double k =
      fmin(length > kMaxStep ? kMaxStep / length : 1, largest > kMaxWarpStep ? kMaxWarpStep / largest : 1);
  const double s = k / spacing, t = s / spacing;
  // The increment as a homography of template pixels, and its adjugate, which is its inverse up to scale.
  const double e[3][3] = {
      {1 + s * d[2], s * d[3], k * d[0]}, {s * d[4], 1 + s * d[5], k * d[1]}, {t * d[6], t * d[7], 1}};
  double inverse[3][3];
  for (int i = 0; i < 3; ++i) {
    const int i1 = (i + 1) % 3, i2 = (i + 2) % 3;
    for (int j = 0; j < 3; ++j) {
      const int j1 = (j + 1) % 3, j2 = (j + 2) % 3;
      inverse[j][i] = e[i1][j1] * e[i2][j2] - e[i1][j2] * e[i2][j1];
    }
  }
  const double w[3][3] = {{a->a11, a->a12, 0}, {a->a21, a->a22, 0}, {a->h1, a->h2, 1}};  // about (x, y)
  double n[3][3];
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j)
      n[i][j] = w[i][0] * inverse[0][j] + w[i][1] * inverse[1][j] + w[i][2] * inverse[2][j];
  }
  const double scale = 1 / n[2][2];
  for (auto& row : n) {
    for (double& value : row) value *= scale;
  }
  const double mx = n[0][2], my = n[1][2];
  a->x += mx;
  a->y += my;
  a->h1 = n[2][0], a->h2 = n[2][1];
  a->a11 = n[0][0] - mx * n[2][0], a->a12 = n[0][1] - mx * n[2][1];
  a->a21 = n[1][0] - my * n[2][0], a->a22 = n[1][1] - my * n[2][1];
  *warp_change = k * largest;
  return sqrt(mx * mx + my * my);
}

// What noise of `variance` in the template's normalised samples adds to the Hessian, times x: gradients are
// noisy as well, by kGradientNoise times that (per node squared) in any direction.
constexpr double kGradientNoise = 1.4;
void MultiplyGradientNoise(const SupportView& support, double variance, double spacing,
                           const V2 x[kNumParams], V2 product[kNumParams]) {
  const double noise = kGradientNoise * variance / (spacing * spacing);
  const double first = noise * support.second_moment, second = noise * support.fourth_moment;
  for (int p = 0; p < 2; ++p) {
    product[p] = noise * x[p] - first * x[p + 6];
    product[p + 6] = second * x[p + 6] - first * x[p];
  }
  for (int p = 2; p < 6; ++p) product[p] = first * x[p];
}

// A field over the support's nodes, row by row with a border of zeros.
class NodeField {
 public:
  NodeField(const float* values, int side) : side_(side), stride_(side + 2) {
    Clear(-1, 2 * stride_ + 1);
    for (int r = 0; r < side; ++r) {
      float* row = At((r + 2) * stride_ + 1);
      for (int c = 0; c < side; c += kLanes) Store(row + c, LoadAs<VN>(values + r * side + c));
      row[side] = row[side + 1] = 0;
    }
    Clear((side + 2) * stride_, (side + 4) * stride_ + kLanes);
  }

  // One vector of the field, smoothed so that white noise would get the correlation of the spline's samples a
  // step apart, wherever nodes fall between them: .49, two steps apart .05, at a variance of 1.
  VN Smoothed(int k) const {
    return (Row(k - stride_) + kMiddle * Row(k) + Row(k + stride_)) * (1 / (2 + kMiddle * kMiddle));
  }
  int begin() const { return stride_; }  // of what smoothing leaves other than zero
  int end() const { return (side_ + 3) * stride_; }

 private:
  static constexpr int kMaxSide = 31;
  static constexpr float kMiddle = 3.64f;
  VN Row(int k) const { return LoadAs<VN>(At(k - 1)) + kMiddle * LoadAs<VN>(At(k)) + LoadAs<VN>(At(k + 1)); }
  void Clear(int begin, int end) {
    for (int k = begin; k < end; ++k) *At(k) = 0;
  }
  float* At(int k) { return data_ + 1 + k; }
  const float* At(int k) const { return data_ + 1 + k; }

  int side_, stride_;
  float data_[(kMaxSide + 4) * (kMaxSide + 2) + 3 * kLanes];
};

// The covariance of the position: noise of the residual's variance, half of it the template's, carried
// through the solution. Neighbouring nodes share samples, which correlates their noise.
void PositionCovariance(const Template& tmpl, const SupportView& support, const Residual& residual,
                        int num_free, const double l[kNumParams][kNumParams], Alignment* a) {
  // Each parameter, gain and bias among them, has taken an independent sample out of the residual, of which
  // the correlation leaves about two thirds; the perspective is held by its prior.
  const double fitted = 1.5 * ((num_free < 6 ? num_free : 6) + 2);
  const double variance = residual.variance / fmax(1 - fitted / support.independent, .25);
  // Two rows of the inverse Hessian, from which the noise is taken out to first order: beyond, what disagrees
  // for other reasons would be taken for noise.
  V2 rows[kNumParams], noise[kNumParams];
  const V2 unit[kNumParams] = {{1, 0}, {0, 1}};
  Solve(l, unit, rows);
  MultiplyGradientNoise(support, variance / 2, tmpl.spacing, rows, noise);
  for (int p = 0; p < kNumParams; ++p) noise[p] = (p < num_free ? noise[p] : V2{}) + unit[p];
  Solve(l, noise, rows);
  alignas(64) float influence[2][kMaxNodes + kLanes];  // of each node on the position
  for (int k = 0; k < support.num_padded; k += kLanes) {
    VN x{}, y{};
    for (int p = 0; p < kNumParams; ++p) {
      const VN j = Load(tmpl.jacobian[p] + k);
      x += static_cast<float>(rows[p][0]) * j;
      y += static_cast<float>(rows[p][1]) * j;
    }
    const VN w = Load(residual.weight + k);
    Store(influence[0] + k, w * x);
    Store(influence[1] + k, w * y);
  }
  const int side = 2 * static_cast<int>(support.radius) + 1;
  const NodeField on_x(influence[0], side), on_y(influence[1], side);
  VN xx{}, xy{}, yy{};
  for (int k = on_x.begin(); k < on_x.end(); k += kLanes) {
    const VN x = on_x.Smoothed(k), y = on_y.Smoothed(k);
    xx += x * x;
    xy += x * y;
    yy += y * y;
  }
  const double p = variance * Sum(xx), q = variance * Sum(xy), r = variance * Sum(yy);
  const Warp& w = a->warp;
  a->cov_xx = w.a11 * w.a11 * p + 2 * w.a11 * w.a12 * q + w.a12 * w.a12 * r;
  a->cov_xy = w.a11 * w.a21 * p + (w.a11 * w.a22 + w.a12 * w.a21) * q + w.a12 * w.a22 * r;
  a->cov_yy = w.a21 * w.a21 * p + 2 * w.a21 * w.a22 * q + w.a22 * w.a22 * r;
}

// Samples the patch at a warp and compares it with the template.
Outcome Evaluate(const Samples& samples, const PatchView& patch, const SupportView& support,
                 const Template& tmpl, const Warp& warp, Residual* residual) {
  const NodeMap map = MapOf(patch, warp, tmpl.spacing);
  if (!Inside(map, support.radius, samples)) return Outcome::kOutside;
  SampleValues(samples, map, support, residual->value);
  return CompareWith(tmpl, support, residual) < kFlat ? Outcome::kFlat : Outcome::kConverged;
}

// Newton's iterations from a->warp, whose residual is given. The correlation and covariance are those of the
// result.
Outcome Iterate(const Samples& samples, const PatchView& patch, const SupportView& support,
                const Template& tmpl, const AlignmentLimits& limits, Residual* residual, Alignment* a) {
  const double x0 = a->warp.x, y0 = a->warp.y, spacing = tmpl.spacing, unit = spacing * spacing;
  NormalEquations eq;
  double factor[kNumParams][kNumParams], shift = kMaxStep;
  for (bool last = false;; ++a->iterations) {
    if (a->iterations > 0) {
      const Outcome outcome = Evaluate(samples, patch, support, tmpl, a->warp, residual);
      if (outcome != Outcome::kConverged) return outcome;
    }
    a->correlation = residual->correlation;
    if (!(a->correlation > .1)) return Outcome::kDiverged;
    AccumulateGradient(tmpl, support, residual, &eq);
    const double prior = PerspectivePrior(tmpl, support, residual->variance);
    // The Hessian changes with Huber's weights only, hardly any more once the steps are small.
    if (last || shift > kSettled) {
      AccumulateHessian(tmpl, support, *residual, &eq);
      eq.h[6][6] += prior;
      eq.h[7][7] += prior;
      if (limits.translation) Freeze(2, &eq);
      if (!Factor(eq.h, factor)) return Outcome::kDiverged;
    }
    if (last) break;
    eq.b[6] += prior * a->warp.h1 * unit;  // plus: the increment is composed inversely
    eq.b[7] += prior * a->warp.h2 * unit;
    if (limits.translation) {
      for (int p = 2; p < kNumParams; ++p) eq.b[p] = 0;
    }
    double d[kNumParams], warp_change;
    Solve(factor, eq.b, d);
    shift = Compose(d, spacing, &a->warp, &warp_change);
    if (!(fabs(a->warp.x - x0) < limits.max_excursion && fabs(a->warp.y - y0) < limits.max_excursion)) {
      return Outcome::kDiverged;
    }
    // One more evaluation after the last step, for its correlation and covariance.
    last = (shift < limits.step_tolerance && warp_change * spacing < 2.5 * limits.step_tolerance) ||
           a->iterations + 1 >= limits.max_iterations;
  }
  PositionCovariance(tmpl, support, *residual, limits.translation ? 2 : kNumParams, factor, a);
  return Outcome::kConverged;
}

void Align(const PatchView& patch, const SupportView& support, const Template& tmpl,
           const AlignmentLimits& limits, const Warp* starts, int num_starts, Alignment* a) {
  Samples samples;
  Residual residuals[2];
  int best = 0;  // which of the two belongs to the best start so far
  Outcome outcome = Outcome::kOutside;
  *a = {starts[0], -1, -1, NAN, NAN, NAN, 0, 0};
  const int candidates = Decode(patch, &samples) ? num_starts : 0;
  for (int i = 0; i < candidates; ++i) {
    const Outcome evaluated = Evaluate(samples, patch, support, tmpl, starts[i], &residuals[1 - best]);
    if (outcome != Outcome::kConverged) outcome = evaluated;
    if (evaluated != Outcome::kConverged) continue;
    const float correlation = residuals[1 - best].correlation;
    if (i == 0) a->initial_correlation = correlation;
    if (correlation > a->correlation) {
      a->correlation = correlation;
      a->warp = starts[i];
      best = 1 - best;
    }
  }
  if (outcome == Outcome::kConverged) {
    outcome = Iterate(samples, patch, support, tmpl, limits, &residuals[best], a);
  }
  a->outcome = static_cast<int32_t>(outcome);
}

}  // namespace

extern const AlignmentKernel kAlignmentKernel;
const AlignmentKernel kAlignmentKernel = {MakeTemplate, Align};

}  // namespace pixcli::PIXCLI_ISA
