// Sixteen float32 lanes (AVX-512 F, DQ, VL, BW). Included inside the namespace of the instruction set.
#pragma once

struct Avx512 {
  using Scalar = float;
  static constexpr int kLanes = 16;
  static constexpr int kRegisters = 32;
  __m512 v;
  static Avx512 all(float x) { return {_mm512_set1_ps(x)}; }
  static Avx512 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static __mmask16 first(int n) { return __mmask16((1u << n) - 1); }  // lanes 0 … n−1
  static Avx512 load(const float* p, int n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
  static Avx512 load_lanes(const float* p, uint32_t lanes) {  // zeros where a bit of lanes is not set
    return {_mm512_maskz_loadu_ps(__mmask16(lanes), p)};
  }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store(float* p, int n) const { _mm512_mask_storeu_ps(p, first(n), v); }
};

inline Avx512 add(Avx512 a, Avx512 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Avx512 sub(Avx512 a, Avx512 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Avx512 mul(Avx512 a, Avx512 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Avx512 div(Avx512 a, Avx512 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Avx512 fma(Avx512 a, Avx512 b, Avx512 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Avx512 sqrt(Avx512 a) { return {_mm512_sqrt_ps(a.v)}; }
inline Avx512 neg(Avx512 a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.f))}; }
inline Avx512 abs(Avx512 a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.f), a.v)}; }
inline Avx512 copysign(Avx512 a, Avx512 s) {
  return {_mm512_or_ps(abs(a).v, _mm512_and_ps(s.v, _mm512_set1_ps(-0.f)))};
}
inline __mmask16 less(Avx512 a, Avx512 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ); }
inline __mmask16 less_equal(Avx512 a, Avx512 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ); }
inline __mmask16 equal(Avx512 a, Avx512 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }
inline Avx512 select(__mmask16 m, Avx512 t, Avx512 f) { return {_mm512_mask_blend_ps(m, f.v, t.v)}; }
inline Avx512 min_raw(Avx512 a, Avx512 b) { return {_mm512_min_ps(a.v, b.v)}; }  // b where one is NaN
inline Avx512 max_raw(Avx512 a, Avx512 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Avx512 round(Avx512 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Avx512 power_of_two(Avx512 k) {
  __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(k.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(e, 23))};
}
inline Avx512 scaled(Avx512 x, Avx512 n) { return {_mm512_scalef_ps(x.v, n.v)}; }  // x·2^n, rounded once
inline void split_exponent(Avx512 x, Avx512& m, Avx512& e) {
  __m512i b = _mm512_castps_si512(x.v);
  __m512i k = _mm512_srai_epi32(_mm512_sub_epi32(b, _mm512_set1_epi32(0x3f3504f3)), 23);
  m.v = _mm512_castsi512_ps(_mm512_sub_epi32(b, _mm512_slli_epi32(k, 23)));
  e.v = _mm512_cvtepi32_ps(k);
}
template <class F> inline Avx512 per_lane(Avx512 a, F f) {
  float x[16];
  a.store(x);
  for (float& v : x) v = f(v);
  return Avx512::load(x);
}
template <class F> inline Avx512 per_lane2(Avx512 a, Avx512 b, F f) {
  float x[16], y[16];
  a.store(x);
  b.store(y);
  for (int i = 0; i < 16; i++) x[i] = f(x[i], y[i]);
  return Avx512::load(x);
}

// Sixteen rows of sixteen lanes, each folded 8, 4, 2, 1; the first n results. A vector that holds several
// rows is halved at once for all of them: rows 0 and 4, then 0, 4, 8 and 12, and so on.
template <class V, class F> inline std::enable_if_t<std::is_same_v<V, Avx512>, bool> fold_rows(
    const float* rows, int n, float* out) {
  const auto eights = [&](int a, int b) {
    const __m512 x = _mm512_loadu_ps(rows + 16 * a), y = _mm512_loadu_ps(rows + 16 * b);
    return F::of(Avx512{_mm512_shuffle_f32x4(x, y, _MM_SHUFFLE(1, 0, 1, 0))},
                 Avx512{_mm512_shuffle_f32x4(x, y, _MM_SHUFFLE(3, 2, 3, 2))});
  };
  const auto fours = [&](int r) {
    const __m512 x = eights(r, r + 4).v, y = eights(r + 8, r + 12).v;
    return F::of(Avx512{_mm512_shuffle_f32x4(x, y, _MM_SHUFFLE(2, 0, 2, 0))},
                 Avx512{_mm512_shuffle_f32x4(x, y, _MM_SHUFFLE(3, 1, 3, 1))});
  };
  const auto twos = [&](int r) {
    const __m512 x = fours(r).v, y = fours(r + 1).v;
    return F::of(Avx512{_mm512_shuffle_ps(x, y, _MM_SHUFFLE(1, 0, 1, 0))},
                 Avx512{_mm512_shuffle_ps(x, y, _MM_SHUFFLE(3, 2, 3, 2))});
  };
  const __m512 x = twos(0).v, y = twos(2).v;
  F::of(Avx512{_mm512_shuffle_ps(x, y, _MM_SHUFFLE(2, 0, 2, 0))},
        Avx512{_mm512_shuffle_ps(x, y, _MM_SHUFFLE(3, 1, 3, 1))})
      .store(out, n);
  return true;
}
