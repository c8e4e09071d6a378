#include "core/convolution.h"

#include <algorithm>
#include <vector>

#include "core/kernels.h"

namespace pixcli {
bool Convolve(Convolution v, int32_t out_height, int num_threads, const Poll& poll) {
  v.padded = (v.outputs + kConvolutionPadding - 1) / kConvolutionPadding * kConvolutionPadding;
  const int64_t taps = static_cast<int64_t>(v.size) * v.size * v.inputs;
  std::vector<float> weights(taps * v.padded), bias(v.padded);
  for (int64_t i = 0; i < taps; ++i)
    std::copy_n(v.weights + i * v.outputs, v.outputs, weights.begin() + i * v.padded);
  std::copy_n(v.bias, v.outputs, bias.begin());
  v.weights = weights.data();
  v.bias = bias.data();
  const auto convolve_row = CurrentKernels().convolution.convolve_row;
  return ParallelFor(out_height, 8, num_threads, poll, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) convolve_row(v, static_cast<int32_t>(row));
  });
}

}  // namespace pixcli
