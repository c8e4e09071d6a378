// Inverse-compositional Gauss-Newton of a patch to a template on a local homography, invariant to gain and
// bias, with Huber weights. Samples are taken by the cubic B-spline without prefilter: it blurs by 1/sqrt(3) of a
// sample, which the scale-space levels account for, and has smooth gradients.
#include "core/alignment_kernel.h"

#include <math.h>

namespace pixcli {
namespace PIXCLI_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float V4 __attribute__((vector_size(16)));
typedef float V4Unaligned __attribute__((vector_size(16), aligned(4)));
typedef float VN __attribute__((vector_size(kLanes * sizeof(float))));

constexpr int kMaxPatch = 192;  // samples a side
constexpr double kMaxStep = 1.5;  // pixels an iteration
constexpr double kMaxWarpStep = 0.3;

inline VN Load(const float* p) { return *reinterpret_cast<const VN*>(p); }
inline void Store(float* p, VN v) { *reinterpret_cast<VN*>(p) = v; }
inline VN Splat(float v) { return v - VN{}; }
inline VN Abs(VN v) { return v < 0 ? -v : v; }

inline float Sum(VN v) {
  float s = 0;
  for (int i = 0; i < kLanes; ++i) s += v[i];
  return s;
}

// The samples of one patch as floats, with room to read four from the last one.
struct Samples {
  alignas(64) float data[kMaxPatch * kMaxPatch + 16];
  int width, height;
};

bool Decode(const PatchView& patch, Samples* out) {
  if (patch.width < 4 || patch.height < 4 || patch.width > kMaxPatch || patch.height > kMaxPatch) return false;
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

inline V4 SplineWeights(float f) {
  const V4 c0 = {1 / 6.f, 4 / 6.f, 1 / 6.f, 0}, c1 = {-.5f, 0, .5f, 0}, c2 = {.5f, -1, .5f, 0},
           c3 = {-1 / 6.f, .5f, -.5f, 1 / 6.f};
  return c0 + f * (c1 + f * (c2 + f * c3));
}

inline V4 SplineSlopes(float f) {
  const V4 c1 = {-.5f, 0, .5f, 0}, c2 = {1, -2, 1, 0}, c3 = {-.5f, 1.5f, -1.5f, .5f};
  return c1 + f * (c2 + f * c3);
}

inline V4 LoadRow(const float* p) { return *reinterpret_cast<const V4Unaligned*>(p); }

// The 4x4 samples around a node, reduced along v; *slope along v as well if asked for.
struct Node {
  const float* corner;
  float fu, fv;
};

inline Node Locate(const Samples& s, float u, float v) {
  const int i = static_cast<int>(u), j = static_cast<int>(v);
  return {s.data + (j - 1) * s.width + i - 1, u - i, v - j};
}

inline V4 Rows(const Node& node, int width, V4 w) {
  const float* p = node.corner;
  return w[0] * LoadRow(p) + w[1] * LoadRow(p + width) + (w[2] * LoadRow(p + 2 * width) + w[3] * LoadRow(p + 3 * width));
}

inline float Dot(V4 a, V4 b) {
  const V4 p = a * b;
  return (p[0] + p[1]) + (p[2] + p[3]);
}

void NodeCoordinates(const NodeMap& m, const SupportView& support, float* u, float* v) {
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN x = Load(support.x + k), y = Load(support.y + k);
    const VN w = 1 / (1 + m.wx * x + m.wy * y);
    Store(u + k, m.u + (m.ux * x + m.uy * y) * w);
    Store(v + k, m.v + (m.vx * x + m.vy * y) * w);
  }
}

void SampleValues(const Samples& s, const NodeMap& m, const SupportView& support, float* out) {
  alignas(64) float u[kMaxNodes], v[kMaxNodes];
  NodeCoordinates(m, support, u, v);
  for (int k = 0; k < support.num_padded; ++k) {
    const Node node = Locate(s, u[k], v[k]);
    out[k] = Dot(SplineWeights(node.fu), Rows(node, s.width, SplineWeights(node.fv)));
  }
}

void SampleGradients(const Samples& s, const NodeMap& m, const SupportView& support, float* out, float* gu,
                     float* gv) {
  alignas(64) float u[kMaxNodes], v[kMaxNodes];
  NodeCoordinates(m, support, u, v);
  for (int k = 0; k < support.num_padded; ++k) {
    const Node node = Locate(s, u[k], v[k]);
    const V4 rows = Rows(node, s.width, SplineWeights(node.fv)), w = SplineWeights(node.fu);
    out[k] = Dot(w, rows);
    gu[k] = Dot(SplineSlopes(node.fu), rows);
    gv[k] = Dot(w, Rows(node, s.width, SplineSlopes(node.fv)));
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

NodeMap MapOf(const PatchView& patch, const Alignment& a, double spacing) {
  const double p = 1 / patch.pitch, s = spacing * p;
  return {static_cast<float>((a.x - patch.x0) * p), static_cast<float>((a.y - patch.y0) * p),
          static_cast<float>(a.a11 * s),            static_cast<float>(a.a12 * s),
          static_cast<float>(a.a21 * s),            static_cast<float>(a.a22 * s),
          static_cast<float>(a.h1 * spacing),       static_cast<float>(a.h2 * spacing)};
}

Outcome MakeTemplate(const PatchView& patch, const SupportView& support, double x, double y, Template* out) {
  Samples samples;
  Alignment identity = {};
  identity.x = x, identity.y = y, identity.a11 = identity.a22 = 1;
  const NodeMap map = MapOf(patch, identity, out->spacing);
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

struct NormalEquations {
  double h[kNumParams][kNumParams];  // lower triangle
  double b[kNumParams];
  double variance;  // robust variance of the residual
};

// The residual of the normalised samples against the template at its best gain, and its normal equations with Huber
// weights at twice the residual's robust deviation. Returns the correlation.
float Accumulate(const SupportView& support, const Template& tmpl, float* value, NormalEquations* eq) {
  VN dot{};
  for (int k = 0; k < support.num_padded; k += kLanes) {
    dot += Load(support.weight + k) * Load(value + k) * Load(tmpl.value + k);
  }
  const float correlation = Sum(dot);
  const float gain = 1 / fmaxf(correlation, .1f);
  VN absolute{};
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN r = Load(value + k) * gain - Load(tmpl.value + k);
    Store(value + k, r);
    absolute += Load(support.weight + k) * Abs(r);
  }
  const VN limit = Splat(2 * (1.2533f * Sum(absolute) + 1e-9f));
  VN h[kNumParams * (kNumParams + 1) / 2] = {}, b[kNumParams] = {}, square{}, total{};
  for (int k = 0; k < support.num_padded; k += kLanes) {
    const VN r = Load(value + k), size = Abs(r);
    VN w = Load(support.weight + k);
    w = size > limit ? w * limit / size : w;
    square += w * r * r;
    total += w;
    VN j[kNumParams];
    for (int p = 0; p < kNumParams; ++p) j[p] = Load(tmpl.jacobian[p] + k);
    for (int p = 0, i = 0; p < kNumParams; ++p) {
      const VN wj = w * j[p];
      b[p] += wj * r;
      for (int q = 0; q <= p; ++q, ++i) h[i] += wj * j[q];
    }
  }
  for (int p = 0, i = 0; p < kNumParams; ++p) {
    eq->b[p] = Sum(b[p]);
    for (int q = 0; q <= p; ++q, ++i) eq->h[p][q] = Sum(h[i]);
  }
  eq->variance = Sum(square) / Sum(total);
  return correlation;
}

// The prior of the perspective part, whose mean is none. Its parameters are in units of h * spacing^2, and the
// increment is composed inversely, hence the signs.
void AddPerspectivePrior(const Template& tmpl, const SupportView& support, const Alignment& a, NormalEquations* eq) {
  const double unit = tmpl.spacing * tmpl.spacing, deviation = tmpl.perspective_deviation * unit;
  const double weight = eq->variance / (support.independent * deviation * deviation);
  const double h[2] = {a.h1 * unit, a.h2 * unit};
  for (int p = 0; p < 2; ++p) {
    eq->h[6 + p][6 + p] += weight;
    eq->b[6 + p] += weight * h[p];
  }
}

// Cholesky factor of the lower triangle in place; false if it is not positive definite.
bool Factor(double h[kNumParams][kNumParams]) {
  for (int i = 0; i < kNumParams; ++i) {
    const double diagonal = h[i][i];
    for (int j = 0; j <= i; ++j) {
      double s = h[i][j];
      for (int k = 0; k < j; ++k) s -= h[i][k] * h[j][k];
      if (i != j) {
        h[i][j] = s / h[j][j];
      } else if (s > 1e-12 * diagonal) {
        h[i][i] = sqrt(s);
      } else {
        return false;
      }
    }
  }
  return true;
}

void Solve(const double l[kNumParams][kNumParams], const double b[kNumParams], double x[kNumParams]) {
  for (int i = 0; i < kNumParams; ++i) {
    double s = b[i];
    for (int k = 0; k < i; ++k) s -= l[i][k] * x[k];
    x[i] = s / l[i][i];
  }
  for (int i = kNumParams - 1; i >= 0; --i) {
    double s = x[i];
    for (int k = i + 1; k < kNumParams; ++k) s -= l[k][i] * x[k];
    x[i] = s / l[i][i];
  }
}

// Composes the warp with the inverse of the increment d, limited to a trust region. Returns the shift in image pixels
// and stores the largest change of the linear map.
double Compose(const double d[kNumParams], double spacing, Alignment* a, double* warp_change) {
  double largest = 0;
  for (int p = 2; p < 6; ++p) largest = fmax(largest, fabs(d[p]) / spacing);
  const double length = sqrt(d[0] * d[0] + d[1] * d[1]);
  const double k = fmin(length > kMaxStep ? kMaxStep / length : 1, largest > kMaxWarpStep ? kMaxWarpStep / largest : 1);
  const double s = k / spacing, t = s / spacing;
  // The increment as a homography of template pixels, and its adjugate, which is its inverse up to scale.
  const double e[3][3] = {{1 + s * d[2], s * d[3], k * d[0]}, {s * d[4], 1 + s * d[5], k * d[1]}, {t * d[6], t * d[7], 1}};
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
    for (int j = 0; j < 3; ++j) n[i][j] = w[i][0] * inverse[0][j] + w[i][1] * inverse[1][j] + w[i][2] * inverse[2][j];
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

void PositionCovariance(const double l[kNumParams][kNumParams], double variance, Alignment* a) {
  double c[2][kNumParams];
  for (int i = 0; i < 2; ++i) {
    double e[kNumParams] = {};
    e[i] = 1;
    Solve(l, e, c[i]);
  }
  const double p = variance * c[0][0], q = variance * c[0][1], r = variance * c[1][1];
  a->cov_xx = a->a11 * a->a11 * p + 2 * a->a11 * a->a12 * q + a->a12 * a->a12 * r;
  a->cov_xy = a->a11 * a->a21 * p + (a->a11 * a->a22 + a->a12 * a->a21) * q + a->a12 * a->a22 * r;
  a->cov_yy = a->a21 * a->a21 * p + 2 * a->a21 * a->a22 * q + a->a22 * a->a22 * r;
}

void Align(const PatchView& patch, const SupportView& support, const Template& tmpl,
           const AlignmentLimits& limits, Alignment* a) {
  Samples samples;
  a->outcome = static_cast<int32_t>(Outcome::kOutside);
  a->iterations = 0;
  a->initial_correlation = a->correlation = -1;
  a->cov_xx = a->cov_xy = a->cov_yy = NAN;
  if (!Decode(patch, &samples)) return;
  const double x0 = a->x, y0 = a->y, spacing = tmpl.spacing;
  alignas(64) float value[kMaxNodes];
  NormalEquations eq;
  for (bool last = false;; ++a->iterations) {
    const NodeMap map = MapOf(patch, *a, spacing);
    if (!Inside(map, support.radius, samples)) return;
    SampleValues(samples, map, support, value);
    if (Normalise(support, value) < kFlat) {
      a->outcome = static_cast<int32_t>(Outcome::kFlat);
      return;
    }
    a->correlation = Accumulate(support, tmpl, value, &eq);
    if (a->iterations == 0) a->initial_correlation = a->correlation;
    a->outcome = static_cast<int32_t>(Outcome::kDiverged);
    AddPerspectivePrior(tmpl, support, *a, &eq);
    if (!(a->correlation > .1) || !Factor(eq.h)) return;
    if (last) break;
    double d[kNumParams], warp_change;
    Solve(eq.h, eq.b, d);
    const double shift = Compose(d, spacing, a, &warp_change);
    if (!(fabs(a->x - x0) < limits.max_excursion && fabs(a->y - y0) < limits.max_excursion)) return;
    // One more evaluation after the last step, for its correlation and covariance.
    last = (shift < limits.step_tolerance && warp_change * spacing < 2.5 * limits.step_tolerance) ||
           a->iterations + 1 >= limits.max_iterations;
  }
  a->outcome = static_cast<int32_t>(Outcome::kConverged);
  PositionCovariance(eq.h, eq.variance / support.independent, a);
}

}  // namespace

extern const AlignmentKernel kAlignmentKernel;
const AlignmentKernel kAlignmentKernel = {MakeTemplate, Align};

}  // namespace PIXCLI_ISA
}  // namespace pixcli
