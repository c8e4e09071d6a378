// core/vector.h by the vector extensions of GCC and clang.
#pragma once

namespace pixcli::PIXCLI_ISA {

template <class T, int kLanes>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kLanes * sizeof(T))));
};
template <class T, int kLanes>
using Vector = typename VectorOf<T, kLanes>::Type;

template <class Mask, class V>
PIXCLI_INLINE V Select(Mask mask, V a, V b) {
  return mask ? a : b;
}

template <class To, class From>
PIXCLI_INLINE To Convert(From v) {
  return __builtin_convertvector(v, To);
}

template <class To, class From>
PIXCLI_INLINE To Bits(From v) {
  return reinterpret_cast<To>(v);
}

template <int... kLane, class V>
PIXCLI_INLINE auto Shuffle(V a, V b) {
  return __builtin_shufflevector(a, b, kLane...);
}

template <class V>
PIXCLI_INLINE V LoadAligned(const void* p) {
  return *reinterpret_cast<const V*>(p);
}

}  // namespace pixcli::PIXCLI_ISA
