// Four float32 lanes (NEON of AArch64). Included inside the namespace of the instruction set.
#pragma once

struct Neon {
  using Scalar = float;
  static constexpr int kLanes = 4;
  static constexpr int kRegisters = 32;
  float32x4_t v;
  static Neon all(float x) { return {vdupq_n_f32(x)}; }
  static Neon load(const float* p) { return {vld1q_f32(p)}; }
  static Neon load(const float* p, int n) {  // lanes 0 … n−1; zeros beside them
    float x[4] = {};
    for (int i = 0; i < n; i++) x[i] = p[i];
    return load(x);
  }
  static Neon load_lanes(const float* p, uint32_t lanes) {  // zeros where a bit of lanes is not set
    float x[4] = {};
    for (int i = 0; i < 4; i++)
      if (lanes >> i & 1) x[i] = p[i];
    return load(x);
  }
  void store(float* p) const { vst1q_f32(p, v); }
  void store(float* p, int n) const {
    float x[4];
    store(x);
    for (int i = 0; i < n; i++) p[i] = x[i];
  }
};

inline Neon add(Neon a, Neon b) { return {vaddq_f32(a.v, b.v)}; }
inline Neon sub(Neon a, Neon b) { return {vsubq_f32(a.v, b.v)}; }
inline Neon mul(Neon a, Neon b) { return {vmulq_f32(a.v, b.v)}; }
inline Neon div(Neon a, Neon b) { return {vdivq_f32(a.v, b.v)}; }
inline Neon fma(Neon a, Neon b, Neon c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
inline Neon sqrt(Neon a) { return {vsqrtq_f32(a.v)}; }
inline Neon neg(Neon a) { return {vnegq_f32(a.v)}; }
inline Neon abs(Neon a) { return {vabsq_f32(a.v)}; }
inline Neon copysign(Neon a, Neon s) { return {vbslq_f32(vdupq_n_u32(0x80000000u), s.v, a.v)}; }
inline uint32x4_t less(Neon a, Neon b) { return vcltq_f32(a.v, b.v); }
inline uint32x4_t less_equal(Neon a, Neon b) { return vcleq_f32(a.v, b.v); }
inline uint32x4_t equal(Neon a, Neon b) { return vceqq_f32(a.v, b.v); }
inline Neon select(uint32x4_t m, Neon t, Neon f) { return {vbslq_f32(m, t.v, f.v)}; }
// b where one is NaN, and of 0 and −0: the unit's own minimum gives NaN, and −0. The maximum of a number and
// itself is the number, or zero where it is below the smallest normal one, as x86 gives it.
inline Neon flushed(Neon a) { return {vmaxq_f32(a.v, a.v)}; }
inline Neon min_raw(Neon a, Neon b) { return flushed(select(less(a, b), a, b)); }
inline Neon max_raw(Neon a, Neon b) { return flushed(select(less(b, a), a, b)); }
inline Neon round(Neon a) { return {vrndnq_f32(a.v)}; }
inline Neon power_of_two(Neon k) {
  // As the other vector units convert: what does not fit becomes −2³¹.
  const uint32x4_t fits = vcltq_f32(vabsq_f32(k.v), vdupq_n_f32(2147483648.f));
  const int32x4_t integer = vbslq_s32(fits, vcvtq_s32_f32(k.v), vdupq_n_s32(INT32_MIN));
  return {vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(integer, vdupq_n_s32(127)), 23))};
}
// x·2^n, rounded once, for x in [½, 2] and n in [−152, 129]. In two steps, as 2^128 and 2^−150 are no floats.
inline Neon scaled(Neon x, Neon n) {
  const Neon half = round(mul(n, Neon::all(.5f)));
  return mul(mul(x, power_of_two(half)), power_of_two(sub(n, half)));
}
inline void split_exponent(Neon x, Neon& m, Neon& e) {
  const int32x4_t b = vreinterpretq_s32_f32(x.v);
  const int32x4_t k = vshrq_n_s32(vsubq_s32(b, vdupq_n_s32(0x3f3504f3)), 23);
  m.v = vreinterpretq_f32_s32(vsubq_s32(b, vshlq_n_s32(k, 23)));
  e.v = vcvtq_f32_s32(k);
}
template <class F> inline Neon per_lane(Neon a, F f) {
  float x[4];
  a.store(x);
  for (float& v : x) v = f(v);
  return Neon::load(x);
}
template <class F> inline Neon per_lane2(Neon a, Neon b, F f) {
  float x[4], y[4];
  a.store(x);
  b.store(y);
  for (int i = 0; i < 4; i++) x[i] = f(x[i], y[i]);
  return Neon::load(x);
}

// Sixteen rows of sixteen lanes, each folded 8, 4, 2, 1; the first n results, four at a time. A vector that
// holds two rows is halved at once for both.
template <class V, class F> inline std::enable_if_t<std::is_same_v<V, Neon>, bool> fold_rows(
    const float* rows, int n, float* out) {
  for (; n > 0; n -= 4, rows += 4 * 16, out += 4) {
    const auto four = [&](int r) {
      const float* x = rows + 16 * r;
      return F::of(F::of(Neon::load(x), Neon::load(x + 8)), F::of(Neon::load(x + 4), Neon::load(x + 12)));
    };
    const auto twos = [&](int r) {
      const float64x2_t x = vreinterpretq_f64_f32(four(r).v), y = vreinterpretq_f64_f32(four(r + 1).v);
      return F::of(Neon{vreinterpretq_f32_f64(vzip1q_f64(x, y))},
                   Neon{vreinterpretq_f32_f64(vzip2q_f64(x, y))});
    };
    const float32x4_t x = twos(0).v, y = twos(2).v;
    F::of(Neon{vuzp1q_f32(x, y)}, Neon{vuzp2q_f32(x, y)}).store(out, n < 4 ? n : 4);
  }
  return true;
}
