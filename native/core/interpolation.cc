#include "core/interpolation.h"

#include <ctime>

#include "core/cpu.h"

namespace pixcli {
namespace {

#define PIXCLI_KERNELS(isa)                                                                              \
  Kernels {                                                                                              \
    &isa::Sample, &isa::Sample, &isa::ComputeEdgeProducts, &isa::ComputeGram, &isa::ComputeResidualGram, \
        &isa::ComputeResidualGram, &isa::MultiplyAdd                                                     \
  }

Kernels ChooseKernels() {
#if defined(__x86_64__)
  if (CurrentIsa() == Isa::kAvx512) return PIXCLI_KERNELS(avx512);
  if (CurrentIsa() == Isa::kAvx2) return PIXCLI_KERNELS(avx2);
#endif
  return PIXCLI_KERNELS(baseline);
}

// Of the processor, so that other programs on a busy machine do not count.
double Seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

}  // namespace

const Kernels& CurrentKernels() {
  static const Kernels kernels = ChooseKernels();
  return kernels;
}

const Kernels& PortableKernels() {
  static const Kernels kernels = PIXCLI_KERNELS(baseline);
  return kernels;
}

Sampling MakeSampling(const InterpolationOptions& options, Storage storage, int64_t height, int64_t width,
                      int64_t channels) {
  return {storage,
          static_cast<int32_t>(height),
          static_cast<int32_t>(width),
          static_cast<int32_t>(channels),
          options.bilinear,
          options.l2_normalize,
          options.ncc_normalize,
          static_cast<int32_t>(options.nodes.size() / 2),
          options.nodes.data()};
}

int64_t SampleMultiplyAdds(const Sampling& sampling) {
  const int64_t taps = sampling.bilinear ? 2 : 4;
  return Dimension(sampling) * (2 * taps * taps + 3 * taps);
}

SampleTiming TimeSample(const Sampling& sampling, const void* patch, int64_t repeats) {
  const Kernels& kernels = CurrentKernels();
  std::vector<float> rows(3 * RowStride(Dimension(sampling)));
  const double begin = Seconds();
  for (int64_t i = 0; i < repeats; ++i) {
    const double shift = static_cast<double>(i % 16) / 16;
    kernels.sample(sampling, patch, .5 * sampling.width + shift, .5 * sampling.height - shift, rows.data());
  }
  const double middle = Seconds();
  volatile float sink = kernels.multiply_add(repeats * SampleMultiplyAdds(sampling));
  (void)sink;
  return {middle - begin, Seconds() - middle};
}

}  // namespace pixcli
