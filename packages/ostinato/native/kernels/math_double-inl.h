// The functions of math-inl.h for float64, and log1p, expm1, erf, sin, cos and pow: the same operations on
// every instruction set. The largest errors met, against results of many more digits, in ulp: exp 0.84,
// exp2 0.93, log 0.78, log1p 0.76, expm1 1.13, erf 1.10, sin and cos 0.74, tanh 2.15, sigmoid 1.84, softplus
// 1.32, pow 0.85; tests/engine/test_functions.py has the bounds.
// Results below 2⁻¹⁰²² are zeros, arguments too; NaN and −0 survive. Coefficients are those of
// scripts/coefficients.py, which names the function that each polynomial approximates.
#pragma once

// c[0] + c[1] x + c[2] x² + …, by halves (Estrin): the chain of additions is short.
template <int N, class V> inline V polynomial(const double* c, const V* powers) {
  if constexpr (N == 1) {
    return V::all(c[0]);
  } else if constexpr (N == 2) {
    return fma(powers[0], V::all(c[1]), V::all(c[0]));
  } else {
    constexpr int log = N > 8 ? 3 : N > 4 ? 2 : 1, half = 1 << log;
    return fma(powers[log], polynomial<N - half>(c + half, powers), polynomial<half>(c, powers));
  }
}
template <class V, int N> inline V polynomial(V x, const double (&c)[N]) {
  static_assert(N <= 16, "four powers");
  V powers[4] = {x, x, x, x};
  for (int i = 1; i < 4 && 1 << i < N; i++) powers[i] = mul(powers[i - 1], powers[i - 1]);
  return polynomial<N>(c, powers);
}

// Of 42 bits, so that its product with an exponent is exact; and the rest.
constexpr double kLn2 = 0x1.62e42fefa38p-1, kLn2Rest = 0x1.ef35793c7673p-45;
constexpr double kLog2E = 0x1.71547652b82fep+0;

// e^(x + rest) = 2^n e^(r + low) with |r| ≤ ln 2 / 2 and `low` the rounding error of r. Returns
// e^(r + low) − 1 − r.
template <class V> inline V exp_reduced(V x, V rest, V& n, V& r) {
  static constexpr double c[] = {
      0x1.0000000000000p-1,  0x1.5555555555557p-3,  0x1.5555555555556p-5,  0x1.11111111100dcp-7,
      0x1.6c16c16c162d4p-10, 0x1.a01a01abe7fe1p-13, 0x1.a01a01a6d889cp-16, 0x1.71de0231960ebp-19,
      0x1.27e4db646b17ep-22, 0x1.af4de97ca4194p-26, 0x1.1f730349868cep-29};
  n = round(mul(x, V::all(kLog2E)));
  const V near = fma(n, V::all(-kLn2), x), low = fma(n, V::all(-kLn2Rest), rest);
  r = add(near, low);
  return fma(mul(r, r), polynomial(r, c), add(sub(near, r), low));
}
// e^(x + rest) = 2^n times what is returned.
template <class V> inline V exp_scaled_down(V x, V rest, V& n) {
  V r, of_r = exp_reduced(x, rest, n, r);
  return add(add(r, of_r), V::all(1));
}
// e^x − 1 = 2^n r + (2^n − 1) + 2^n (e^r − 1 − r), the first sum with its rounding error; times `factor`, a
// power of two. |x| ≤ 710.
template <class V> inline V expm1_times(V x, double factor) {
  V n, r, of_r = exp_reduced(x, V::all(0), n, r);
  const V s = power_of_two(add(n, V::all(factor == 1 ? 0 : -1)));
  const V less_one = sub(s, V::all(factor)), of_x = mul(s, r), sum = add(less_one, of_x);
  return add(sum, fma(s, of_r, add(sub(less_one, sum), of_x)));
}

template <class V> inline IfDouble<V> exp(V x) {
  V n, p = exp_scaled_down(clamp(x, -746, 710), V::all(0), n);
  return scaled(p, n);
}

// 2^x = 2^n · 2^r with r = x − n, which is exact.
template <class V> inline IfDouble<V> exp2(V x) {
  static constexpr double c[] = {
      0x1.ebfbdff82c598p-3,  0x1.c6b08d704a0c2p-5,  0x1.3b2ab6fba1ddap-7,
      0x1.5d87fe78a5276p-10, 0x1.430913096fd9fp-13, 0x1.ffcbfc670dcd4p-17, 0x1.62bfd47773353p-20,
      0x1.b524fae627834p-24, 0x1.e6063f7217bc6p-28, 0x1.e9d3fe3952179p-32};
  x = clamp(x, -1080, 1025);
  const V n = round(x), r = sub(x, n);
  return scaled(add(fma(r, V::all(0x1.62e42fefa39efp-1), mul(mul(r, r), polynomial(r, c))), V::all(1)), n);
}

// x, or zero where it is below the smallest normal number: the sum rounds to x.
template <class V> inline V normal(V x) { return fma(x, V::all(0x1p-60), x); }

// Twice its half, since 2^1024 is no number. A small x is the result, so that nothing is below 2⁻¹⁰²².
template <class V> inline IfDouble<V> expm1(V x) {
  const V half = expm1_times(clamp(x, -40, 710), .5);
  return select(less(abs(x), V::all(0x1p-54)), normal(x), add(half, half));
}

// For x < −709.1, 2^n is infinite and the result 0; the value would be no normal number.
template <class V> inline IfDouble<V> sigmoid(V x) {
  V n, p = exp_scaled_down(clamp(neg(x), -708, 710), V::all(0), n);
  return div(V::all(1), fma(p, power_of_two(n), V::all(1)));
}

// u / (u + 2) with u = e^2|x| − 1; 1 for |x| ≥ 19.1.
template <class V> inline IfDouble<V> tanh(V x) {
  const V a = min_raw(V::all(22), abs(x)), u = expm1_times(add(a, a), 1);
  return copysign(div(u, add(u, V::all(2))), x);
}

// log of (1 + f) 2^e + lost, of which lost is some rounding error, given as `lost` / (1 + f). With
// s = f / (2 + f), log(1 + f) = 2 artanh(s) = 2s + s R(s²); here as f − (h − s (h + R)) with h = f² / 2,
// since 2s = f − s f: f is exact, and the rest small beside it.
template <class V> inline V log_sum(V f, V e, V lost) {
  static constexpr double c[] = {0x1.5555555555558p-1, 0x1.99999999952d7p-2, 0x1.2492492df281ap-2,
                                 0x1.c71c62e3f11e6p-3, 0x1.7462b51cb66b1p-3, 0x1.39fe51a7c18f9p-3,
                                 0x1.2b5900de53b32p-3};
  const V s = div(f, add(f, V::all(2))), z = mul(s, s), h = mul(mul(f, f), V::all(.5));
  const V R = mul(z, polynomial(z, c));
  const V rest = sub(h, fma(s, add(h, R), fma(e, V::all(kLn2Rest), lost)));
  return fma(e, V::all(kLn2), sub(f, rest));
}
// −∞ of 0, NaN below, ∞ of ∞.
template <class V> inline V log_ends(V x, V y) {
  const double inf = std::numeric_limits<double>::infinity();
  y = select(equal(x, V::all(0)), V::all(-inf), y);
  y = select(less(x, V::all(0)), V::all(std::numeric_limits<double>::quiet_NaN()), y);
  y = select(equal(x, V::all(inf)), x, y);
  return select(equal(x, x), y, x);
}
template <class V> inline IfDouble<V> log(V x) {
  V m, e;
  split_exponent(x, m, e);
  return log_ends(x, log_sum(sub(m, V::all(1)), e, V::all(0)));
}

// log(u) + lost / u, where 1 + x is the sum of u and of its rounding error.
template <class V> inline IfDouble<V> log1p(V x) {
  const V one = V::all(1), u = add(one, x), of_x = sub(u, one);
  const V lost = add(sub(one, sub(u, of_x)), sub(x, of_x));
  V m, e;
  split_exponent(u, m, e);
  const V y = log_ends(u, log_sum(sub(m, one), e, div(lost, u)));
  return select(less(abs(x), V::all(0x1p-54)), normal(x), y);
}

template <class V> inline IfDouble<V> softplus(V x) {
  return add(max_raw(V::all(0), x), log1p(exp(neg(abs(x)))));
}

// Below 1, x + x P(x²). Above, 1 − e^(−x²) G(t) with t = 1 / (x + 2), G = e^(x²) erfc(x); 1 from 6 on.
template <class V> inline IfDouble<V> erf(V x) {
  static constexpr double p[] = {0x1.06eba8214db69p-3,   -0x1.812746b0379e6p-2,  0x1.ce2f21a042b2fp-4,
                                 -0x1.b82ce31284df1p-6,  0x1.565bcd0dba7cep-8,   -0x1.c02db3dabced8p-11,
                                 0x1.f9a321d4dab9dp-14,  -0x1.f4d1e306e0024p-17, 0x1.b9df216542643p-20,
                                 -0x1.5f1ec38082bdcp-23, 0x1.f7b46724de981p-27,  -0x1.389c36ba235e9p-30,
                                 0x1.05fccb83cf37bp-34};
  static constexpr double g[] = {0x1.16707764daa10p-23,  0x1.20dc2355baaccp-1,   0x1.20f52bee7875ap+0,
                                 0x1.f777e42b23089p+0,   0x1.78938b0a918dap+1,   0x1.596c1d526242dp+0,
                                 0x1.54cac236830c2p+3,   -0x1.2d40356ceb601p+6,  0x1.33678e62f5ce3p+8,
                                 -0x1.1ba988f1f1dbap+10, 0x1.6f387ddb3772fp+11,  -0x1.2e1fd3f23448bp+12,
                                 0x1.2bd462cd89e61p+12,  -0x1.32498fc656b5fp+11, 0x1.afb3bcb16a707p+7,
                                 0x1.de7cb807e82e6p+7};
  const V a = min_raw(V::all(6), abs(x)), z = mul(a, a), t = div(V::all(1), add(a, V::all(2)));
  const V above = fma(neg(exp(neg(z))), polynomial(t, g), V::all(1));
  return select(less(a, V::all(1)), fma(x, polynomial(z, p), x), copysign(above, x));
}

// sin(x + quadrants π/2), where x = n π/2 + r + low with |r| ≤ π/4. π/2 in three parts: of 33 bits, so that
// its product with n < 2^20 is exact, and twice 53 bits, of whose product the rounding error is kept.
template <class V> inline V sine(V x, double quadrants) {
  constexpr double kPi[] = {0x1.921fb544p+0, 0x1.0b4611a626331p-34, 0x1.1701b839a2520p-88};
  static constexpr double of_sin[] = {-0x1.5555555555555p-3, 0x1.1111111111110p-7, -0x1.a01a01a019937p-13,
                                    0x1.71de3a54607a5p-19, -0x1.ae64541295cdfp-26, 0x1.61217ee5cca1bp-33,
                                    -0x1.ab17bdcbd3414p-41};
  static constexpr double of_cos[] = {0x1.5555555555555p-5, -0x1.6c16c16c16967p-10, 0x1.a01a019f4e9b4p-16,
                                    -0x1.27e4fa17bf139p-22, 0x1.1eeb68cd22f56p-29, -0x1.907d8f29fe831p-37};
  V n = round(mul(x, V::all(0x1.45f306dc9c883p-1)));
  const V near = fma(n, V::all(-kPi[0]), x), t = mul(n, V::all(kPi[1]));
  const V lost = fma(n, V::all(kPi[1]), neg(t));
  V r = sub(near, t);
  const V of_t = sub(r, near);  // r + error = near − t
  const V error = sub(sub(near, sub(r, of_t)), add(t, of_t));
  V low = fma(n, V::all(-kPi[2]), sub(error, lost));
  const V sum = add(r, low);
  low = sub(low, sub(sum, r));
  r = sum;

  const V z = mul(r, r), h = mul(z, V::all(.5)), w = sub(V::all(1), h);
  const V s = add(r, fma(mul(r, z), polynomial(z, of_sin), fma(neg(h), low, low)));
  const V c = add(w, add(sub(sub(V::all(1), w), h), fma(mul(z, z), polynomial(z, of_cos), neg(mul(r, low)))));

  // n modulo 4, by halves that are rounded down.
  n = add(n, V::all(quadrants));
  const V two = round(fma(n, V::all(.5), V::all(-.25))), four = round(fma(two, V::all(.5), V::all(-.25)));
  const V y = select(equal(n, add(two, two)), s, c);
  return select(equal(two, add(four, four)), y, neg(y));
}
// Above 2^20 the library's, lane by lane, ∞ too.
template <class V> inline IfDouble<V> sin(V x) {
  const V y = select(less(abs(x), V::all(0x1p-27)), normal(x), sine(x, 0));
  const auto far = less(V::all(0x1p20), abs(x));
  return any(far) ? select(far, libm(x, [](double v) { return std::sin(v); }), y) : y;
}
template <class V> inline IfDouble<V> cos(V x) {
  const V y = sine(x, 1);
  const auto far = less(V::all(0x1p20), abs(x));
  return any(far) ? select(far, libm(x, [](double v) { return std::cos(v); }), y) : y;
}

// The sum of a and b, |a| ≥ |b|, and its rounding error.
template <class V> inline V sum_of(V a, V b, V& error) {
  const V s = add(a, b);
  error = add(sub(a, s), b);
  return s;
}
// log x of a normal positive x, and what it lacks, together to 2⁻⁶⁴ of it: 2s + ⅔ s³ + s⁵ Q(s²), each as two
// numbers but the last.
template <class V> inline V log_twice(V x, V& rest) {
  static constexpr double Q[] = {0x1.999999999999ap-2, 0x1.2492492492521p-2, 0x1.c71c71c6eaa10p-3,
                               0x1.745d177a96056p-3, 0x1.3b1395d2190c1p-3, 0x1.1118c7e4b0917p-3,
                               0x1.df7cc8e5fa539p-4, 0x1.e02e6fff27908p-4};
  V m, e;
  split_exponent(x, m, e);
  const V f = sub(m, V::all(1)), g = add(f, V::all(2)), g_rest = sub(f, sub(g, V::all(2)));
  const V s = div(f, g), s_rest = div(sub(fma(neg(s), g, f), mul(s, g_rest)), g);
  const V z = mul(s, s), z_rest = fma(s, s, neg(z)), twice = add(s_rest, s_rest);
  const V cube = mul(s, z), cube_rest = fma(s, z, neg(cube));
  // z and the cube with what s lacks: (s + d)² = s² + 2 s d, (s + d)³ = s³ + 3 s² d
  const V cube_all = fma(s, z_rest, fma(mul(V::all(3), z), s_rest, cube_rest));
  V third_rest;
  const V third = sum_of(V::all(0x1.5555555555555p-1), mul(z, polynomial(z, Q)), third_rest);
  third_rest = add(third_rest, V::all(0x1.5555555555555p-55));
  const V term = mul(cube, third);
  const V term_rest = fma(cube_all, third, fma(cube, third_rest, fma(cube, third, neg(term))));
  V error;
  const V of_m = sum_of(add(s, s), term, error);
  const V of_m_rest = add(error, add(term_rest, twice));
  const V y = sum_of(mul(e, V::all(kLn2)), of_m, error);
  return sum_of(y, add(error, fma(e, V::all(kLn2Rest), of_m_rest)), rest);
}

// e^(y log |x|), −e^(…) of a negative x and an odd y. What C defines of 0, infinite, NaN and of a negative x
// with a y that is not whole is the library's, lane by lane.
template <class V> inline IfDouble<V> pow(V x, V y) {
  using Limits = std::numeric_limits<double>;
  const V a = abs(x), zero = V::all(0), one = V::all(1);
  // e^(y log x) is 0, 1 or infinite before y reaches 2^65.
  V rest, l = log_twice(a, rest), bounded = clamp(y, -0x1p65, 0x1p65), p = mul(bounded, l), n;
  const V within = clamp(p, -746, 710);
  const V lost = fma(bounded, rest, fma(bounded, l, neg(p)));
  V power = exp_scaled_down(within, select(equal(p, within), lost, zero), n);
  power = scaled(power, n);
  const V half = mul(y, V::all(.5));
  const V odd = select(equal(half, round(half)), one, V::all(-1));
  power = select(less(x, zero), mul(power, odd), power);

  const V whole = select(equal(y, round(y)), one, zero);
  V usual = select(less(x, zero), whole, one);
  usual = select(less_equal(a, V::all(Limits::max())), usual, zero);
  usual = select(less_equal(V::all(Limits::min()), a), usual, zero);
  usual = select(less_equal(abs(y), V::all(Limits::max())), usual, zero);
  if (!any(equal(usual, zero))) return power;
  return select(equal(usual, zero), libm2(x, y, [](double v, double w) { return std::pow(v, w); }), power);
}
