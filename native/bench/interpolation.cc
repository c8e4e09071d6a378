// Seconds of one sample of a cached patch, and of as many multiply-adds at full speed: see
// scripts/bench/interpolation.py, which builds and runs it.
//
// usage: bench_interpolation CHANNELS half|float bicubic|bilinear L2 REPEATS
#include "core/interpolation.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <vector>

#include "bench/multiply_add.h"
#include "core/cpu.h"

using namespace pixcli;

namespace {

// Of the processor, so that other programs on a busy machine do not count.
double Seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  constexpr int64_t kEdge = 16;
  const int64_t channels = std::atoll(argv[1]), repeats = std::atoll(argv[5]);
  const bool half = std::strcmp(argv[2], "half") == 0, bilinear = std::strcmp(argv[3], "bilinear") == 0;
  const InterpolationOptions options{bilinear, std::atoi(argv[4]) != 0, false, {0, 0}};
  const Sampling sampling =
      MakeSampling(options, half ? Storage::kHalf : Storage::kFloat, kEdge, kEdge, channels);

  std::mt19937 random(0);
  std::vector<float> floats(static_cast<size_t>(kEdge * kEdge * channels));
  std::vector<uint16_t> halves(floats.size());
  for (size_t i = 0; i < floats.size(); ++i) {
    floats[i] = std::uniform_real_distribution<float>(-1, 1)(random);
    halves[i] = static_cast<uint16_t>(0x3800 + random() % 0x400);  // .5 to 1
  }
  const void* patch = half ? static_cast<const void*>(halves.data()) : floats.data();
  std::vector<float> rows(static_cast<size_t>(3 * RowStride(Dimension(sampling))));

  const double begin = Seconds();
  for (int64_t i = 0; i < repeats; ++i) {
    const double shift = static_cast<double>(i % 16) / 16;
    CurrentKernels().interpolation.sample(sampling, patch, kEdge / 2. + shift, kEdge / 2. - shift,
                                          rows.data());
  }
  const double middle = Seconds();
  const int64_t taps = bilinear ? 2 : 4;  // the work of a normalisation is not counted
  const volatile float sink = MultiplyAdd(repeats * channels * (2 * taps * taps + 3 * taps));
  (void)sink;
  const double end = Seconds();
  std::printf("%.12g %.12g\n", (middle - begin) / static_cast<double>(repeats),
              (end - middle) / static_cast<double>(repeats));
  return 0;
}
