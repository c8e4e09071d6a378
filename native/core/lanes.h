// Vectors that fill a register of the instruction set this file is compiled for, for kernel sources only.
#pragma once

#include <stdint.h>
#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace pixcli::PIXCLI_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

#define PIXCLI_INLINE static inline __attribute__((always_inline))

template <class T, int kLanes>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kLanes * sizeof(T))));
};
template <class T, int kLanes>
using Vector = typename VectorOf<T, kLanes>::Type;

template <class R>
constexpr int kLanesOf = kVectorBytes / sizeof(R);
template <class R>
using Lanes = Vector<R, kLanesOf<R>>;

template <class V>
PIXCLI_INLINE V LoadAs(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class V>
PIXCLI_INLINE void Store(void* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// IEEE half to float, all classes of numbers: a shift puts exponent and mantissa in place, a multiplication
// corrects the bias (and normalises subnormals), and what became 2^16 or more was infinite or NaN.
template <int kLanes>
PIXCLI_INLINE Vector<float, kLanes> LoadHalf(const uint16_t* p) {
#if defined(__F16C__)
  if constexpr (kLanes == 4) return _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  if constexpr (kLanes == 8) return _mm256_cvtph_ps(LoadAs<__m128i>(p));
#if defined(__AVX512F__)
  // The form without a mask warns of an uninitialised variable in GCC 12's own header.
  if constexpr (kLanes == 16) return _mm512_maskz_cvtph_ps(0xffff, LoadAs<__m256i>(p));
#endif
#endif
  typedef Vector<uint32_t, kLanes> Bits;
  typedef Vector<float, kLanes> Floats;
  const Bits half = __builtin_convertvector(LoadAs<Vector<uint16_t, kLanes>>(p), Bits);
  const Floats magnitude = reinterpret_cast<Floats>((half & 0x7fff) << 13) * 0x1p112f;
  const Bits special = reinterpret_cast<Bits>(magnitude >= 65536.0f) & 0x7f800000;
  return reinterpret_cast<Floats>(reinterpret_cast<Bits>(magnitude) | special | ((half & 0x8000) << 16));
}

// A register of R from as many stored values.
template <class R>
PIXCLI_INLINE Lanes<R> Load(const uint16_t* p) {
  return __builtin_convertvector(LoadHalf<kLanesOf<R>>(p), Lanes<R>);
}
template <class R>
PIXCLI_INLINE Lanes<R> Load(const float* p) {
  return __builtin_convertvector((LoadAs<Vector<float, kLanesOf<R>>>(p)), Lanes<R>);
}
template <class R>
PIXCLI_INLINE Lanes<R> Load(const double* p) {
  return __builtin_convertvector((LoadAs<Vector<double, kLanesOf<R>>>(p)), Lanes<R>);
}

// Folds a register to its quarters' sum.
PIXCLI_INLINE Vector<float, 4> Fold(Vector<float, 4> v) { return v; }
PIXCLI_INLINE Vector<float, 4> Fold(Vector<float, 8> v) {
  return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
}
PIXCLI_INLINE Vector<float, 4> Fold(Vector<float, 16> v) {
  return Fold(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
              __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
}

PIXCLI_INLINE float Sum(Lanes<float> v) {
  const Vector<float, 4> four = Fold(v);
  return (four[0] + four[1]) + (four[2] + four[3]);
}
PIXCLI_INLINE double Sum(Lanes<double> v) {
  double sum = 0;
  for (int k = 0; k < kLanesOf<double>; ++k) sum += v[k];
  return sum;
}

// The sums of four registers, by transposing: one of them alone would leave most lanes idle.
PIXCLI_INLINE Vector<float, 4> SumFour(Lanes<float> a, Lanes<float> b, Lanes<float> c, Lanes<float> d) {
  const Vector<float, 4> x = Fold(a), y = Fold(b), z = Fold(c), w = Fold(d);
  const Vector<float, 4> xy =
      __builtin_shufflevector(x, y, 0, 4, 1, 5) + __builtin_shufflevector(x, y, 2, 6, 3, 7);
  const Vector<float, 4> zw =
      __builtin_shufflevector(z, w, 0, 4, 1, 5) + __builtin_shufflevector(z, w, 2, 6, 3, 7);
  return __builtin_shufflevector(xy, zw, 0, 1, 4, 5) + __builtin_shufflevector(xy, zw, 2, 3, 6, 7);
}

}  // namespace pixcli::PIXCLI_ISA
