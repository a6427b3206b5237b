// Operations on arrays whose operands are read where they lie, though an axis of theirs is spread; see Fibres
// in kernels.h. Included inside the namespace of one instruction set, behind elementwise operations and sums.
#pragma once

// out = f(a, b, c). kVectors: of a fibre; 0: as many as J columns have.
template <class V, int kArity, int kScalars, int kVectors, class F, class T = typename V::Scalar>
inline void over_fibres(int64_t n_rows, int64_t n_fibres, int64_t J, const Fibres<T>* x, F f) {
  constexpr int L = V::kLanes;
  constexpr bool kScalarA = kScalars & kScalarOfA, kScalarC = kScalars & kScalarOfC;
  const int64_t n = kVectors ? kVectors * L : J;
  for (int64_t r = 0; r < n_rows; r++) {
    const T *pa = x[0].data + r * x[0].stride, *pb = x[1].data + r * x[1].stride;
    const T* pc = kArity > 2 ? x[2].data + r * x[2].stride : nullptr;
    T* d = x[3].data + r * x[3].stride;
    for (int64_t i = 0; i < n_fibres; i++) {
      V a = kScalarA ? V::all(*pa) : V::all(0), c = kArity > 2 && kScalarC ? V::all(*pc) : V::all(0);
      for (int64_t j = 0; j < n; j += L) {
        if (!kScalarA) a = V::load(pa + j);
        if (kArity > 2 && !kScalarC) c = V::load(pc + j);
        f(a, V::load(pb + j), c).store(d + j);
      }
      pa += x[0].step;
      pb += x[1].step;
      if (kArity > 2) pc += x[2].step;
      d += n;
    }
  }
}
template <class V, int kArity, int kScalars, class F, class T = typename V::Scalar>
inline void over_fibres(int64_t n_rows, int64_t n_fibres, int64_t J, const Fibres<T>* x, F f) {
  J == 2 * V::kLanes ? over_fibres<V, kArity, kScalars, 2>(n_rows, n_fibres, J, x, f)
                     : over_fibres<V, kArity, kScalars, 0>(n_rows, n_fibres, J, x, f);
}

template <class V, class F, int kScalars, class T = typename V::Scalar>
void op_on_fibres(int64_t n_rows, int64_t n_fibres, int64_t J, const Fibres<T>* x) {
  over_fibres<V, F::kArity, kScalars>(n_rows, n_fibres, J, x,
                                      [](V a, V b, V c) { return F::of(a, b, c, T(0)); });
}
template <class V, class First, class Second, int kPlace, int kScalars, class T = typename V::Scalar>
void pair_on_fibres(int64_t n_rows, int64_t n_fibres, int64_t J, const Fibres<T>* x) {
  static_assert(First::kArity == 2 && Second::kArity == 2, "three operands");
  over_fibres<V, 3, kScalars>(n_rows, n_fibres, J, x, [](V a, V b, V c) {
    const V y = First::of(a, b, c, T(0));
    return kPlace == 0 ? Second::of(y, c, c, T(0)) : Second::of(c, y, y, T(0));
  });
}

// Sixteen lanes of each of `count` sums of `per_sum` fibres. kColumns: of a fibre, one of which is a sum;
// 0: any.
template <class V, int kColumns, class T = typename V::Scalar>
inline void lanes_of_fibres(int count, int64_t J, int64_t per_sum, const T* p, int64_t p_step, const T* q,
                            int64_t q_step, T* lanes) {
  constexpr int L = V::kLanes, M = 16 / L;
  const int64_t n_fibres = kColumns ? 1 : per_sum, n = kColumns ? kColumns : J;
  for (int k = 0; k < count; k++, lanes += 16) {
    V acc[M];
    for (V& x : acc) x = V::all(0);
    for (int64_t i = 0; i < n_fibres; i++, p += p_step, q += q_step)
      for (int64_t j = 0; j < n; j += 16)
        for (int m = 0; m < M; m++)
          acc[m] = add(acc[m], mul(V::load(p + j + m * L), V::load(q + j + m * L)));
    for (int m = 0; m < M; m++) acc[m].store(lanes + m * L);
  }
}
// Sums of `per_sum` fibres: as row_sum of the products where the axis is the last.
template <class V, class T = typename V::Scalar>
void sum_fibres(int64_t n_rows, int64_t n_fibres, int64_t J, int64_t per_sum, const Fibres<T>& a,
                const Fibres<T>& b, Rows<T> out) {
  const auto lanes_of = per_sum == 1 && J == 32 ? lanes_of_fibres<V, 32> : lanes_of_fibres<V, 0>;
  for (int64_t r = 0; r < n_rows; r++) {
    LaneRows<T> rows;
    const int64_t n_sums = n_fibres / per_sum;
    for (int64_t o = 0; o < n_sums; o += 16) {
      const int count = int(std::min<int64_t>(16, n_sums - o));
      lanes_of(count, J, per_sum, a.data + r * a.stride + o * per_sum * a.step, a.step,
               b.data + r * b.stride + o * per_sum * b.step, b.step, rows.lanes);
      rows.template fold<V>(count, out.data + r * out.stride + o, Sum());
    }
  }
}

// Sums over the fibres, J of them: as row_sum of the products where the axis is the last but one.
template <class V, bool kScalarA, int kVectors, class T = typename V::Scalar>
inline void add_vectors_of_fibres(int64_t n_fibres, const T* p, int64_t p_step, const T* q, int64_t q_step,
                                  T* d, bool begins) {
  constexpr int L = V::kLanes;
  V acc[kVectors];
  for (int v = 0; v < kVectors; v++) acc[v] = begins ? V::all(0) : V::load(d + v * L);
  for (int64_t i = 0; i < n_fibres; i++, p += p_step, q += q_step) {
    const V s = kScalarA ? V::all(*p) : V::all(0);
    for (int v = 0; v < kVectors; v++)
      acc[v] = add(acc[v], mul(kScalarA ? s : V::load(p + v * L), V::load(q + v * L)));
  }
  for (int v = 0; v < kVectors; v++) acc[v].store(d + v * L);
}
template <class V, bool kScalarA, class T = typename V::Scalar>
inline void add_fibres_of(int64_t n_rows, int64_t n_fibres, int64_t J, const Fibres<T>& a, const Fibres<T>& b,
                          Rows<T> out, bool begins) {
  constexpr int L = V::kLanes;
  for (int64_t r = 0; r < n_rows; r++) {
    const T *p = a.data + r * a.stride, *q = b.data + r * b.stride;
    T* const d = out.data + r * out.stride;
    int64_t j = 0;
    const auto add_vectors = [&](auto n) {
      constexpr int kVectors = decltype(n)::value;
      for (; j + kVectors * L <= J; j += kVectors * L)
        add_vectors_of_fibres<V, kScalarA, kVectors>(n_fibres, kScalarA ? p : p + j, a.step, q + j, b.step,
                                                     d + j, begins);
    };
    add_vectors(std::integral_constant<int, 4>());
    add_vectors(std::integral_constant<int, 2>());
    add_vectors(std::integral_constant<int, 1>());
  }
}
template <class V, class T = typename V::Scalar>
void add_fibres(int64_t n_rows, int64_t n_fibres, int64_t J, bool scalar_a, const Fibres<T>& a,
                const Fibres<T>& b, Rows<T> out, bool begins) {
  scalar_a ? add_fibres_of<V, true>(n_rows, n_fibres, J, a, b, out, begins)
           : add_fibres_of<V, false>(n_rows, n_fibres, J, a, b, out, begins);
}
