// Four float64 lanes (AVX2 + FMA). Included inside the namespace of the instruction set.
#pragma once

struct Avx2Double {
  using Scalar = double;
  static constexpr int kLanes = 4;
  static constexpr int kRegisters = 16;
  __m256d v;
  static Avx2Double all(double x) { return {_mm256_set1_pd(x)}; }
  static Avx2Double load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static __m256i first(int n) {  // lanes 0 … n−1
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
  }
  static Avx2Double load(const double* p, int n) { return {_mm256_maskload_pd(p, first(n))}; }
  static Avx2Double load_lanes(const double* p, uint32_t lanes) {  // zeros where a bit of lanes is not set
    const __m256i bits = _mm256_setr_epi64x(1, 2, 4, 8);
    const __m256i set = _mm256_and_si256(_mm256_set1_epi64x(int64_t(lanes)), bits);
    return {_mm256_maskload_pd(p, _mm256_cmpeq_epi64(set, bits))};
  }
  void store(double* p) const { _mm256_storeu_pd(p, v); }
  void store(double* p, int n) const { _mm256_maskstore_pd(p, first(n), v); }
};

inline Avx2Double add(Avx2Double a, Avx2Double b) { return {_mm256_add_pd(a.v, b.v)}; }
inline Avx2Double sub(Avx2Double a, Avx2Double b) { return {_mm256_sub_pd(a.v, b.v)}; }
inline Avx2Double mul(Avx2Double a, Avx2Double b) { return {_mm256_mul_pd(a.v, b.v)}; }
inline Avx2Double div(Avx2Double a, Avx2Double b) { return {_mm256_div_pd(a.v, b.v)}; }
inline Avx2Double fma(Avx2Double a, Avx2Double b, Avx2Double c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
inline Avx2Double sqrt(Avx2Double a) { return {_mm256_sqrt_pd(a.v)}; }
inline Avx2Double neg(Avx2Double a) { return {_mm256_xor_pd(a.v, _mm256_set1_pd(-0.))}; }
inline Avx2Double abs(Avx2Double a) { return {_mm256_andnot_pd(_mm256_set1_pd(-0.), a.v)}; }
inline Avx2Double copysign(Avx2Double a, Avx2Double s) {
  return {_mm256_or_pd(abs(a).v, _mm256_and_pd(s.v, _mm256_set1_pd(-0.)))};
}
inline __m256d less(Avx2Double a, Avx2Double b) { return _mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ); }
inline __m256d less_equal(Avx2Double a, Avx2Double b) { return _mm256_cmp_pd(a.v, b.v, _CMP_LE_OQ); }
inline __m256d equal(Avx2Double a, Avx2Double b) { return _mm256_cmp_pd(a.v, b.v, _CMP_EQ_OQ); }
inline Avx2Double select(__m256d m, Avx2Double t, Avx2Double f) { return {_mm256_blendv_pd(f.v, t.v, m)}; }
inline bool any(__m256d m) { return _mm256_movemask_pd(m) != 0; }
inline Avx2Double min_raw(Avx2Double a, Avx2Double b) { return {_mm256_min_pd(a.v, b.v)}; }
inline Avx2Double max_raw(Avx2Double a, Avx2Double b) { return {_mm256_max_pd(a.v, b.v)}; }
inline Avx2Double round(Avx2Double a) {
  return {_mm256_round_pd(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Avx2Double power_of_two(Avx2Double k) {
  const __m256i e = _mm256_castpd_si256(add(k, Avx2Double::all(kIntegerInLowBits)).v);
  return {_mm256_castsi256_pd(_mm256_slli_epi64(_mm256_add_epi64(e, _mm256_set1_epi64x(1023)), 52))};
}
inline Avx2Double scaled(Avx2Double x, Avx2Double n) { return scaled_twice(x, n); }
inline void split_exponent(Avx2Double x, Avx2Double& m, Avx2Double& e) {
  const __m256i b = _mm256_castpd_si256(x.v), u = _mm256_add_epi64(b, _mm256_set1_epi64x(kFromRootHalf));
  const __m256i one = _mm256_set1_epi64x(kOneBits), k = _mm256_srli_epi64(u, 52);
  m.v = _mm256_castsi256_pd(_mm256_add_epi64(_mm256_sub_epi64(b, _mm256_slli_epi64(k, 52)), one));
  const __m256i biased = _mm256_or_si256(k, _mm256_set1_epi64x(kTwo52Bits));
  e = sub(Avx2Double{_mm256_castsi256_pd(biased)}, Avx2Double::all(kTwo52And1023));
}
template <class F> inline Avx2Double per_lane(Avx2Double a, F f) {
  double x[4];
  a.store(x);
  for (double& v : x) v = f(v);
  return Avx2Double::load(x);
}
template <class F> inline Avx2Double per_lane2(Avx2Double a, Avx2Double b, F f) {
  double x[4], y[4];
  a.store(x);
  b.store(y);
  for (int i = 0; i < 4; i++) x[i] = f(x[i], y[i]);
  return Avx2Double::load(x);
}

// Rows of sixteen lanes, each folded 8, 4, 2, 1, four rows at a time; the first n results. A vector that
// holds several rows is halved at once for all of them.
template <class V, class F> inline std::enable_if_t<std::is_same_v<V, Avx2Double>, bool> fold_rows(
    const double* rows, int n, double* out) {
  const auto fours = [&](int r) {
    const double* const p = rows + 16 * r;
    return F::of(F::of(V::load(p), V::load(p + 8)), F::of(V::load(p + 4), V::load(p + 12))).v;
  };
  const auto twos = [&](int r) {
    const __m256d x = fours(r), y = fours(r + 2);
    return F::of(V{_mm256_permute2f128_pd(x, y, 0x20)}, V{_mm256_permute2f128_pd(x, y, 0x31)}).v;
  };
  for (int r = 0; r < n; r += 4) {
    const __m256d x = twos(r), y = twos(r + 1);
    const V folded = F::of(V{_mm256_unpacklo_pd(x, y)}, V{_mm256_unpackhi_pd(x, y)});
    n - r < 4 ? folded.store(out + r, n - r) : folded.store(out + r);
  }
  return true;
}
