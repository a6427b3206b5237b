// Elementwise operations; included inside the namespace of one instruction set.
#pragma once

// out = f(a, b, c) over a row of whole vectors and `tail` lanes of another.
template <class V, int kArity, class F>
inline void elementwise_row(int64_t whole, int tail, const typename V::Scalar* pa,
                            const typename V::Scalar* pb, const typename V::Scalar* pc, typename V::Scalar* d,
                            F f) {
  constexpr int L = V::kLanes;
  V a = V::all(0), b = a, c = a;
  _Pragma("GCC unroll 2") for (int64_t i = 0; i < whole; i += L) {
    if (kArity > 0) a = V::load(pa + i);
    if (kArity > 1) b = V::load(pb + i);
    if (kArity > 2) c = V::load(pc + i);
    f(a, b, c).store(d + i);
  }
  if (tail) {
    if (kArity > 0) a = V::load(pa + whole, tail);
    if (kArity > 1) b = V::load(pb + whole, tail);
    if (kArity > 2) c = V::load(pc + whole, tail);
    f(a, b, c).store(d + whole, tail);
  }
}

// out = f(a, b, c) over some rows. Rows that follow each other in memory are one long row.
template <class V, int kArity, class F>
inline void elementwise(int64_t n_rows, int64_t N, const Rows<typename V::Scalar>* table,
                        const int16_t* which, F f) {
  using T = typename V::Scalar;
  // Not arrays: GCC keeps an array on the stack, and a short row waits for it.
  const T *pa = nullptr, *pb = nullptr, *pc = nullptr;
  int64_t sa = N, sb = N, sc = N;
  if (kArity > 0) {
    pa = table[which[0]].data;
    sa = table[which[0]].stride;
  }
  if (kArity > 1) {
    pb = table[which[1]].data;
    sb = table[which[1]].stride;
  }
  if (kArity > 2) {
    pc = table[which[2]].data;
    sc = table[which[2]].stride;
  }
  T* d = table[which[3]].data;
  const int64_t sd = table[which[3]].stride;
  if (n_rows > 1 && sa == N && sb == N && sc == N && sd == N) {
    N *= n_rows;
    n_rows = 1;
  }
  const int tail = int(uint64_t(N) % V::kLanes);
  const int64_t full = N - tail;
  for (int64_t r = 0; r < n_rows; r++) {
    elementwise_row<V, kArity>(full, tail, pa, pb, pc, d, f);
    if (kArity > 0) pa += sa;
    if (kArity > 1) pb += sb;
    if (kArity > 2) pc += sc;
    d += sd;
  }
}

#define OP(name, arity, expression)                                       \
  struct Of_##name {                                                      \
    static constexpr int kArity = arity;                                  \
    template <class V> static V of(V a, V b, V c, typename V::Scalar s) { \
      (void)a, (void)b, (void)c, (void)s;                                 \
      return expression;                                                  \
    }                                                                     \
  };
#include "kernels/ops.def"
#undef OP
#define FUSED(name, arity, expression)                              \
  struct Fused_##name {                                             \
    static constexpr int kArity = arity;                            \
    template <class V> static V of(V a, V b, V c, typename V::Scalar) { \
      (void)a, (void)b, (void)c;                                    \
      return expression;                                            \
    }                                                               \
  };
#include "kernels/fused.def"
#undef FUSED

// A pair of operations as one of up to three operands; see pairs.def.
template <class First, class Second, int kPlace> struct OpPair {
  static_assert(First::kArity <= 2 && First::kArity + Second::kArity <= 4 && kPlace < 2, "three operands");
  static constexpr int kArity = First::kArity + Second::kArity - 1;
  template <class V> static V of(V a, V b, V c, typename V::Scalar s) {
    const V x = First::of(a, b, c, s), next = First::kArity == 1 ? b : c;
    return kPlace == 0 ? Second::of(x, next, c, s) : Second::of(next, x, c, s);
  }
};

template <class V, class F>
void op(int64_t n_rows, int64_t N, const Rows<typename V::Scalar>* table, const int16_t* which,
        typename V::Scalar s) {
  elementwise<V, F::kArity>(n_rows, N, table, which, [s](V a, V b, V c) { return F::of(a, b, c, s); });
}
template <class V, class F>
void row_op(int64_t N, const typename V::Scalar* a, const typename V::Scalar* b, const typename V::Scalar* c,
            typename V::Scalar* out, typename V::Scalar s) {
  const int tail = int(uint64_t(N) % V::kLanes);
  elementwise_row<V, F::kArity>(N - tail, tail, a, b, c, out,
                                [s](V x, V y, V z) { return F::of(x, y, z, s); });
}
template <class V, class F> void put(Kernels<typename V::Scalar>& k, int32_t at) {
  k.elementwise[at] = op<V, F>;
  if constexpr (std::is_same_v<typename V::Scalar, float>) k.row_elementwise[at] = row_op<V, F>;
}
