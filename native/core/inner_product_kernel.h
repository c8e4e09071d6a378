// Inner products of sampled features, compiled for every instruction set. Plain data only.
#pragma once

#include <stdint.h>

#include "core/interpolation_kernel.h"

namespace pixcli {

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

// Of rows as InterpolationKernel writes them; `reference` is zero from its dimension to PaddedDimension().
struct InnerProductKernel {
  void (*edge_products)(const float* rows_i, const float* rows_j, int64_t dimension, EdgeProducts* out);
  void (*gram)(const float* rows, int64_t dimension, Gram* out);
  void (*residual_gram)(const float* rows, const float* reference, int64_t dimension, ResidualGram* out);
  void (*residual_gram_double)(const double* rows, const double* reference, int64_t dimension,
                               ResidualGram* out);
};

}  // namespace pixcli
