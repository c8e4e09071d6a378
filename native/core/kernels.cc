#include "core/kernels.h"

#include "core/cpu.h"

namespace pixcli {
namespace {

const Kernels& ChooseKernels() {
#if defined(PIXCLI_X86_KERNELS)
  switch (CurrentIsa()) {
    case Isa::kAvx512: return avx512::kKernels;
    case Isa::kAvx2: return avx2::kKernels;
    case Isa::kBaseline: break;
  }
#endif
  return baseline::kKernels;
}

}  // namespace

const Kernels& CurrentKernels() {
  static const Kernels& kernels = ChooseKernels();
  return kernels;
}

const Kernels& PortableKernels() { return baseline::kKernels; }

}  // namespace pixcli
