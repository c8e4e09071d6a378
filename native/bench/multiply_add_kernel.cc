#include "bench/multiply_add.h"
#include "core/lanes.h"

namespace pixcli::PIXCLI_ISA {

float MultiplyAdd(int64_t count) {
  constexpr int kLanes = kLanesOf<float>, kChains = 12;
  typedef Vector<float, kLanes> Floats;
  Floats sums[kChains];
  for (int k = 0; k < kChains; ++k) sums[k] = Floats{} + static_cast<float>(k);
  Floats scale = Floats{} + .5f;
  for (int64_t i = 0; i < count; i += kLanes * kChains) {
#if defined(__x86_64__) && defined(PIXCLI_VECTOR_EXTENSIONS)
    asm volatile("" : "+x"(scale));  // not to be folded away
#endif
    for (int k = 0; k < kChains; ++k) sums[k] = sums[k] * scale + scale;
  }
  Floats sum{};
  for (int k = 0; k < kChains; ++k) sum += sums[k];
  return sum[0];
}

}  // namespace pixcli::PIXCLI_ISA
