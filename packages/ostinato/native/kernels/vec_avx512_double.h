// Eight float64 lanes (AVX-512 F, DQ, VL, BW). Included inside the namespace of the instruction set.
#pragma once

struct Avx512Double {
  using Scalar = double;
  static constexpr int kLanes = 8;
  static constexpr int kRegisters = 32;
  __m512d v;
  static Avx512Double all(double x) { return {_mm512_set1_pd(x)}; }
  static Avx512Double load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static __mmask8 first(int n) { return __mmask8((1u << n) - 1); }  // lanes 0 … n−1
  static Avx512Double load(const double* p, int n) { return {_mm512_maskz_loadu_pd(first(n), p)}; }
  static Avx512Double load_lanes(const double* p, uint32_t lanes) {  // zeros where a bit of lanes is not set
    return {_mm512_maskz_loadu_pd(__mmask8(lanes), p)};
  }
  void store(double* p) const { _mm512_storeu_pd(p, v); }
  void store(double* p, int n) const { _mm512_mask_storeu_pd(p, first(n), v); }
};

inline Avx512Double add(Avx512Double a, Avx512Double b) { return {_mm512_add_pd(a.v, b.v)}; }
inline Avx512Double sub(Avx512Double a, Avx512Double b) { return {_mm512_sub_pd(a.v, b.v)}; }
inline Avx512Double mul(Avx512Double a, Avx512Double b) { return {_mm512_mul_pd(a.v, b.v)}; }
inline Avx512Double div(Avx512Double a, Avx512Double b) { return {_mm512_div_pd(a.v, b.v)}; }
inline Avx512Double fma(Avx512Double a, Avx512Double b, Avx512Double c) {
  return {_mm512_fmadd_pd(a.v, b.v, c.v)};
}
inline Avx512Double sqrt(Avx512Double a) { return {_mm512_sqrt_pd(a.v)}; }
inline Avx512Double neg(Avx512Double a) { return {_mm512_xor_pd(a.v, _mm512_set1_pd(-0.))}; }
inline Avx512Double abs(Avx512Double a) { return {_mm512_andnot_pd(_mm512_set1_pd(-0.), a.v)}; }
inline Avx512Double copysign(Avx512Double a, Avx512Double s) {
  return {_mm512_or_pd(abs(a).v, _mm512_and_pd(s.v, _mm512_set1_pd(-0.)))};
}
inline __mmask8 less(Avx512Double a, Avx512Double b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ); }
inline __mmask8 less_equal(Avx512Double a, Avx512Double b) {
  return _mm512_cmp_pd_mask(a.v, b.v, _CMP_LE_OQ);
}
inline __mmask8 equal(Avx512Double a, Avx512Double b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ); }
inline Avx512Double select(__mmask8 m, Avx512Double t, Avx512Double f) {
  return {_mm512_mask_blend_pd(m, f.v, t.v)};
}
inline bool any(__mmask8 m) { return m != 0; }
inline Avx512Double min_raw(Avx512Double a, Avx512Double b) { return {_mm512_min_pd(a.v, b.v)}; }
inline Avx512Double max_raw(Avx512Double a, Avx512Double b) { return {_mm512_max_pd(a.v, b.v)}; }
inline Avx512Double round(Avx512Double a) {
  return {_mm512_roundscale_pd(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Avx512Double power_of_two(Avx512Double k) {
  const __m512i e = _mm512_castpd_si512(add(k, Avx512Double::all(kIntegerInLowBits)).v);
  return {_mm512_castsi512_pd(_mm512_slli_epi64(_mm512_add_epi64(e, _mm512_set1_epi64(1023)), 52))};
}
inline Avx512Double scaled(Avx512Double x, Avx512Double n) { return {_mm512_scalef_pd(x.v, n.v)}; }
inline void split_exponent(Avx512Double x, Avx512Double& m, Avx512Double& e) {
  const __m512i b = _mm512_castpd_si512(x.v), u = _mm512_add_epi64(b, _mm512_set1_epi64(kFromRootHalf));
  const __m512i one = _mm512_set1_epi64(kOneBits), k = _mm512_srli_epi64(u, 52);
  m.v = _mm512_castsi512_pd(_mm512_add_epi64(_mm512_sub_epi64(b, _mm512_slli_epi64(k, 52)), one));
  const __m512i biased = _mm512_or_si512(k, _mm512_set1_epi64(kTwo52Bits));
  e = sub(Avx512Double{_mm512_castsi512_pd(biased)}, Avx512Double::all(kTwo52And1023));
}
template <class F> inline Avx512Double per_lane(Avx512Double a, F f) {
  double x[8];
  a.store(x);
  for (double& v : x) v = f(v);
  return Avx512Double::load(x);
}
template <class F> inline Avx512Double per_lane2(Avx512Double a, Avx512Double b, F f) {
  double x[8], y[8];
  a.store(x);
  b.store(y);
  for (int i = 0; i < 8; i++) x[i] = f(x[i], y[i]);
  return Avx512Double::load(x);
}

// Rows of sixteen lanes, each folded 8, 4, 2, 1, eight rows at a time; the first n results. A vector that
// holds several rows is halved at once for all of them.
template <class V, class F> inline std::enable_if_t<std::is_same_v<V, Avx512Double>, bool> fold_rows(
    const double* rows, int n, double* out) {
  const auto eights = [&](int r) { return F::of(V::load(rows + 16 * r), V::load(rows + 16 * r + 8)).v; };
  const auto fours = [&](int r) {
    const __m512d x = eights(r), y = eights(r + 2);
    return F::of(V{_mm512_shuffle_f64x2(x, y, _MM_SHUFFLE(1, 0, 1, 0))},
                 V{_mm512_shuffle_f64x2(x, y, _MM_SHUFFLE(3, 2, 3, 2))});
  };
  const auto twos = [&](int r) {
    const __m512d x = fours(r).v, y = fours(r + 4).v;
    return F::of(V{_mm512_shuffle_f64x2(x, y, _MM_SHUFFLE(2, 0, 2, 0))},
                 V{_mm512_shuffle_f64x2(x, y, _MM_SHUFFLE(3, 1, 3, 1))});
  };
  for (int r = 0; r < n; r += 8) {
    const __m512d x = twos(r).v, y = twos(r + 1).v;
    const V folded = F::of(V{_mm512_unpacklo_pd(x, y)}, V{_mm512_unpackhi_pd(x, y)});
    n - r < 8 ? folded.store(out + r, n - r) : folded.store(out + r);
  }
  return true;
}
