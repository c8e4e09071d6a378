#include "core/dense_sift_kernel.h"

#include <math.h>
#include <string.h>

#include "core/lanes.h"

namespace pixcli::PIXCLI_ISA {
namespace {

constexpr int kOrientations = 8;
constexpr int kBins = 16;
constexpr int kChannels = kBins * kOrientations;
constexpr double kPi = 3.14159265358979323846;

// The eight orientations of one pixel: one vector, so that no loop over pixels has a tail of another
// arithmetic and a pixel's descriptor is the same to the bit in whatever tile it is computed.
typedef Vector<float, kOrientations> Orientations;

inline Orientations At(const float* plane, int64_t index) {
  return LoadAs<Orientations>(plane + index * kOrientations);
}

inline float SumOf(const Orientations& v) {
  return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
}

// Gradient magnitudes of one image row, shared linearly among the two nearest of 8 orientations: (width, 8).
void HistogramRow(const DenseSiftStrip& s, int64_t row, float* histogram) {
  const float* here = s.image + row * s.width;
  const float* above = row > 0 ? here - s.width : here;
  const float* below = row + 1 < s.height ? here + s.width : here;
  memset(histogram, 0, sizeof(float) * static_cast<size_t>(kOrientations * s.width));
  for (int64_t x = 0; x < s.width; ++x) {
    const float gx = here[x + 1 < s.width ? x + 1 : x] - here[x > 0 ? x - 1 : x];
    const float gy = below[x] - above[x];
    const float magnitude = sqrtf(gx * gx + gy * gy);
    const float angle = (atan2f(gy, gx) + float(2 * kPi)) * float(kOrientations / (2 * kPi));  // in [4, 12]
    const int lower = int(angle);
    const float part = angle - float(lower);
    histogram[x * kOrientations + lower % kOrientations] += magnitude * (1 - part);
    histogram[x * kOrientations + (lower + 1) % kOrientations] += magnitude * part;
  }
}

// Eight floats in [0, 1] to float16, rounded to nearest even.
inline void StoreHalf(const float* from, uint16_t* to) {
#if defined(PIXCLI_F16C)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm256_cvtps_ph(_mm256_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < kOrientations; ++i) {
    uint32_t bits;
    memcpy(&bits, from + i, sizeof bits);
    const uint32_t normal = (bits + 0xfff + ((bits >> 13) & 1) - (uint32_t(112) << 23)) >> 13;
    // Adding 1/2 aligns a small number's bits with those of a subnormal half, and rounds it.
    const float shifted = from[i] + 0.5f;
    uint32_t subnormal;
    memcpy(&subnormal, &shifted, sizeof subnormal);
    to[i] = uint16_t(from[i] < 6.103515625e-5f ? subnormal - (uint32_t(126) << 23) : normal);
  }
#endif
}

// Normalizes the bins of one pixel and writes them.
void WriteDescriptor(const DenseSiftStrip& s, Orientations* bins, int64_t pixel) {
  Orientations sums = {};
  for (int k = 0; k < kBins; ++k) sums += bins[k] * bins[k];
  float norm = sqrtf(SumOf(sums));
  float scale = norm > 1e-6f ? 1 / norm : 0;
  // Lowe's limit, against single strong edges.
  const Orientations limit = Orientations{} + 0.2f;
  sums = Orientations{};
  for (int k = 0; k < kBins; ++k) {
    bins[k] *= scale;
    bins[k] = Select(bins[k] > limit, limit, bins[k]);
    sums += s.rootsift ? bins[k] : bins[k] * bins[k];
  }
  norm = s.rootsift ? SumOf(sums) : sqrtf(SumOf(sums));
  scale = norm > 1e-6f ? 1 / norm : 0;
  float descriptor[kChannels];
  for (int k = 0; k < kBins; ++k) Store(descriptor + k * kOrientations, bins[k] * scale);
  if (s.rootsift) {
    for (int i = 0; i < kChannels; ++i) descriptor[i] = sqrtf(descriptor[i]);
  }
  if (s.half) {
    uint16_t* to = static_cast<uint16_t*>(s.out) + pixel * kChannels;
    for (int k = 0; k < kBins; ++k) StoreHalf(descriptor + k * kOrientations, to + k * kOrientations);
  } else {
    memcpy(static_cast<float*>(s.out) + pixel * kChannels, descriptor, sizeof descriptor);
  }
}

void DescribeRows(const DenseSiftStrip& s) {
  const int b = s.bin_size;
  const int64_t columns = s.width + 3 * b;
  const int64_t row_size = columns * kOrientations;
  const int reach = b - 1 - s.first;
  const int64_t rows = s.row_end - s.row_begin;

  // The window along the rows: column c of `across` is the window around pixel c + first.
  for (int64_t i = 0; i < rows + 2 * reach; ++i) {
    float* across = s.across + i * row_size;
    const int64_t row = s.row_begin - reach + i;
    if (row < 0 || row >= s.height) {
      memset(across, 0, sizeof(float) * static_cast<size_t>(row_size));
      continue;
    }
    HistogramRow(s, row, s.histogram + reach * kOrientations);
    for (int64_t c = 0; c < columns; ++c) {
      Orientations sum = {};
      for (int t = 0; t < s.num_taps; ++t) sum += s.taps[t] * At(s.histogram, c + t);
      Store(across + c * kOrientations, sum);
    }
  }

  // The window along the columns: row i of `smooth` is the window around image row row_begin + i + first.
  for (int64_t i = 0; i < rows + 3 * b; ++i) {
    float* smooth = s.smooth + i * row_size;
    const float* across = s.across + i * row_size;
    for (int64_t c = 0; c < columns; ++c) {
      Orientations sum = {};
      for (int t = 0; t < s.num_taps; ++t) sum += s.taps[t] * At(across + t * row_size, c);
      Store(smooth + c * kOrientations, sum);
    }
  }

  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t x = 0; x < s.width; ++x) {
      Orientations bins[kBins];
      for (int k = 0; k < kBins; ++k) {
        bins[k] = s.weight[k] * At(s.smooth + (i + k / 4 * b) * row_size, x + k % 4 * b);
      }
      WriteDescriptor(s, bins, (s.row_begin + i) * s.width + x);
    }
  }
}

}  // namespace

extern const DenseSiftKernel kDenseSiftKernel;
const DenseSiftKernel kDenseSiftKernel = {DescribeRows};

}  // namespace pixcli::PIXCLI_ISA
