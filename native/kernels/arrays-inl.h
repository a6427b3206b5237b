// Rows as arrays: spreading and reducing an axis, taking elements, small products. Included inside the
// namespace of one instruction set.
#pragma once

// Columns [column, column + n) of rows of which a has one element where they have `times`, `inner` apart.
template <class V>
void spread(int64_t n_rows, int64_t n, Rows<const typename V::Scalar> a, Rows<typename V::Scalar> out,
            int64_t column, Axis axis) {
  using T = typename V::Scalar;
  const int64_t block = axis.times * axis.inner;
  for (int64_t r = 0; r < n_rows; r++) {
    const T* const from = a.data + r * a.stride;
    T* d = out.data + r * out.stride;
    int64_t o = column / block, place = column % block;
    for (int64_t left = n; left > 0;) {  // a piece: what lies in one [times, inner]
      const T* const p = from + o * axis.inner;
      if (axis.inner == 1) {
        const int64_t run = std::min(block - place, left);
        const V x = V::all(*p);
        int64_t i = 0;
        for (; i + V::kLanes <= run; i += V::kLanes) x.store(d + i);
        if (i < run) x.store(d + i, int(run - i));
        d += run;
        left -= run;
        place += run;
      } else {
        const int64_t i0 = place % axis.inner, run = std::min(axis.inner - i0, left);
        int64_t i = 0;
        for (; i + V::kLanes <= run; i += V::kLanes) V::load(p + i0 + i).store(d + i);
        if (i < run) V::load(p + i0 + i, int(run - i)).store(d + i, int(run - i));
        d += run;
        left -= run;
        place += run;
      }
      if (place == block) {
        place = 0;
        o++;
      }
    }
  }
}

// Sixteen lanes of each of up to sixteen sums or maxima, to be folded 8, 4, 2, 1: the same tree whatever the
// width of a vector.
template <class T> struct LaneRows {
  T lanes[16 * 16];

  template <class F> void fold(int n, T* out, F f) {
    for (int width = 8; width > 1; width /= 2)
      for (int r = 0; r < n; r++) {  // in place: row r is written where rows up to r were read
        T* const from = lanes + r * 2 * width;
        T folded[8];
        for (int j = 0; j < width; j++) folded[j] = f(from[j], from[width + j]);
        for (int j = 0; j < width; j++) lanes[r * width + j] = folded[j];
      }
    for (int r = 0; r < n; r++) out[r] = f(lanes[2 * r], lanes[2 * r + 1]);
  }
};

struct Sum {
  template <class T> T operator()(T x, T y) const { return x + y; }
  template <class V> static V of(V x, V y) { return add(x, y); }
  template <class T> static T neutral() { return 0; }
};
struct Max {  // NaN if one is
  template <class T> T operator()(T x, T y) const { return x != x ? x : y != y ? y : x > y ? x : y; }
  template <class V> static V of(V x, V y) { return max_nan(x, y); }
  template <class T> static T neutral() { return -std::numeric_limits<T>::infinity(); }
};

// Element j of n goes to lane j mod 16. step(lanes, j, m) takes a vector of elements from j on; m of them if m
// is not 0.
template <class V, class F, class T = typename V::Scalar>
inline void into_lanes(int64_t n, T* lanes, V neutral, F step) {
  constexpr int L = V::kLanes, M = 16 / L;
  V acc[M];
  for (int j = 0; j < M; j++) acc[j] = neutral;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < M; j++) acc[j] = step(acc[j], i + j * L, 0);
  for (int j = 0; j < M; j++) acc[j].store(lanes + j * L);
  for (int j = 0; j < M && i + j * L < n; j++) {
    const int m = int(std::min<int64_t>(L, n - i - j * L));
    step(acc[j], i + j * L, m).store(lanes + j * L, m);
  }
}

// Over the axis of [outer, times, inner]. Where its elements lie together, sixteen lanes are folded;
// otherwise each result is one chain, in order.
template <class V, class F>
void reduce_axis(int64_t n_rows, int64_t N, Axis axis, Rows<const typename V::Scalar> a,
                 Rows<typename V::Scalar> out) {
  using T = typename V::Scalar;
  constexpr int L = V::kLanes, kTogether = 4;
  const int64_t n_outer = N / (axis.times * axis.inner);
  const V neutral = V::all(F::template neutral<T>());
  const auto next = [](V acc, const T* p, int m) {
    return F::of(acc, m ? V::load(p, m) : V::load(p));
  };
  for (int64_t r = 0; r < n_rows; r++) {
    const T* const p = a.data + r * a.stride;
    T* const d = out.data + r * out.stride;
    if (axis.inner == 1) {
      LaneRows<T> rows;
      for (int64_t o = 0; o < n_outer; o += 16) {
        const int n = int(std::min<int64_t>(16, n_outer - o));
        for (int k = 0; k < n; k++) {
          const T* const from = p + (o + k) * axis.times;
          into_lanes<V>(axis.times, rows.lanes + 16 * k, neutral,
                        [&](V acc, int64_t j, int m) { return next(acc, from + j, m); });
        }
        rows.fold(n, d + o, F());
      }
      continue;
    }
    for (int64_t o = 0; o < n_outer; o++) {
      const T* const from = p + o * axis.times * axis.inner;
      T* const to = d + o * axis.inner;
      int64_t i = 0;
      for (; i + kTogether * L <= axis.inner; i += kTogether * L) {
        V acc[kTogether] = {neutral, neutral, neutral, neutral};
        for (int64_t j = 0; j < axis.times; j++)
          for (int v = 0; v < kTogether; v++) acc[v] = next(acc[v], from + j * axis.inner + i + v * L, 0);
        for (int v = 0; v < kTogether; v++) acc[v].store(to + i + v * L);
      }
      for (; i < axis.inner; i += L) {
        const int m = int(std::min<int64_t>(L, axis.inner - i)), part = m < L ? m : 0;
        V acc = neutral;
        for (int64_t j = 0; j < axis.times; j++) acc = next(acc, from + j * axis.inner + i, part);
        acc.store(to + i, m);
      }
    }
  }
}
template <class V>
void row_sum(int64_t n_rows, int64_t N, Axis axis, Rows<const typename V::Scalar> a,
             Rows<typename V::Scalar> out) {
  reduce_axis<V, Sum>(n_rows, N, axis, a, out);
}
template <class V>
void row_max(int64_t n_rows, int64_t N, Axis axis, Rows<const typename V::Scalar> a,
             Rows<typename V::Scalar> out) {
  reduce_axis<V, Max>(n_rows, N, axis, a, out);
}

template <class V>
void take(int64_t n_rows, const Run* runs, int64_t n_runs, Rows<const typename V::Scalar> a,
          Rows<typename V::Scalar> out) {
  using T = typename V::Scalar;
  for (int64_t r = 0; r < n_rows; r++) {
    const T* const from = a.data + r * a.stride;
    T* d = out.data + r * out.stride;
    for (const Run* run = runs; run < runs + n_runs; run++) {
      const int64_t n = run->count, step = run->step;
      if (run->start < 0) {
        for (int64_t i = 0; i < n; i++) d[i] = 0;
      } else if (step == 1) {
        std::memcpy(d, from + run->start, sizeof(T) * size_t(n));
      } else {
        const T* p = from + run->start;
        for (int64_t i = 0; i < n; i++) d[i] = p[i * step];
      }
      d += n;
    }
  }
}

// kRows rows of a times kVectors vectors of columns of b: each element one chain.
template <class V, int kRows, int kVectors, class T = typename V::Scalar>
inline void small_tile(const SmallProduct& x, const T* a, const T* b, T* d, int last) {
  constexpr int L = V::kLanes;
  V acc[kRows][kVectors];
  for (auto& row : acc)
    for (V& v : row) v = V::all(0);
  for (int64_t k = 0; k < x.K; k++) {
    V w[kVectors];
    for (int v = 0; v < kVectors; v++) {
      const T* const p = b + k * x.N + v * L;
      w[v] = v + 1 == kVectors && last ? V::load(p, last) : V::load(p);
    }
    for (int m = 0; m < kRows; m++) {
      const V s = V::all(a[m * x.K + k]);
      for (int v = 0; v < kVectors; v++) acc[m][v] = fma(s, w[v], acc[m][v]);
    }
  }
  for (int m = 0; m < kRows; m++)
    for (int v = 0; v < kVectors; v++) {
      T* const p = d + m * x.N + v * L;
      v + 1 == kVectors && last ? acc[m][v].store(p, last) : acc[m][v].store(p);
    }
}
template <class V, int kRows, class T = typename V::Scalar>
inline void small_rows(const SmallProduct& x, const T* a, const T* b, T* d) {
  constexpr int64_t L = V::kLanes;
  int64_t n = 0;
  for (; n + 4 * L <= x.N; n += 4 * L) small_tile<V, kRows, 4>(x, a, b + n, d + n, 0);
  for (; n + 2 * L <= x.N; n += 2 * L) small_tile<V, kRows, 2>(x, a, b + n, d + n, 0);
  for (; n < x.N; n += L)
    small_tile<V, kRows, 1>(x, a, b + n, d + n, x.N - n < L ? int(x.N - n) : 0);
}
template <class V, class T = typename V::Scalar>
inline void small_product_across(const SmallProduct& x, const T* a, const T* b, T* d) {
  LaneRows<T> rows;
  for (int64_t m = 0; m < x.M; m++, a += x.K, d += x.N)
    for (int64_t n = 0; n < x.N; n += 16) {
      const int count = int(std::min<int64_t>(16, x.N - n));
      for (int i = 0; i < count; i++) {
        const T* const q = b + (n + i) * x.K;
        into_lanes<V>(x.K, rows.lanes + 16 * i, V::all(0), [&](V acc, int64_t k, int part) {
          return part ? fma(V::load(a + k, part), V::load(q + k, part), acc)
                      : fma(V::load(a + k), V::load(q + k), acc);
        });
      }
      rows.fold(count, d + n, Sum());
    }
}
template <class V>
void small_product(int64_t n_rows, const SmallProduct& x, Rows<const typename V::Scalar> a,
                   Rows<const typename V::Scalar> b, Rows<typename V::Scalar> out) {
  using T = typename V::Scalar;
  for (int64_t r = 0; r < n_rows; r++) {
    const T *p = a.data + r * a.stride, *q = b.data + r * b.stride;
    T* d = out.data + r * out.stride;
    for (int64_t g = 0; g < x.groups; g++) {
      if (x.across) {
        small_product_across<V>(x, p, q, d);
      } else {
        int64_t m = 0;
        for (; m + 4 <= x.M; m += 4) small_rows<V, 4>(x, p + m * x.K, q, d + m * x.N);
        for (; m < x.M; m++) small_rows<V, 1>(x, p + m * x.K, q, d + m * x.N);
      }
      p += int64_t(x.M) * x.K;
      q += int64_t(x.K) * x.N;
      d += int64_t(x.M) * x.N;
    }
  }
}
