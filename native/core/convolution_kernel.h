// One row of a convolution, compiled for every instruction set. Plain data only.
#pragma once

#include <stdint.h>

namespace pixcli {

// Maps are (height, width, channels). weights are (rows, columns, inputs, padded), bias (padded): output
// channels are padded to a multiple of kConvolutionPadding. Outside of the input are zeros.
constexpr int kConvolutionPadding = 32;
struct Convolution {
  const float *input, *weights, *bias;
  float* output;
  int32_t height, width, inputs;
  int32_t size, stride, padding;
  int32_t out_width, outputs, padded;
  bool rectify;
};

struct ConvolutionKernel {
  void (*convolve_row)(const Convolution& convolution, int32_t row);
};

}  // namespace pixcli
