// Direct convolution: a block of neighbouring output pixels and of output channels stays in registers while
// the inputs under it are gone through, always in the same order, so that tiles give the same bits as whole
// images.
#include "core/convolution_kernel.h"

#include "core/lanes.h"

namespace pixcli::PIXCLI_ISA {
namespace {

constexpr int kLanes = kLanesOf<float>;
typedef Lanes<float> VN;
constexpr int kPixels = 6;
constexpr int kVectors = 2;

// Output pixels x to x + kCount - 1, which share the columns of the kernel from first to last - 1, and the
// channels from c on.
template <int kCount>
PIXCLI_INLINE void Block(const Convolution& v, int32_t row, int32_t x, int32_t c, int32_t first,
                         int32_t last) {
  VN sum[kCount][kVectors];
  for (int i = 0; i < kCount; ++i) {
    for (int j = 0; j < kVectors; ++j) sum[i][j] = LoadAs<VN>(v.bias + c + j * kLanes);
  }
  const int32_t y0 = row * v.stride - v.padding, x0 = x * v.stride - v.padding;
  const int64_t step = static_cast<int64_t>(v.stride) * v.inputs;
  for (int32_t ky = 0; ky < v.size; ++ky) {
    if (y0 + ky < 0 || y0 + ky >= v.height) continue;
    for (int32_t kx = first; kx < last; ++kx) {
      const float* in = v.input + (static_cast<int64_t>(y0 + ky) * v.width + x0 + kx) * v.inputs;
      const float* w = v.weights + (static_cast<int64_t>(ky) * v.size + kx) * v.inputs * v.padded + c;
      for (int32_t k = 0; k < v.inputs; ++k, w += v.padded) {
        const VN w0 = LoadAs<VN>(w), w1 = LoadAs<VN>(w + kLanes);
        for (int i = 0; i < kCount; ++i) {
          const float value = in[i * step + k];
          sum[i][0] += value * w0;
          sum[i][1] += value * w1;
        }
      }
    }
  }
  for (int i = 0; i < kCount; ++i) {
    float* out = v.output + (static_cast<int64_t>(row) * v.out_width + x + i) * v.outputs + c;
    for (int j = 0; j < kVectors; ++j, out += kLanes) {
      VN value = sum[i][j];
      if (v.rectify) value = Select(value > 0, value, VN{});
      const int32_t left = v.outputs - c - j * kLanes;
      if (left >= kLanes) {
        Store(out, value);
      } else {
        for (int k = 0; k < left; ++k) out[k] = value[k];
      }
    }
  }
}

void ConvolveRow(const Convolution& v, int32_t row) {
  for (int32_t c = 0; c < v.outputs; c += kVectors * kLanes) {
    for (int32_t x = 0; x < v.out_width;) {
      const int32_t x0 = x * v.stride - v.padding;
      const bool inside = x0 >= 0 && x0 + (kPixels - 1) * v.stride + v.size <= v.width;
      if (inside && x + kPixels <= v.out_width) {
        Block<kPixels>(v, row, x, c, 0, v.size);
        x += kPixels;
      } else {
        const int32_t first = x0 < 0 ? -x0 : 0, last = x0 + v.size > v.width ? v.width - x0 : v.size;
        Block<1>(v, row, x, c, first, last);
        ++x;
      }
    }
  }
}

}  // namespace

extern const ConvolutionKernel kConvolutionKernel;
const ConvolutionKernel kConvolutionKernel = {ConvolveRow};

}  // namespace pixcli::PIXCLI_ISA
