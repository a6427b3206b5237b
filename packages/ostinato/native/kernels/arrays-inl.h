// Rows as arrays: spreading and reducing an axis, taking elements, small products. Included inside the
// namespace of one instruction set.
#pragma once

// x to n elements from d on, and perhaps to more of those before `end`, which are written later.
template <class V, class T> inline T* fill(T* d, int64_t n, V x, const T* end) {
  constexpr int L = V::kLanes;
  T* const stop = d + n;
  for (; d < stop; d += L) end - d >= L ? x.store(d) : x.store(d, int(stop - d));
  return stop;
}
// Columns [column, column + n) of a row of which `from` has one element where it has `times`.
template <class V, class T>
inline void repeat_elements(const T* from, int64_t times, int64_t column, int64_t n, T* d) {
  constexpr int L = V::kLanes;
  const T* const end = d + n;
  from += column / times;
  const int64_t first = times - column % times;  // columns that are left of the first element
  if (first < times) d = fill(d, std::min(first, n), V::all(*from++), end);
  if (times % L == 0) {
    for (; end - d >= times; from++) {
      const V x = V::all(*from);
      for (const T* const stop = d + times; d < stop; d += L) x.store(d);
    }
  } else {
    for (; end - d >= times; from++) d = fill(d, times, V::all(*from), end);
  }
  if (d < end) fill(d, end - d, V::all(*from), end);
}

// n rows of `inner` elements that are all alike.
template <class V, class T>
inline T* repeat_rows(const T* from, int64_t inner, int64_t n, T* d, const T* end) {
  constexpr int L = V::kLanes;
  T* const stop = d + n * inner;
  if (inner < L) {
    const V x = V::load(from, int(inner));
    while (d < stop) d = fill(d, inner, x, end);
    return stop;
  }
  int64_t i = 0;
  for (; i + 2 * L <= inner; i += 2 * L) {
    const V x = V::load(from + i), y = V::load(from + i + L);
    for (T* to = d + i; to < stop; to += inner) x.store(to), y.store(to + L);
  }
  for (; i < inner; i += L) {
    const int m = int(std::min<int64_t>(L, inner - i));
    const V x = V::load(from + i, m);
    for (T* to = d + i; to < stop; to += inner) m == L ? x.store(to) : x.store(to, m);
  }
  return stop;
}
template <class V, class T> inline T* copy_elements(const T* from, int64_t n, T* d) {
  constexpr int L = V::kLanes;
  int64_t i = 0;
  for (; i + L <= n; i += L) V::load(from + i).store(d + i);
  if (i < n) V::load(from + i, int(n - i)).store(d + i, int(n - i));
  return d + n;
}
// Columns [column, column + n) of a row of which `from` has one [inner] where it has `times`.
template <class V, class T>
inline void repeat_rows_from(const T* from, Axis axis, int64_t column, int64_t n, T* d) {
  const T* const end = d + n;
  const int64_t inner = axis.inner, block = axis.times * inner;
  from += column / block * inner;
  for (int64_t place = column % block; d < end; from += inner, place = 0) {
    const T* const stop = d + std::min(block - place, int64_t(end - d));
    const int64_t i = place % inner;
    if (i) d = copy_elements<V>(from + i, std::min(inner - i, int64_t(stop - d)), d);
    d = repeat_rows<V>(from, inner, (stop - d) / inner, d, end);
    d = copy_elements<V>(from, stop - d, d);
  }
}

// Columns [column, column + n) of rows of which a has one element where they have `times`, `inner` apart.
template <class V>
void spread(int64_t n_rows, int64_t n, Rows<const typename V::Scalar> a, Rows<typename V::Scalar> out,
            int64_t column, Axis axis) {
  for (int64_t r = 0; r < n_rows; r++) {
    const auto* const from = a.data + r * a.stride;
    auto* const d = out.data + r * out.stride;
    axis.inner == 1 ? repeat_elements<V>(from, axis.times, column, n, d)
                    : repeat_rows_from<V>(from, axis, column, n, d);
  }
}

// Sixteen lanes of each of up to sixteen sums or maxima, to be folded 8, 4, 2, 1: the same tree whatever the
// width of a vector.
template <class T> struct LaneRows {
  T lanes[16 * 16];

  template <class V, class F> void fold(int n, T* out, F f) {
    if (n > kFewRows) {
      std::fill(lanes + 16 * n, lanes + 16 * 16, T(0));
      if (fold_rows<V, F>(lanes, n, out)) return;
    }
    for (int width = 8; width > 1; width /= 2)
      for (int r = 0; r < n; r++) {  // in place: row r is written where rows up to r were read
        T* const from = lanes + r * 2 * width;
        T folded[8];
        for (int j = 0; j < width; j++) folded[j] = f(from[j], from[width + j]);
        for (int j = 0; j < width; j++) lanes[r * width + j] = folded[j];
      }
    for (int r = 0; r < n; r++) out[r] = f(lanes[2 * r], lanes[2 * r + 1]);
  }

 private:
  static constexpr int kFewRows = 4;  // up to here folding one row after the other is faster
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

// Element j of n goes to lane j mod 16. step(lanes, j, m) takes a vector of elements from j on; m of them if
// m is not 0.
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

// Over `times` rows of [times, inner]: each result is one chain, in order, that begins anew or goes on.
template <class V, class F, class T = typename V::Scalar>
inline void fold_in_order(int64_t times, int64_t inner, const T* from, T* to, bool begins) {
  constexpr int L = V::kLanes, kTogether = 4;
  const V neutral = V::all(F::template neutral<T>());
  int64_t i = 0;
  for (; i + kTogether * L <= inner; i += kTogether * L) {
    V acc[kTogether];
    for (int v = 0; v < kTogether; v++) acc[v] = begins ? neutral : V::load(to + i + v * L);
    for (int64_t j = 0; j < times; j++)
      for (int v = 0; v < kTogether; v++) acc[v] = F::of(acc[v], V::load(from + j * inner + i + v * L));
    for (int v = 0; v < kTogether; v++) acc[v].store(to + i + v * L);
  }
  for (; i + L <= inner; i += L) {
    V acc = begins ? neutral : V::load(to + i);
    for (int64_t j = 0; j < times; j++) acc = F::of(acc, V::load(from + j * inner + i));
    acc.store(to + i);
  }
  if (i < inner) {
    const int m = int(inner - i);
    V acc = begins ? neutral : V::load(to + i, m);
    for (int64_t j = 0; j < times; j++) acc = F::of(acc, V::load(from + j * inner + i, m));
    acc.store(to + i, m);
  }
}

// Over the axis of [outer, times, inner]. Where its elements lie together, sixteen lanes are folded;
// otherwise each result is one chain, in order.
template <class V, class F>
void reduce_axis(int64_t n_rows, int64_t N, Axis axis, Rows<const typename V::Scalar> a,
                 Rows<typename V::Scalar> out) {
  using T = typename V::Scalar;
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
        rows.template fold<V>(n, d + o, F());
      }
      continue;
    }
    for (int64_t o = 0; o < n_outer; o++)
      fold_in_order<V, F>(axis.times, axis.inner, p + o * axis.times * axis.inner, d + o * axis.inner, true);
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
void add_to_sums(int64_t n_rows, int64_t n, Rows<const typename V::Scalar> a, Rows<typename V::Scalar> out,
                 int64_t column, Axis axis) {
  using T = typename V::Scalar;
  if (axis.inner == 1) return row_sum<V>(n_rows, n, axis, a, {out.data + column / axis.times, out.stride});
  for (int64_t r = 0; r < n_rows; r++) {
    const T* p = a.data + r * a.stride;
    int64_t o = column / (axis.times * axis.inner), place = column % (axis.times * axis.inner);
    for (int64_t left = n; left > 0;) {  // a piece: whole rows of one [times, inner], or a part of one
      const int64_t j = place / axis.inner, i = place % axis.inner;
      const int64_t whole = i ? 0 : std::min(axis.times - j, left / axis.inner);
      const int64_t wide = whole ? axis.inner : std::min(axis.inner - i, left), m = whole ? whole : 1;
      fold_in_order<V, Sum>(m, wide, p, out.data + r * out.stride + o * axis.inner + i, j == 0);
      p += m * wide;
      left -= m * wide;
      place += m * wide;
      if (place == axis.times * axis.inner) {
        place = 0;
        o++;
      }
    }
  }
}

template <class V>
void take(int64_t n_rows, const ElementRun* runs, int64_t n_runs, Rows<const typename V::Scalar> a,
          Rows<typename V::Scalar> out) {
  using T = typename V::Scalar;
  constexpr int64_t L = V::kLanes;
  for (int64_t r = 0; r < n_rows; r++) {
    const T* const from = a.data + r * a.stride;
    T* d = out.data + r * out.stride;
    for (const ElementRun* run = runs; run < runs + n_runs; run++) {
      const int64_t n = run->count, step = run->step;
      if (run->start < 0) {
        for (int64_t i = 0; i < n; i += L) V::all(0).store(d + i, int(std::min(L, n - i)));
      } else if (step == 1) {  // most runs are a few elements: a call of memcpy would take longer
        copy_elements<V>(from + run->start, n, d);
      } else {
        const T* const p = from + run->start;
        for (int64_t i = 0; i < n; i++) d[i] = p[i * step];
      }
      d += n;
    }
  }
}
