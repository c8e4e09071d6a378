#include "core/cpu.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace pixcli {
namespace {

Isa BestIsa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
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
