// A vector in plain C++ (with the vector extensions of GCC and Clang): the portable definition, with the same
// fused operations as the vector units. Included inside the namespace of one instruction set: see isa_*.cc.
#pragma once

template <class T, int N>
struct Generic {
  using Scalar = T;
  using Bits = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  typedef T Lanes __attribute__((vector_size(N * sizeof(T))));
  typedef Bits Mask __attribute__((vector_size(N * sizeof(T))));
  static constexpr int kLanes = N;
  static constexpr int kRegisters = 16;  // of the smallest instruction set
  Lanes v;
  static Generic all(T x) { return {x - Lanes{}}; }  // −0 − 0 is −0, where −0 + 0 is not
  static Generic load(const T* p) {
    Generic r;
    std::memcpy(&r.v, p, sizeof r.v);
    return r;
  }
  static Generic load(const T* p, int n) {
    Generic r{Lanes{}};
    std::memcpy(&r.v, p, n * sizeof(T));
    return r;
  }
  static Generic load_lanes(const T* p, uint32_t lanes) {  // zeros where a bit of lanes is not set
    Generic r{Lanes{}};
    for (int i = 0; i < N; i++)
      if (lanes >> i & 1) r.v[i] = p[i];
    return r;
  }
  void store(T* p) const { std::memcpy(p, &v, sizeof v); }
  void store(T* p, int n) const { std::memcpy(p, &v, n * sizeof(T)); }
};

template <class T, int N> using GMask = typename Generic<T, N>::Mask;
template <class T, int N> inline Generic<T, N> add(Generic<T, N> a, Generic<T, N> b) { return {a.v + b.v}; }
template <class T, int N> inline Generic<T, N> sub(Generic<T, N> a, Generic<T, N> b) { return {a.v - b.v}; }
template <class T, int N> inline Generic<T, N> mul(Generic<T, N> a, Generic<T, N> b) { return {a.v * b.v}; }
template <class T, int N> inline Generic<T, N> div(Generic<T, N> a, Generic<T, N> b) { return {a.v / b.v}; }
template <class T, int N> inline Generic<T, N> neg(Generic<T, N> a) { return {-a.v}; }
inline float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
template <class T, int N> inline Generic<T, N> fma(Generic<T, N> a, Generic<T, N> b, Generic<T, N> c) {
  for (int i = 0; i < N; i++) c.v[i] = fused(a.v[i], b.v[i], c.v[i]);
  return c;
}
template <class T, int N> inline GMask<T, N> less(Generic<T, N> a, Generic<T, N> b) { return a.v < b.v; }
template <class T, int N> inline GMask<T, N> less_equal(Generic<T, N> a, Generic<T, N> b) {
  return a.v <= b.v;
}
template <class T, int N> inline GMask<T, N> equal(Generic<T, N> a, Generic<T, N> b) { return a.v == b.v; }
template <class T, int N, class M> inline Generic<T, N> select(M m, Generic<T, N> t, Generic<T, N> f) {
  for (int i = 0; i < N; i++) f.v[i] = m[i] ? t.v[i] : f.v[i];
  return f;
}
template <class M> inline std::enable_if_t<(sizeof(M) >= 16), bool> any(M m) {
  for (size_t i = 0; i < sizeof(M) / sizeof(m[0]); i++)
    if (m[i]) return true;
  return false;
}
template <class T, int N, class F> inline Generic<T, N> per_lane(Generic<T, N> a, F f) {
  for (int i = 0; i < N; i++) a.v[i] = f(a.v[i]);
  return a;
}
template <class T, int N, class F> inline Generic<T, N> per_lane2(Generic<T, N> a, Generic<T, N> b, F f) {
  for (int i = 0; i < N; i++) a.v[i] = f(a.v[i], b.v[i]);
  return a;
}
template <class T, int N> inline Generic<T, N> abs(Generic<T, N> a) {
  return per_lane(a, [](T x) { return std::fabs(x); });
}
template <class T, int N> inline Generic<T, N> sqrt(Generic<T, N> a) {
  return per_lane(a, [](T x) { return std::sqrt(x); });
}
template <class T, int N> inline Generic<T, N> copysign(Generic<T, N> a, Generic<T, N> s) {
  return per_lane2(a, s, [](T x, T y) { return std::copysign(x, y); });
}
// The nearest integer, ties to even.
template <class T, int N> inline Generic<T, N> round(Generic<T, N> a) {
  return per_lane(a, [](T x) { return std::nearbyint(x); });
}
// Integers as the vector units convert and add them: a number that does not fit becomes −2³¹, and sums wrap.
inline uint32_t bits_of(float x) {
  uint32_t b;
  std::memcpy(&b, &x, 4);
  return b;
}
inline float float_of(uint32_t b) {
  float x;
  std::memcpy(&x, &b, 4);
  return x;
}
inline uint32_t integer_of(float x) {
  return std::fabs(x) < 2147483648.f ? uint32_t(int32_t(x)) : 0x80000000u;
}
inline uint64_t bits_of(double x) {
  uint64_t b;
  std::memcpy(&b, &x, 8);
  return b;
}
inline double double_of(uint64_t b) {
  double x;
  std::memcpy(&x, &b, 8);
  return x;
}
template <int N> inline Generic<float, N> power_of_two(Generic<float, N> k) {
  return per_lane(k, [](float x) { return float_of((integer_of(x) + 127u) << 23); });
}
inline double power_of_two(double k) { return double_of((bits_of(k + kIntegerInLowBits) + 1023) << 52); }
template <int N> inline Generic<double, N> power_of_two(Generic<double, N> k) {
  return per_lane(k, [](double x) { return power_of_two(x); });
}
template <int N> inline Generic<double, N> scaled(Generic<double, N> x, Generic<double, N> n) {
  return scaled_twice(x, n);
}
// x·2^n, rounded once, for x in [½, 2] and n in [−152, 129]. In two steps, as 2^128 and 2^−150 are no floats.
template <int N> inline Generic<float, N> scaled(Generic<float, N> x, Generic<float, N> n) {
  const Generic<float, N> half = round(mul(n, Generic<float, N>::all(.5f)));
  return mul(mul(x, power_of_two(half)), power_of_two(sub(n, half)));
}
// x = m·2^e with m in [√½, √2), for normal positive x.
template <int N> inline void split_exponent(Generic<float, N> x, Generic<float, N>& m, Generic<float, N>& e) {
  for (int i = 0; i < N; i++) {
    const uint32_t b = bits_of(x.v[i]);
    const int32_t k = int32_t(b - 0x3f3504f3u) >> 23;
    m.v[i] = float_of(b - (uint32_t(k) << 23));
    e.v[i] = float(k);
  }
}
inline void split_exponent(double x, double& m, double& e) {
  const uint64_t b = bits_of(x), k = (b + uint64_t(kFromRootHalf)) >> 52;
  m = double_of(b - (k << 52) + uint64_t(kOneBits));
  e = double(k) - 1023;
}
template <int N> inline void split_exponent(Generic<double, N> x, Generic<double, N>& m,
                                            Generic<double, N>& e) {
  for (int i = 0; i < N; i++) {
    double of_m, of_e;
    split_exponent(x.v[i], of_m, of_e);
    m.v[i] = of_m;
    e.v[i] = of_e;
  }
}
// The smaller (larger) of a and b; b where one is NaN. The vector units read numbers below the smallest
// normal one as zeros.
template <class T, int N> inline Generic<T, N> flushed(Generic<T, N> a) {
  const auto zero = copysign(Generic<T, N>::all(0), a);
  return select(less(abs(a), Generic<T, N>::all(std::numeric_limits<T>::min())), zero, a);
}
template <class T, int N> inline Generic<T, N> min_raw(Generic<T, N> a, Generic<T, N> b) {
  return flushed(select(less(a, b), a, b));
}
template <class T, int N> inline Generic<T, N> max_raw(Generic<T, N> a, Generic<T, N> b) {
  return flushed(select(less(b, a), a, b));
}

// Vector units fold many rows at once; here there is nothing to gain.
template <class V, class F>
inline std::enable_if_t<std::is_same_v<V, Generic<typename V::Scalar, V::kLanes>>, bool>
fold_rows(const typename V::Scalar*, int, typename V::Scalar*) {
  return false;
}
