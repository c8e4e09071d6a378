// Values and derivatives of patches of feature maps.
#pragma once

#include <cstdint>
#include <vector>

#include "core/kernels.h"

namespace pixcli {

// The kernels by the precision in which samples are computed.
inline void SampleWith(const Kernels& k, const Sampling& s, const void* patch, double u, double v,
                       float* rows) {
  k.interpolation.sample(s, patch, u, v, rows);
}
inline void SampleWith(const Kernels& k, const Sampling& s, const void* patch, double u, double v,
                       double* rows) {
  k.interpolation.sample_double(s, patch, u, v, rows);
}
inline ResidualGram ResidualGramWith(const Kernels& k, const float* rows, const float* reference,
                                     int64_t dimension) {
  ResidualGram gram;
  k.inner_products.residual_gram(rows, reference, dimension, &gram);
  return gram;
}
inline ResidualGram ResidualGramWith(const Kernels& k, const double* rows, const double* reference,
                                     int64_t dimension) {
  ResidualGram gram;
  k.inner_products.residual_gram_double(rows, reference, dimension, &gram);
  return gram;
}

// The options of Sampling, without the shape of a patch.
struct InterpolationOptions {
  bool bilinear;
  bool l2_normalize;
  bool ncc_normalize;
  std::vector<double> nodes;  // x, y; x, y; ...
};

// Borrows the nodes of `options`.
Sampling MakeSampling(const InterpolationOptions& options, Storage storage, int64_t height, int64_t width,
                      int64_t channels);

inline int64_t Dimension(const Sampling& sampling) {
  return static_cast<int64_t>(sampling.channels) * sampling.num_nodes;
}

inline int64_t PatchBytes(const Sampling& sampling) {
  const int64_t item = sampling.storage == Storage::kHalf ? 2 : sampling.storage == Storage::kFloat ? 4 : 8;
  return item * sampling.height * sampling.width * sampling.channels;
}

}  // namespace pixcli
