// Values and derivatives of patches of feature maps, with the kernels of this machine.
#pragma once

#include <cstdint>
#include <vector>

#include "core/interpolation_kernel.h"

namespace pixcli {

// The kernels of the instruction set in use.
struct Kernels {
  void (*sample)(const Sampling&, const void*, double, double, float*);
  void (*sample_double)(const Sampling&, const void*, double, double, double*);
  void (*edge_products)(const float*, const float*, int64_t, EdgeProducts*);
  void (*gram)(const float*, int64_t, Gram*);
  void (*residual_gram)(const float*, const float*, int64_t, ResidualGram*);
  void (*residual_gram_double)(const double*, const double*, int64_t, ResidualGram*);
  float (*multiply_add)(int64_t);
};
const Kernels& CurrentKernels();
const Kernels& PortableKernels();

// The kernels by the precision in which samples are computed.
inline void SampleWith(const Kernels& k, const Sampling& s, const void* patch, double u, double v,
                       float* rows) {
  k.sample(s, patch, u, v, rows);
}
inline void SampleWith(const Kernels& k, const Sampling& s, const void* patch, double u, double v,
                       double* rows) {
  k.sample_double(s, patch, u, v, rows);
}
inline ResidualGram ResidualGramWith(const Kernels& k, const float* rows, const float* reference,
                                     int64_t dimension) {
  ResidualGram gram;
  k.residual_gram(rows, reference, dimension, &gram);
  return gram;
}
inline ResidualGram ResidualGramWith(const Kernels& k, const double* rows, const double* reference,
                                     int64_t dimension) {
  ResidualGram gram;
  k.residual_gram_double(rows, reference, dimension, &gram);
  return gram;
}

// The options of Sampling, without the shape of a patch.
struct InterpolationOptions {
  bool bilinear = false;
  bool l2_normalize = true;
  bool ncc_normalize = false;
  std::vector<double> nodes = {0, 0};  // x, y; x, y; ...
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

// Multiply-adds of one sample without normalisation, for benchmarks.
int64_t SampleMultiplyAdds(const Sampling& sampling);

// Seconds for `repeats` samples around the centre of one patch, and for as many multiply-adds at full speed.
struct SampleTiming {
  double sample_seconds, peak_seconds;
};
SampleTiming TimeSample(const Sampling& sampling, const void* patch, int64_t repeats);

}  // namespace pixcli
