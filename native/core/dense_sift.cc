#include "core/dense_sift.h"

#include <cmath>
#include <vector>

#include "core/kernels.h"

namespace pixcli {
namespace {

constexpr int64_t kStripRows = 32;  // The scratch of a strip then stays in the cache of a core.

}  // namespace

bool DenseSift(const float* image, int64_t height, int64_t width, const DenseSiftOptions& options, void* out,
               int num_threads, const Poll& poll) {
  const int b = options.bin_size;
  const int first = -(3 * b + 1) / 2;
  const int reach = b - 1 - first;
  // The centre of a bin lies on a pixel if b is even, else half a pixel after one.
  const double centre = -1.5 * b - first;
  std::vector<float> taps;
  for (int t = 1 - b; std::abs(t - centre) < b; ++t) {
    taps.push_back(static_cast<float>(1 - std::abs(t - centre) / b));
  }
  // Lowe's Gaussian window of two bins, taken at the centres of the bins.
  float weight[16];
  for (int k = 0; k < 16; ++k) {
    const double y = k / 4 - 1.5, x = k % 4 - 1.5;
    weight[k] = static_cast<float>(std::exp(-(x * x + y * y) / 8));
  }

  const int64_t row_size = (width + 3 * b) * 8;
  const int threads = ResolveNumThreads(num_threads);
  struct Scratch {
    std::vector<float> histogram, across, smooth;
  };
  std::vector<Scratch> scratch(threads);
  return ParallelFor(height, kStripRows, threads, poll, [&](int64_t begin, int64_t end, int thread) {
    Scratch& own = scratch[thread];
    own.histogram.resize((width + 2 * reach + 1) * 8);
    own.across.resize((kStripRows + 2 * reach) * row_size);
    own.smooth.resize((kStripRows + 3 * b) * row_size);
    const DenseSiftStrip strip{image,
                               height,
                               width,
                               b,
                               first,
                               static_cast<int>(taps.size()),
                               taps.data(),
                               weight,
                               options.rootsift,
                               options.half,
                               begin,
                               end,
                               own.histogram.data(),
                               own.across.data(),
                               own.smooth.data(),
                               out};
    CurrentKernels().dense_sift.describe_rows(strip);
  });
}

}  // namespace pixcli
