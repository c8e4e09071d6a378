// The plain interface of the interpolation and inner-product kernels, which exist once for each instruction
// set.
#pragma once

#include <stdint.h>

namespace pixcli {

enum class Storage : int32_t { kHalf, kFloat, kDouble };

// How patches of shape (height, width, channels) are sampled; channels are innermost.
struct Sampling {
  Storage storage;
  int32_t height, width, channels;
  bool bilinear;  // else bicubic (Catmull-Rom)
  bool l2_normalize, ncc_normalize;
  int32_t num_nodes;
  const double* nodes;  // (num_nodes, 2): x, y offsets in samples
};

// Kernels write whole vectors and read them again without a tail: a row of `dimension` values is followed by
// zeros up to a multiple of this, and by as much room again.
constexpr int64_t kRowAlignment = 16;

inline int64_t PaddedDimension(int64_t dimension) {
  return (dimension + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
}
inline int64_t RowStride(int64_t dimension) { return PaddedDimension(dimension) + kRowAlignment; }

// What the robust cost of an edge and its normal equations need, with d = f_i - f_j.
struct EdgeProducts {
  double dd;                      // ‖d‖²
  double d_ui, d_vi, d_uj, d_vj;  // d · derivatives of either end
  double uu, uv, vu, vv;          // derivatives of i · derivatives of j, x of i and y of j being uv
};

struct Gram {
  double ff, uu, uv, vv;
};

// Inner products of a sample's derivatives u, v and its residual r = f - reference.
struct ResidualGram {
  double uu, uv, vv, ur, vr, rr;
};

#define PIXCLI_DECLARE_KERNELS(isa)                                                                          \
  namespace isa {                                                                                            \
  /* Three rows of RowStride() values: f, its derivative along x and along y, at (u, v) of a patch. */       \
  void Sample(const Sampling& sampling, const void* patch, double u, double v, float* rows);                 \
  void Sample(const Sampling& sampling, const void* patch, double u, double v, double* rows);                \
  void ComputeEdgeProducts(const float* rows_i, const float* rows_j, int64_t dimension, EdgeProducts* out);  \
  void ComputeGram(const float* rows, int64_t dimension, Gram* out);                                         \
  /* `reference` is zero from its dimension to PaddedDimension(). */                                         \
  void ComputeResidualGram(const float* rows, const float* reference, int64_t dimension, ResidualGram* out); \
  void ComputeResidualGram(const double* rows, const double* reference, int64_t dimension,                   \
                           ResidualGram* out);                                                               \
  /* `count` independent multiply-adds, 8 in a register where there is AVX2: the yardstick of benchmarks. */ \
  float MultiplyAdd(int64_t count);                                                                          \
  }
PIXCLI_DECLARE_KERNELS(baseline)
PIXCLI_DECLARE_KERNELS(avx2)
PIXCLI_DECLARE_KERNELS(avx512)
#undef PIXCLI_DECLARE_KERNELS

}  // namespace pixcli
