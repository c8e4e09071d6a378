#include "bench/multiply_add.h"

#include "core/cpu.h"

namespace pixcli {

float MultiplyAdd(int64_t count) {
#if defined(PIXCLI_X86_KERNELS)
  if (CurrentIsa() != Isa::kBaseline) return avx2::MultiplyAdd(count);
#endif
  return baseline::MultiplyAdd(count);
}

}  // namespace pixcli
