// Vectors that fill a register of the instruction set this file is compiled for, for kernel sources only.
#pragma once

#include <stdint.h>

#include "core/vector.h"
#if defined(__F16C__) && defined(PIXCLI_VECTOR_EXTENSIONS)
#include <immintrin.h>
#define PIXCLI_F16C
#endif

namespace pixcli::PIXCLI_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class R>
constexpr int kLanesOf = kVectorBytes / sizeof(R);
template <class R>
using Lanes = Vector<R, kLanesOf<R>>;

// IEEE half to float, all classes of numbers: a shift puts exponent and mantissa in place, a multiplication
// corrects the bias (and normalises subnormals), and what became 2^16 or more was infinite or NaN.
template <int kLanes>
PIXCLI_INLINE Vector<float, kLanes> LoadHalf(const uint16_t* p) {
#if defined(PIXCLI_F16C)
  if constexpr (kLanes == 4) return _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  if constexpr (kLanes == 8) return _mm256_cvtph_ps(LoadAs<__m128i>(p));
#if defined(__AVX512F__)
  // The form without a mask warns of an uninitialised variable in GCC 12's own header.
  if constexpr (kLanes == 16) return _mm512_maskz_cvtph_ps(0xffff, LoadAs<__m256i>(p));
#endif
#endif
  typedef Vector<uint32_t, kLanes> Words;
  typedef Vector<float, kLanes> Floats;
  const Words half = Convert<Words>(LoadAs<Vector<uint16_t, kLanes>>(p));
  const Floats magnitude = Bits<Floats>((half & 0x7fff) << 13) * 0x1p112f;
  const Words special = Bits<Words>(magnitude >= 65536.0f) & 0x7f800000;
  return Bits<Floats>(Bits<Words>(magnitude) | special | ((half & 0x8000) << 16));
}

// A register of R from as many stored values.
template <class R>
PIXCLI_INLINE Lanes<R> Load(const uint16_t* p) {
  return Convert<Lanes<R>>(LoadHalf<kLanesOf<R>>(p));
}
template <class R>
PIXCLI_INLINE Lanes<R> Load(const float* p) {
  return Convert<Lanes<R>>(LoadAs<Vector<float, kLanesOf<R>>>(p));
}
template <class R>
PIXCLI_INLINE Lanes<R> Load(const double* p) {
  return Convert<Lanes<R>>(LoadAs<Vector<double, kLanesOf<R>>>(p));
}

// Folds a register to its quarters' sum.
PIXCLI_INLINE Vector<float, 4> Fold(Vector<float, 4> v) { return v; }
PIXCLI_INLINE Vector<float, 4> Fold(Vector<float, 8> v) {
  return Shuffle<0, 1, 2, 3>(v, v) + Shuffle<4, 5, 6, 7>(v, v);
}
PIXCLI_INLINE Vector<float, 4> Fold(Vector<float, 16> v) {
  return Fold(Shuffle<0, 1, 2, 3, 4, 5, 6, 7>(v, v) + Shuffle<8, 9, 10, 11, 12, 13, 14, 15>(v, v));
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
  const Vector<float, 4> xy = Shuffle<0, 4, 1, 5>(x, y) + Shuffle<2, 6, 3, 7>(x, y);
  const Vector<float, 4> zw = Shuffle<0, 4, 1, 5>(z, w) + Shuffle<2, 6, 3, 7>(z, w);
  return Shuffle<0, 1, 4, 5>(xy, zw) + Shuffle<2, 3, 6, 7>(xy, zw);
}

}  // namespace pixcli::PIXCLI_ISA
