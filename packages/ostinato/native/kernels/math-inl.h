// exp, exp2, log, tanh, sigmoid and softplus on vectors V of float32, each the same operations on every
// instruction set; math_double-inl.h has float64's. Bounds (tests/engine/test_functions.py): exp, log, tanh,
// sigmoid and softplus within 2.5 ulp of float64, exp2 within 1 ulp, or 2⁻¹²⁶ absolute where the result is
// that small. NaN and −0 survive. No reciprocal estimates: they differ between vendors. Coefficients: Cephes'
// minimax polynomials (S. Moshier, expf, exp2f, logf).
#pragma once

template <class V> using IfFloat = std::enable_if_t<std::is_same_v<typename V::Scalar, float>, V>;
template <class V> using IfDouble = std::enable_if_t<std::is_same_v<typename V::Scalar, double>, V>;

// min and max return their second operand if either is NaN: x stands second.
template <class V> inline V clamp(V x, typename V::Scalar low, typename V::Scalar high) {
  return max_raw(V::all(low), min_raw(V::all(high), x));
}
template <class V> inline V max_nan(V a, V b) { return select(equal(a, a), max_raw(a, b), a); }
template <class V> inline V min_nan(V a, V b) { return select(equal(a, a), min_raw(a, b), a); }

// A library's function lane by lane. Some libraries take denormals apart by their bits and scale them, which
// goes wrong where the processor reads them as zeros: they get zeros.
template <class T> inline T flushed(T x) {
  return std::fabs(x) < std::numeric_limits<T>::min() ? std::copysign(T(0), x) : x;
}
template <class V, class F> inline V libm(V a, F f) {
  return per_lane(a, [f](auto x) { return flushed(f(flushed(x))); });
}
template <class V, class F> inline V libm2(V a, V b, F f) {
  return per_lane2(a, b, [f](auto x, auto y) { return flushed(f(flushed(x), flushed(y))); });
}
template <class V, class M> inline V truth(M mask, V) { return select(mask, V::all(1), V::all(0)); }

// e^x = 2^n · e^r with n = round(x / ln 2) and |r| ≤ ln 2 / 2. ln 2 is taken in two parts, so that r is exact
// to float32's precision. Returns e^r − 1, and n by reference.
template <class V> inline IfFloat<V> expm1_reduced(V x, V& n) {
  n = round(mul(x, V::all(1.44269504088896341f)));
  V r = fma(n, V::all(-0.693359375f), x);
  r = fma(n, V::all(2.12194440e-4f), r);
  V p = V::all(1.9875691500e-4f);
  p = fma(p, r, V::all(1.3981999507e-3f));
  p = fma(p, r, V::all(8.3334519073e-3f));
  p = fma(p, r, V::all(4.1665795894e-2f));
  p = fma(p, r, V::all(1.6666665459e-1f));
  p = fma(p, r, V::all(5.0000001201e-1f));
  return fma(p, mul(r, r), r);
}

template <class V> inline IfFloat<V> exp(V x) {
  V n, p = add(expm1_reduced(clamp(x, -105.f, 89.f), n), V::all(1));
  return scaled(p, n);
}

// 2^x = 2^n · 2^r with n = round(x) and r = x − n, which is exact, |r| ≤ ½. Within 1 ulp; exact for a
// whole x. 0 for x ≤ −150, infinite for x ≥ 128.
template <class V> inline IfFloat<V> exp2(V x) {
  x = clamp(x, -151.f, 129.f);
  V n = round(x), r = sub(x, n);
  V p = V::all(1.535336188e-4f);
  p = fma(p, r, V::all(1.339887440e-3f));
  p = fma(p, r, V::all(9.618437358e-3f));
  p = fma(p, r, V::all(5.550332472e-2f));
  p = fma(p, r, V::all(2.402264791e-1f));
  p = fma(p, r, V::all(6.931472029e-1f));
  return scaled(fma(p, r, V::all(1)), n);
}

// 1 / (1 + e^−x). For x < −88.38, 2^n is infinite and the result 0; the value would be no normal number.
template <class V> inline IfFloat<V> sigmoid(V x) {
  V n, p = add(expm1_reduced(clamp(neg(x), -87.f, 89.f), n), V::all(1));
  return div(V::all(1), fma(p, power_of_two(n), V::all(1)));
}

// u / (u + 2) with u = e^2|x| − 1 = 2^n · (e^r − 1) + (2^n − 1), which is exact to the last bits near 0, too;
// 1 for |x| ≥ 10. Two thirds of the time of a polynomial below 0.625 and 1 − 2 / (e^2|x| + 1) above.
template <class V> inline IfFloat<V> tanh(V x) {
  V a = min_raw(V::all(10), abs(x)), n, p = expm1_reduced(add(a, a), n), s = power_of_two(n);
  V u = fma(p, s, sub(s, V::all(1)));
  return copysign(div(u, add(u, V::all(2))), x);
}

// log of a normal positive x = m·2^e, m in [√½, √2).
template <class V> inline V log_normal(V x) {
  V m, e;
  split_exponent(x, m, e);
  V f = sub(m, V::all(1)), z = mul(f, f);
  V p = V::all(7.0376836292e-2f);
  p = fma(p, f, V::all(-1.1514610310e-1f));
  p = fma(p, f, V::all(1.1676998740e-1f));
  p = fma(p, f, V::all(-1.2420140846e-1f));
  p = fma(p, f, V::all(1.4249322787e-1f));
  p = fma(p, f, V::all(-1.6668057665e-1f));
  p = fma(p, f, V::all(2.0000714765e-1f));
  p = fma(p, f, V::all(-2.4999993993e-1f));
  p = fma(p, f, V::all(3.3333331174e-1f));
  V y = mul(mul(f, z), p);
  y = fma(e, V::all(-2.12194440e-4f), y);
  y = fma(V::all(-.5f), z, y);
  return fma(e, V::all(.693359375f), add(f, y));
}

template <class V> inline IfFloat<V> log(V x) {
  const float inf = std::numeric_limits<float>::infinity();
  V y = select(equal(x, V::all(0)), V::all(-inf), log_normal(x));
  y = select(less(x, V::all(0)), V::all(std::numeric_limits<float>::quiet_NaN()), y);
  y = select(equal(x, V::all(inf)), x, y);
  return select(equal(x, x), y, x);
}

// log(1 + e^x) = max(x, 0) + log1p(u) with u = e^−|x|. log1p(u) = 2 artanh(s) with s = u / (u + 2) ≤ ⅓, and
// artanh(s) / s is a polynomial in s² (Chebyshev's for (artanh(s) / s − 1) / s², 4·10⁻⁹ off at most). 2 s is
// taken as u − u s, in which the rounding error of s counts less. Half the time of log1p as log(1 + u) with a
// correction for the rounding of 1 + u.
template <class V> inline IfFloat<V> softplus(V x) {
  V u = exp(neg(abs(x))), s = div(u, add(u, V::all(2))), t = mul(s, s), twice = fma(neg(u), s, u);
  V p = V::all(1.1612165e-1f);
  p = fma(p, t, V::all(1.08532876e-1f));
  p = fma(p, t, V::all(1.4296179e-1f));
  p = fma(p, t, V::all(1.9999853e-1f));
  p = fma(p, t, V::all(3.3333334e-1f));
  return add(max_raw(V::all(0), x), fma(p, mul(twice, t), twice));
}

#define OSTINATO_LIBM(name) \
  template <class V> inline IfFloat<V> name(V x) { \
    return libm(x, [](float v) { return std::name(v); }); \
  }
OSTINATO_LIBM(log1p)
OSTINATO_LIBM(expm1)
OSTINATO_LIBM(erf)
OSTINATO_LIBM(sin)
OSTINATO_LIBM(cos)
#undef OSTINATO_LIBM
template <class V> inline IfFloat<V> pow(V x, V y) {
  return libm2(x, y, [](float v, float w) { return std::pow(v, w); });
}

// e^(x²) erfc(x), to x² ε relative, as x² is rounded. From 25 on, where erfc(x) would soon be no normal
// number, the asymptotic series (DLMF 7.12.1) to u⁶ with u = 1 / (2 x²); the next term, 13!! u⁷, is below
// 3·10⁻¹⁷.
inline double erfcx_double(double x) {
  if (!(x > 25)) return x < -27 ? std::numeric_limits<double>::infinity() : std::exp(x * x) * std::erfc(x);
  const double u = 0.5 / (x * x), one_over_root_pi = 0.56418958354775628695;
  const double series = 1 - u * (1 - 3 * u * (1 - 5 * u * (1 - 7 * u * (1 - 9 * u * (1 - 11 * u)))));
  return series / x * one_over_root_pi;
}
