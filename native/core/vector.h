// Vectors of a fixed number of lanes, for kernel sources only: the compiler's vector extensions, or plain
// structs where there are none or meson's option vector_extensions is off. Both give the same bits as long as
// the instruction set has no fused multiply-add.
//
// What a kernel may use, and nothing else:
//   V{}, V{a, b, ...}, v[i]         zeros, lanes by value, one lane
//   + - * /, unary -, their =       between vectors, and between a vector and a scalar of its lanes' type
//   < <= > >=                       a mask: integers of the lanes' size, -1 where true
//   & | ~ << >> |=                  on integers
//   Select(mask, a, b)              a where the mask is true, else b; of scalars, too
//   Convert<V>(v), Bits<V>(v)       lanes as another type: their values, their bits
//   Shuffle<i, ...>(a, b)           lane i of a, or, from the number of lanes on, of b
//   LoadAs<V>, LoadAligned<V>, Store
#pragma once

#include <stdint.h>
#include <string.h>

#include "core/compiler.h"

#if !defined(PIXCLI_PORTABLE_VECTORS) && (defined(__clang__) || __GNUC__ >= 12)
#define PIXCLI_VECTOR_EXTENSIONS
#include "core/vector_extension.h"
#else
#include "core/vector_portable.h"
#endif

namespace pixcli::PIXCLI_ISA {

template <class V>
PIXCLI_INLINE V LoadAs(const void* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}

template <class V>
PIXCLI_INLINE void Store(void* p, V v) {
  memcpy(p, &v, sizeof v);
}

PIXCLI_INLINE float Select(bool condition, float a, float b) { return condition ? a : b; }
PIXCLI_INLINE double Select(bool condition, double a, double b) { return condition ? a : b; }

}  // namespace pixcli::PIXCLI_ISA
