// Eight float32 lanes (AVX2 + FMA). Included inside the namespace of the instruction set.
#pragma once

struct Avx2 {
  using Scalar = float;
  static constexpr int kLanes = 8;
  static constexpr int kRegisters = 16;
  __m256 v;
  static Avx2 all(float x) { return {_mm256_set1_ps(x)}; }
  static Avx2 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static __m256i first(int n) {  // lanes 0 … n−1
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static Avx2 load(const float* p, int n) { return {_mm256_maskload_ps(p, first(n))}; }
  static Avx2 load_lanes(const float* p, uint32_t lanes) {  // zeros where a bit of lanes is not set
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i set = _mm256_and_si256(_mm256_set1_epi32(int(lanes)), bits);
    return {_mm256_maskload_ps(p, _mm256_cmpeq_epi32(set, bits))};
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  void store(float* p, int n) const { _mm256_maskstore_ps(p, first(n), v); }
};
using Mask256 = __m256;

inline Avx2 add(Avx2 a, Avx2 b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Avx2 sub(Avx2 a, Avx2 b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Avx2 mul(Avx2 a, Avx2 b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Avx2 div(Avx2 a, Avx2 b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Avx2 fma(Avx2 a, Avx2 b, Avx2 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Avx2 sqrt(Avx2 a) { return {_mm256_sqrt_ps(a.v)}; }
inline Avx2 neg(Avx2 a) { return {_mm256_xor_ps(a.v, _mm256_set1_ps(-0.f))}; }
inline Avx2 abs(Avx2 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.f), a.v)}; }
inline Avx2 copysign(Avx2 a, Avx2 s) {
  return {_mm256_or_ps(abs(a).v, _mm256_and_ps(s.v, _mm256_set1_ps(-0.f)))};
}
inline Mask256 less(Avx2 a, Avx2 b) { return _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ); }
inline Mask256 less_equal(Avx2 a, Avx2 b) { return _mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ); }
inline Mask256 equal(Avx2 a, Avx2 b) { return _mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ); }
inline Avx2 select(Mask256 m, Avx2 t, Avx2 f) { return {_mm256_blendv_ps(f.v, t.v, m)}; }
inline Avx2 min_raw(Avx2 a, Avx2 b) { return {_mm256_min_ps(a.v, b.v)}; }  // b where one is NaN
inline Avx2 max_raw(Avx2 a, Avx2 b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Avx2 round(Avx2 a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline Avx2 power_of_two(Avx2 k) {
  __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(k.v), _mm256_set1_epi32(127));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(e, 23))};
}
// x·2^n, rounded once, for x in [½, 2] and n in [−152, 129]. In two steps, as 2^128 and 2^−150 are no floats.
inline Avx2 scaled(Avx2 x, Avx2 n) {
  const Avx2 half = round(mul(n, Avx2::all(.5f)));
  return mul(mul(x, power_of_two(half)), power_of_two(sub(n, half)));
}
inline void split_exponent(Avx2 x, Avx2& m, Avx2& e) {
  __m256i b = _mm256_castps_si256(x.v);
  __m256i k = _mm256_srai_epi32(_mm256_sub_epi32(b, _mm256_set1_epi32(0x3f3504f3)), 23);
  m.v = _mm256_castsi256_ps(_mm256_sub_epi32(b, _mm256_slli_epi32(k, 23)));
  e.v = _mm256_cvtepi32_ps(k);
}
template <class F> inline Avx2 per_lane(Avx2 a, F f) {
  float x[8];
  a.store(x);
  for (float& v : x) v = f(v);
  return Avx2::load(x);
}
template <class F> inline Avx2 per_lane2(Avx2 a, Avx2 b, F f) {
  float x[8], y[8];
  a.store(x);
  b.store(y);
  for (int i = 0; i < 8; i++) x[i] = f(x[i], y[i]);
  return Avx2::load(x);
}

// Sixteen rows of sixteen lanes, each folded 8, 4, 2, 1; the first n results, eight at a time. A vector that
// holds several rows is halved at once for all of them: rows 0 and 4, then 0, 1, 4 and 5, and so on.
template <class V, class F> inline std::enable_if_t<std::is_same_v<V, Avx2>, bool> fold_rows(
    const float* rows, int n, float* out) {
  for (; n > 0; n -= 8, rows += 8 * 16, out += 8) {
    const auto eight = [&](int r) { return F::of(Avx2::load(rows + 16 * r), Avx2::load(rows + 16 * r + 8)); };
    const auto fours = [&](int r) {
      const __m256 x = eight(r).v, y = eight(r + 4).v;
      return F::of(Avx2{_mm256_permute2f128_ps(x, y, 0x20)}, Avx2{_mm256_permute2f128_ps(x, y, 0x31)});
    };
    const auto twos = [&](int r) {
      const __m256 x = fours(r).v, y = fours(r + 1).v;
      return F::of(Avx2{_mm256_shuffle_ps(x, y, _MM_SHUFFLE(1, 0, 1, 0))},
                   Avx2{_mm256_shuffle_ps(x, y, _MM_SHUFFLE(3, 2, 3, 2))});
    };
    const __m256 x = twos(0).v, y = twos(2).v;
    F::of(Avx2{_mm256_shuffle_ps(x, y, _MM_SHUFFLE(2, 0, 2, 0))},
          Avx2{_mm256_shuffle_ps(x, y, _MM_SHUFFLE(3, 1, 3, 1))})
        .store(out, n < 8 ? n : 8);
  }
  return true;
}
