#include "core/cpu.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(PIXCLI_X86_KERNELS)
#include <cpuid.h>
#endif

namespace pixcli {
namespace {

Isa BestIsa() {
#if defined(PIXCLI_X86_KERNELS)
  __builtin_cpu_init();
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool f16c =
      __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;  // not every clang knows its name
  const bool avx2 = f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (avx512) return Isa::kAvx512;
  if (avx2) return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

Isa ChooseIsa() {
  const Isa best = BestIsa();
  const char* wanted = std::getenv("PIXCLI_ISA");
  if (wanted == nullptr || *wanted == 0) return best;
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    if (std::string(wanted) == IsaName(isa) && isa <= best) return isa;
  }
  throw std::runtime_error("PIXCLI_ISA is '" + std::string(wanted) + "': this machine has up to '" +
                           IsaName(best) + "' (of baseline, avx2, avx512)");
}

}  // namespace

Isa CurrentIsa() {
  static const Isa isa = ChooseIsa();
  return isa;
}

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
    default: return "baseline";
  }
}

}  // namespace pixcli
