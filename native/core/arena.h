// Pieces of a kernel's scratch memory, for kernel sources only.
#pragma once

#include <stdint.h>

namespace pixcli::PIXCLI_ISA {
namespace {

// Hands out pieces of the scratch memory, all aligned.
struct Arena {
  char* next;
  static int64_t Rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }
  char* Take(int64_t bytes) {
    char* taken = next;
    next += Rounded(bytes);
    return taken;
  }
  float* Floats(int64_t n) { return reinterpret_cast<float*>(Take(n * static_cast<int64_t>(sizeof(float)))); }
};

}  // namespace
}  // namespace pixcli::PIXCLI_ISA
