// core/vector.h in plain C++17: an array of lanes with operators, which compilers may or may not vectorise.
#pragma once

namespace pixcli::PIXCLI_ISA {

// Integers of the size of T, which comparisons give.
template <int kBytes>
struct IntegerOf;
template <>
struct IntegerOf<1> {
  typedef int8_t Type;
};
template <>
struct IntegerOf<2> {
  typedef int16_t Type;
};
template <>
struct IntegerOf<4> {
  typedef int32_t Type;
};
template <>
struct IntegerOf<8> {
  typedef int64_t Type;
};

template <class T, int kLanes>
struct Vector {
  typedef T Lane;
  typedef Vector<typename IntegerOf<sizeof(T)>::Type, kLanes> Mask;
  T lane[kLanes];

  Vector() = default;
  constexpr Vector(T all) : lane{} {  // NOLINT: a scalar beside a vector stands for all lanes
    for (int i = 0; i < kLanes; ++i) lane[i] = all;
  }
  template <class... Rest>
  constexpr Vector(T first, T second, Rest... rest) : lane{first, second, static_cast<T>(rest)...} {
    static_assert(2 + sizeof...(rest) == kLanes);
  }

  T& operator[](int i) { return lane[i]; }
  const T& operator[](int i) const { return lane[i]; }

  Vector& operator+=(const Vector& b) { return *this = *this + b; }
  Vector& operator-=(const Vector& b) { return *this = *this - b; }
  Vector& operator*=(const Vector& b) { return *this = *this * b; }
  Vector& operator/=(const Vector& b) { return *this = *this / b; }
  Vector& operator|=(const Vector& b) { return *this = *this | b; }

  friend constexpr Vector operator+(Vector a, const Vector& b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] = a.lane[i] + b.lane[i];
    return a;
  }
  friend constexpr Vector operator-(Vector a, const Vector& b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] = a.lane[i] - b.lane[i];
    return a;
  }
  friend constexpr Vector operator*(Vector a, const Vector& b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] = a.lane[i] * b.lane[i];
    return a;
  }
  friend constexpr Vector operator/(Vector a, const Vector& b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] = a.lane[i] / b.lane[i];
    return a;
  }
  friend constexpr Vector operator-(Vector a) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] = -a.lane[i];
    return a;
  }

  friend Vector operator&(Vector a, const Vector& b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] = static_cast<T>(a.lane[i] & b.lane[i]);
    return a;
  }
  friend Vector operator|(Vector a, const Vector& b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] = static_cast<T>(a.lane[i] | b.lane[i]);
    return a;
  }
  friend Vector operator~(Vector a) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] = static_cast<T>(~a.lane[i]);
    return a;
  }
  friend Vector operator<<(Vector a, int bits) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] = static_cast<T>(a.lane[i] << bits);
    return a;
  }
  friend Vector operator>>(Vector a, int bits) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] = static_cast<T>(a.lane[i] >> bits);
    return a;
  }

  friend Mask operator<(const Vector& a, const Vector& b) {
    Mask mask;
    for (int i = 0; i < kLanes; ++i) mask.lane[i] = a.lane[i] < b.lane[i] ? -1 : 0;
    return mask;
  }
  friend Mask operator<=(const Vector& a, const Vector& b) {
    Mask mask;
    for (int i = 0; i < kLanes; ++i) mask.lane[i] = a.lane[i] <= b.lane[i] ? -1 : 0;
    return mask;
  }
  friend Mask operator>(const Vector& a, const Vector& b) { return b < a; }
  friend Mask operator>=(const Vector& a, const Vector& b) { return b <= a; }
};

template <class I, class T, int kLanes>
PIXCLI_INLINE Vector<T, kLanes> Select(const Vector<I, kLanes>& mask, const Vector<T, kLanes>& a,
                                       const Vector<T, kLanes>& b) {
  Vector<T, kLanes> out;
  for (int i = 0; i < kLanes; ++i) out.lane[i] = mask.lane[i] ? a.lane[i] : b.lane[i];
  return out;
}

template <class To, class T, int kLanes>
PIXCLI_INLINE To Convert(const Vector<T, kLanes>& v) {
  To out;
  for (int i = 0; i < kLanes; ++i) out[i] = static_cast<typename To::Lane>(v.lane[i]);
  return out;
}

template <class To, class From>
PIXCLI_INLINE To Bits(const From& v) {
  static_assert(sizeof(To) == sizeof(From));
  To out;
  memcpy(&out, &v, sizeof out);
  return out;
}

template <int... kLane, class T, int kLanes>
PIXCLI_INLINE Vector<T, sizeof...(kLane)> Shuffle(const Vector<T, kLanes>& a, const Vector<T, kLanes>& b) {
  const auto lane_of = [&](int lane) { return lane < kLanes ? a.lane[lane] : b.lane[lane - kLanes]; };
  return {lane_of(kLane)...};
}

template <class V>
PIXCLI_INLINE V LoadAligned(const void* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}

}  // namespace pixcli::PIXCLI_ISA
