// One number as a vector of one lane, with the operations of the vector units; for register code. Included
// inside the namespace of one instruction set, behind vec_generic.h.
#pragma once

template <class T> struct One {
  using Scalar = T;
  static constexpr int kLanes = 1;
  T v;
  static One all(T x) { return {x}; }
};

template <class T> inline One<T> add(One<T> a, One<T> b) { return {a.v + b.v}; }
template <class T> inline One<T> sub(One<T> a, One<T> b) { return {a.v - b.v}; }
template <class T> inline One<T> mul(One<T> a, One<T> b) { return {a.v * b.v}; }
template <class T> inline One<T> div(One<T> a, One<T> b) { return {a.v / b.v}; }
template <class T> inline One<T> neg(One<T> a) { return {-a.v}; }
template <class T> inline One<T> fma(One<T> a, One<T> b, One<T> c) { return {fused(a.v, b.v, c.v)}; }
template <class T> inline bool less(One<T> a, One<T> b) { return a.v < b.v; }
template <class T> inline bool less_equal(One<T> a, One<T> b) { return a.v <= b.v; }
template <class T> inline bool equal(One<T> a, One<T> b) { return a.v == b.v; }
template <class T> inline One<T> select(bool m, One<T> t, One<T> f) { return m ? t : f; }
inline bool any(bool m) { return m; }
template <class T, class F> inline One<T> per_lane(One<T> a, F f) { return {f(a.v)}; }
template <class T, class F> inline One<T> per_lane2(One<T> a, One<T> b, F f) { return {f(a.v, b.v)}; }
template <class T> inline One<T> abs(One<T> a) { return {std::fabs(a.v)}; }
template <class T> inline One<T> sqrt(One<T> a) { return {std::sqrt(a.v)}; }
template <class T> inline One<T> copysign(One<T> a, One<T> s) { return {std::copysign(a.v, s.v)}; }
template <class T> inline One<T> round(One<T> a) { return {std::nearbyint(a.v)}; }
inline One<float> power_of_two(One<float> k) { return {float_of((integer_of(k.v) + 127u) << 23)}; }
inline One<float> scaled(One<float> x, One<float> n) {
  const One<float> half = round(mul(n, One<float>::all(.5f)));
  return mul(mul(x, power_of_two(half)), power_of_two(sub(n, half)));
}
inline void split_exponent(One<float> x, One<float>& m, One<float>& e) {
  const uint32_t b = bits_of(x.v);
  const int32_t k = int32_t(b - 0x3f3504f3u) >> 23;
  m.v = float_of(b - (uint32_t(k) << 23));
  e.v = float(k);
}
inline One<double> power_of_two(One<double> k) { return {power_of_two(k.v)}; }
inline One<double> scaled(One<double> x, One<double> n) { return scaled_twice(x, n); }
inline void split_exponent(One<double> x, One<double>& m, One<double>& e) { split_exponent(x.v, m.v, e.v); }
template <class T> inline One<T> flushed(One<T> a) {
  return std::fabs(a.v) < std::numeric_limits<T>::min() ? One<T>{std::copysign(T(0), a.v)} : a;
}
template <class T> inline One<T> min_raw(One<T> a, One<T> b) { return flushed(select(less(a, b), a, b)); }
template <class T> inline One<T> max_raw(One<T> a, One<T> b) { return flushed(select(less(b, a), a, b)); }
