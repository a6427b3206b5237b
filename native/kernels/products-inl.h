// Products of matrices within rows, and sums of them over rows. Included inside the namespace of one
// instruction set.
//
//   factor   b, as a matrix of rows: each as it lies, or found by its stretches
//   tile     rows × vectors of the result, held in registers
//
// The convolution of an image is such a product: b has one row for each tap of each channel, with an element
// for each place. It is the image itself, moved, and zeros where it is moved beyond the edge; so each vector of
// b is one masked load of the image. Writing b first took two fifths of a ConvLSTM's training.
#pragma once

template <class V> struct Lying {
  using T = typename V::Scalar;
  const T* data;
  int64_t n;  // elements of a row

  // A vector of a row's elements, from i on; `last` of them if that is not 0.
  V load(int64_t row, int64_t i, int last) const {
    const T* const p = data + row * n + i;
    return last ? V::load(p, last) : V::load(p);
  }
  Lying from(int64_t row) const { return {data + row * n, n}; }
};

template <class V> struct InStretches {
  using T = typename V::Scalar;
  const T* data;
  const Stretch* stretches;
  int64_t n;  // stretches of a row

  V load(int64_t row, int64_t i, int) const {
    const Stretch s = stretches[row * n + i / kStretch];
    if constexpr (V::kLanes == kStretch) return V::load_lanes(data + s.start, s.lanes);
    const int64_t lane = i % kStretch;
    return V::load_lanes(data + s.start + lane, s.lanes >> lane);
  }
  InStretches from(int64_t row) const { return {data, stretches + row * n, n}; }
};

// f(factor_of), which gives the factor of a row of b.
template <class V, class F, class T = typename V::Scalar>
inline void with_factors(const SmallProduct& x, const Stretch* stretches, F f) {
  const int64_t n = x.columns_of_b();
  if (stretches) {
    const int64_t n_stretches = (n + kStretch - 1) / kStretch;
    f([=](const T* b) { return InStretches<V>{b, stretches, n_stretches}; });
  } else {
    f([=](const T* b) { return Lying<V>{b, n}; });
  }
}

// ---- Each element one chain: k ascending

// kRows rows of a times kVectors vectors of columns of b, from column n on.
template <class V, int kRows, int kVectors, class B, class T = typename V::Scalar>
inline void small_tile(const SmallProduct& x, const T* a, const B& b, int64_t n, T* d, int last) {
  constexpr int L = V::kLanes;
  V acc[kRows][kVectors];
  OSTINATO_FOR(m, kRows)
    OSTINATO_FOR(v, kVectors) acc[m][v] = V::all(0);
  for (int64_t k = 0; k < x.K; k++) {
    V w[kVectors];
    OSTINATO_FOR(v, kVectors) w[v] = b.load(k, n + v * L, v + 1 == kVectors ? last : 0);
    OSTINATO_FOR(m, kRows) {
      const V s = V::all(a[m * x.K + k]);
      OSTINATO_FOR(v, kVectors) acc[m][v] = fma(s, w[v], acc[m][v]);
    }
  }
  OSTINATO_FOR(m, kRows)
    OSTINATO_FOR(v, kVectors) {
      T* const p = d + m * x.N + n + v * L;
      v + 1 == kVectors && last ? acc[m][v].store(p, last) : acc[m][v].store(p);
    }
}
template <class V, int kRows, class B, class T = typename V::Scalar>
inline void small_rows(const SmallProduct& x, const T* a, const B& b, T* d) {
  constexpr int64_t L = V::kLanes;
  int64_t n = 0;
  if constexpr (V::kRegisters >= 32)
    for (; n + 4 * L <= x.N; n += 4 * L) small_tile<V, kRows, 4>(x, a, b, n, d, 0);
  for (; n + 2 * L <= x.N; n += 2 * L) small_tile<V, kRows, 2>(x, a, b, n, d, 0);
  for (; n < x.N; n += L) small_tile<V, kRows, 1>(x, a, b, n, d, x.N - n < L ? int(x.N - n) : 0);
}
template <class V, class B, class T = typename V::Scalar>
inline void small_product_along(const SmallProduct& x, const T* a, const B& b, T* d) {
  for_row_tiles(x.M, kPackedRows, [&](int64_t m, int rows) {
    const T* const of_a = a + m * x.K;
    T* const of_d = d + m * x.N;
    switch (rows) {
      case 1: return small_rows<V, 1>(x, of_a, b, of_d);
      case 2: return small_rows<V, 2>(x, of_a, b, of_d);
      case 3: return small_rows<V, 3>(x, of_a, b, of_d);
      case 4: return small_rows<V, 4>(x, of_a, b, of_d);
      case 5: return small_rows<V, 5>(x, of_a, b, of_d);
      default: return small_rows<V, 6>(x, of_a, b, of_d);
    }
  });
}

// ---- Each element in sixteen lanes

template <class V, class B, class T = typename V::Scalar>
inline void small_product_across(const SmallProduct& x, const T* a, const B& b, T* d) {
  LaneRows<T> rows;
  for (int64_t m = 0; m < x.M; m++, a += x.K, d += x.N)
    for (int64_t n = 0; n < x.N; n += 16) {
      const int count = int(std::min<int64_t>(16, x.N - n));
      for (int i = 0; i < count; i++)
        into_lanes<V>(x.K, rows.lanes + 16 * i, V::all(0), [&](V acc, int64_t k, int part) {
          return fma(part ? V::load(a + k, part) : V::load(a + k), b.load(n + i, k, part), acc);
        });
      rows.template fold<V>(count, d + n, Sum());
    }
}

template <class V>
void small_product(int64_t n_rows, const SmallProduct& x, const Stretch* stretches,
                   Rows<const typename V::Scalar> a, Rows<const typename V::Scalar> b,
                   Rows<typename V::Scalar> out) {
  const int64_t rows_of_b = x.across ? x.N : x.K;
  with_factors<V>(x, stretches, [&](auto factor_of) {
    for (int64_t r = 0; r < n_rows; r++) {
      const auto* p = a.data + r * a.stride;
      auto* d = out.data + r * out.stride;
      for (int64_t g = 0; g < x.groups; g++, p += int64_t(x.M) * x.K, d += int64_t(x.M) * x.N) {
        const auto factor = factor_of(b.data + r * b.stride).from(g * rows_of_b);
        if (x.across) small_product_across<V>(x, p, factor, d);
        else small_product_along<V>(x, p, factor, d);
      }
    }
  });
}

// ---- Sums over rows

// So many rows are added up in the lanes of a tile before these are folded: 16 rows × (9 + 32) channels × 64
// places are 168 KB, in L2, and folding is a twentieth of the work.
constexpr int64_t kRowsOfAFold = 16;

// kM × kN elements of a sum, from (m, n) on.
template <class V, int kM, int kN, class F, class T = typename V::Scalar>
inline void sum_tile(int64_t n_rows, const SmallProduct& x, RowList<const T> a, RowList<const T> b,
                     F factor_of, int64_t m, int64_t n, T* sum, int64_t ld) {
  constexpr int L = V::kLanes;
  LaneRows<T> lanes;
  const int64_t row_of_b = m / x.M * x.N + n;
  for (int lane = 0; lane < 16; lane += L) {
    V acc[kM][kN];
    OSTINATO_FOR(i, kM)
      OSTINATO_FOR(j, kN) acc[i][j] = V::all(0);
    for (int64_t r = 0; r < n_rows; r++) {
      const T* const of_a = a[r] + m * x.K;
      const auto factor = factor_of(b[r]).from(row_of_b);
      for (int64_t k = lane; k < x.K; k += 16) {
        const int part = x.K - k < L ? int(x.K - k) : 0;
        V s[kM];
        OSTINATO_FOR(i, kM) s[i] = part ? V::load(of_a + i * x.K + k, part) : V::load(of_a + i * x.K + k);
        OSTINATO_FOR(j, kN) {
          const V w = factor.load(j, k, part);
          OSTINATO_FOR(i, kM) acc[i][j] = fma(s[i], w, acc[i][j]);
        }
      }
    }
    OSTINATO_FOR(i, kM)
      OSTINATO_FOR(j, kN) acc[i][j].store(lanes.lanes + 16 * (i * kN + j) + lane);
  }
  T folded[16];
  lanes.template fold<V>(kM * kN, folded, Sum());
  for (int i = 0; i < kM; i++)
    for (int j = 0; j < kN; j++) sum[i * ld + j] += folded[i * kN + j];
}
// kM rows of a sum, from row m on.
template <class V, int kM, class F, class T = typename V::Scalar>
inline void sum_rows(int64_t n_rows, const SmallProduct& x, RowList<const T> a, RowList<const T> b,
                     F factor_of, int64_t m, Range columns, T* sum, int64_t ld) {
  int64_t n = columns.begin;
  for (; n + 4 <= columns.end; n += 4) sum_tile<V, kM, 4>(n_rows, x, a, b, factor_of, m, n, sum + n, ld);
  for (; n < columns.end; n++) sum_tile<V, kM, 1>(n_rows, x, a, b, factor_of, m, n, sum + n, ld);
}
template <class V>
void product_sum(int64_t n_rows, const SmallProduct& x, const Stretch* stretches,
                 RowList<const typename V::Scalar> a, RowList<const typename V::Scalar> b, Range rows,
                 Range columns, typename V::Scalar* sum, int64_t ld) {
  constexpr int64_t most = V::kRegisters >= 32 ? 4 : 2;
  with_factors<V>(x, stretches, [&](auto factor_of) {
    for (int64_t r = 0; r < n_rows; r += kRowsOfAFold) {
      const int64_t n = std::min(kRowsOfAFold, n_rows - r);
      for (int64_t m = rows.begin; m < rows.end;) {
        const int64_t end = std::min(rows.end, (m / x.M + 1) * x.M);  // in one group
        for (; m + most <= end; m += most)
          sum_rows<V, most>(n, x, a.from(r), b.from(r), factor_of, m, columns, sum + m * ld, ld);
        for (; m < end; m++)
          sum_rows<V, 1>(n, x, a.from(r), b.from(r), factor_of, m, columns, sum + m * ld, ld);
      }
    }
  });
}
