#include "core/inner_product_kernel.h"

#include "core/lanes.h"

namespace pixcli::PIXCLI_ISA {
namespace {

// Products are summed in float over a block and in double over blocks: long rows lose no digits.
constexpr int64_t kBlock = 512;

PIXCLI_INLINE void Flush(const Lanes<float>* four, double* out) {
  const Vector<float, 4> sums = SumFour(four[0], four[1], four[2], four[3]);
  for (int k = 0; k < 4; ++k) out[k] += static_cast<double>(sums[k]);
}

PIXCLI_INLINE void Flush(const Lanes<double>* four, double* out) {
  for (int k = 0; k < 4; ++k) out[k] += Sum(four[k]);
}

template <class R>
void ComputeResidualGram(const R* rows, const R* reference, int64_t dimension, ResidualGram* out) {
  const int64_t stride = RowStride(dimension), padded = PaddedDimension(dimension);
  double total[6] = {};
  for (int64_t begin = 0; begin < padded; begin += kBlock) {
    const int64_t end = begin + kBlock < padded ? begin + kBlock : padded;
    Lanes<R> sums[6] = {};
    for (int64_t k = begin; k < end; k += kLanesOf<R>) {
      const Lanes<R> r = Load<R>(rows + k) - Load<R>(reference + k);
      const Lanes<R> u = Load<R>(rows + stride + k), v = Load<R>(rows + 2 * stride + k);
      sums[0] += u * u;
      sums[1] += u * v;
      sums[2] += v * v;
      sums[3] += u * r;
      sums[4] += v * r;
      sums[5] += r * r;
    }
    Flush(sums, total);
    for (int k = 4; k < 6; ++k) total[k] += static_cast<double>(Sum(sums[k]));
  }
  *out = {total[0], total[1], total[2], total[3], total[4], total[5]};
}

// The difference lives in registers only. It, and not ‖f_i‖² + ‖f_j‖² - 2 f_i·f_j, keeps small costs exact.
void ComputeEdgeProducts(const float* rows_i, const float* rows_j, int64_t dimension, EdgeProducts* out) {
  const int64_t stride = RowStride(dimension), padded = PaddedDimension(dimension);
  double total[9] = {};
  for (int64_t begin = 0; begin < padded; begin += kBlock) {
    const int64_t end = begin + kBlock < padded ? begin + kBlock : padded;
    Lanes<float> sums[9] = {};
    for (int64_t k = begin; k < end; k += kLanesOf<float>) {
      const Lanes<float> d = Load<float>(rows_i + k) - Load<float>(rows_j + k);
      const Lanes<float> ui = Load<float>(rows_i + stride + k), vi = Load<float>(rows_i + 2 * stride + k);
      const Lanes<float> uj = Load<float>(rows_j + stride + k), vj = Load<float>(rows_j + 2 * stride + k);
      sums[0] += d * d;
      sums[1] += d * ui;
      sums[2] += d * vi;
      sums[3] += d * uj;
      sums[4] += d * vj;
      sums[5] += ui * uj;
      sums[6] += ui * vj;
      sums[7] += vi * uj;
      sums[8] += vi * vj;
    }
    Flush(sums, total);
    Flush(sums + 4, total + 4);
    total[8] += static_cast<double>(Sum(sums[8]));
  }
  *out = {total[0], total[1], total[2], total[3], total[4], total[5], total[6], total[7], total[8]};
}

void ComputeGram(const float* rows, int64_t dimension, Gram* out) {
  const int64_t stride = RowStride(dimension), padded = PaddedDimension(dimension);
  double total[4] = {};
  for (int64_t begin = 0; begin < padded; begin += kBlock) {
    const int64_t end = begin + kBlock < padded ? begin + kBlock : padded;
    Lanes<float> sums[4] = {};
    for (int64_t k = begin; k < end; k += kLanesOf<float>) {
      const Lanes<float> f = Load<float>(rows + k);
      const Lanes<float> u = Load<float>(rows + stride + k), v = Load<float>(rows + 2 * stride + k);
      sums[0] += f * f;
      sums[1] += u * u;
      sums[2] += u * v;
      sums[3] += v * v;
    }
    Flush(sums, total);
  }
  *out = {total[0], total[1], total[2], total[3]};
}

}  // namespace

extern const InnerProductKernel kInnerProductKernel;
const InnerProductKernel kInnerProductKernel = {ComputeEdgeProducts, ComputeGram, ComputeResidualGram<float>,
                                                ComputeResidualGram<double>};

}  // namespace pixcli::PIXCLI_ISA
