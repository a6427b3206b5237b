// Products of matrices within rows, and sums of them over rows. Included inside the namespace of one
// instruction set.
//
//   factor   b, as a matrix of rows: each as it lies, or found by its stretches
//   tile     rows × vectors of the result, held in registers
//
// The convolution of an image is such a product: b has one row for each tap of each channel, with an element
// for each place. It is the image itself, moved, and zeros where it is moved beyond the edge; so each vector
// of b is one masked load of the image. Writing b first took two fifths of a ConvLSTM's training.
#pragma once

template <class V> struct Lying {
  using T = typename V::Scalar;
  const T* data;
  int64_t n;  // elements of a row

  Lying row(int64_t i) const { return {data + i * n, n}; }
  // The vector that begins at lane `lane` of stretch number `sixteen` of the row; if last > 0, its first
  // `last` lanes.
  V load(int64_t sixteen, int lane, int last) const {
    const T* const p = data + sixteen * kStretch + lane;
    return last ? V::load(p, last) : V::load(p);
  }
};

template <class V> struct InStretches {
  using T = typename V::Scalar;
  const T* data;
  const Stretch* stretches;
  int64_t n;  // stretches of a row

  InStretches row(int64_t i) const { return {data, stretches + i * n, n}; }
  V load(int64_t sixteen, int lane, int) const {
    const Stretch& s = stretches[sixteen];
    return V::load_lanes(data + s.start + lane, uint32_t(s.lanes) >> lane);
  }
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
  const int64_t sixteen = n / kStretch;
  const int lane = L < kStretch ? int(n % kStretch) : 0;
  V acc[kRows][kVectors];
  OSTINATO_FOR(m, kRows)
    OSTINATO_FOR(v, kVectors) acc[m][v] = V::all(0);
  for (int64_t k = 0; k < x.K; k++) {
    const B row = b.row(k);
    V w[kVectors];
    OSTINATO_FOR(v, kVectors) {
      const int at = lane + v * L;
      w[v] = row.load(sixteen + at / kStretch, at % kStretch, v + 1 == kVectors ? last : 0);
    }
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
  for_row_tiles(x.M, kTileRows, [&](int64_t m, int rows) {
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
      for (int i = 0; i < count; i++) {
        const B row = b.row(n + i);
        into_lanes<V>(x.K, rows.lanes + 16 * i, V::all(0), [&](V acc, int64_t k, int part) {
          const V w = row.load(k / kStretch, int(k % kStretch), part);
          return fma(part ? V::load(a + k, part) : V::load(a + k), w, acc);
        });
      }
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
        const auto factor = factor_of(b.data + r * b.stride).row(g * rows_of_b);
        if (x.across) small_product_across<V>(x, p, factor, d);
        else small_product_along<V>(x, p, factor, d);
      }
    }
  });
}

// ---- Sums over rows

// A tile of a sum: four rows of a by four rows of b, or by two where there are 16 registers, as many sums as
// are folded at once. 6 × 4 and 8 × 3, which load more of a for each of b: 5 and 20 % slower. The rows of a
// are first laid side by side, [rows][⌈K/16⌉][4][16]: 15 % faster.
template <class V> constexpr int kSumColumns = V::kRegisters >= 32 ? 4 : 2;

template <class V, class T = typename V::Scalar>
inline void lay_side_by_side(int64_t n_rows, int64_t K, RowList<const T> a, int64_t column, int n, T* to) {
  constexpr int L = V::kLanes;
  for (int64_t r = 0; r < n_rows; r++)
    for (int64_t k = 0; k < K; k += 16)
      for (int i = 0; i < n; i++, to += 16)
        for (int lane = 0; lane < 16; lane += L) {
          const T* const from = a[r] + column + i * K + k + lane;
          const int64_t left = K - k - lane;
          (left >= L ? V::load(from) : left > 0 ? V::load(from, int(left)) : V::all(0)).store(to + lane);
        }
}

// kM × kN elements of a sum, from row `row_of_b` of the matrices of b on.
template <class V, int kM, int kN, class F, class T = typename V::Scalar>
inline void sum_tile(int64_t n_rows, int64_t K, const T* near_a, RowList<const T> b, F factor_of,
                     int64_t row_of_b, T* sum, int64_t ld) {
  constexpr int L = V::kLanes;
  LaneRows<T> lanes;
  for (int lane = 0; lane < 16; lane += L) {
    V acc[kM][kN];
    OSTINATO_FOR(i, kM)
      OSTINATO_FOR(j, kN) acc[i][j] = V::all(0);
    const int64_t n_whole = (K - lane + 16 - L) / 16;  // vectors of a row from this lane on
    const int part = int(std::min<int64_t>(L, K - lane - n_whole * 16));
    const T* of_a = near_a + lane;
    for (int64_t r = 0; r < n_rows; r++) {
      const auto factor = factor_of(b[r]);
      std::remove_const_t<decltype(factor)> of_b[kN];
      OSTINATO_FOR(j, kN) of_b[j] = factor.row(row_of_b + j);
      const auto add_sixteen = [&](int64_t k, int last) {
        V w[kN];
        OSTINATO_FOR(j, kN) w[j] = of_b[j].load(k, lane, last);
        OSTINATO_FOR(i, kM) {
          const V s = V::load(of_a + i * 16);
          OSTINATO_FOR(j, kN) acc[i][j] = fma(s, w[j], acc[i][j]);
        }
        of_a += kM * 16;
      };
      for (int64_t k = 0; k < n_whole; k++) add_sixteen(k, 0);
      if (part > 0) add_sixteen(n_whole, part);
      else if (n_whole * 16 < K) of_a += kM * 16;
    }
    OSTINATO_FOR(i, kM)
      OSTINATO_FOR(j, kN) acc[i][j].store(lanes.lanes + (i * kN + j) * 16 + lane);
  }
  T folded[kM * kN];
  lanes.template fold<V>(kM * kN, folded, Sum());
  for (int i = 0; i < kM; i++)
    for (int j = 0; j < kN; j++) sum[i * ld + j] += folded[i * kN + j];
}
// kM rows of a sum, of which near_a holds the rows of a.
template <class V, int kM, class F, class T = typename V::Scalar>
inline void sum_rows(int64_t n_rows, const SmallProduct& x, const T* near_a, RowList<const T> b, F factor_of,
                     int64_t row_of_b, Range columns, T* sum, int64_t ld) {
  constexpr int kN = kSumColumns<V>;
  int64_t n = columns.begin;
  for (; n + kN <= columns.end; n += kN)
    sum_tile<V, kM, kN>(n_rows, x.K, near_a, b, factor_of, row_of_b + n, sum + n, ld);
  for (; n < columns.end; n++)
    sum_tile<V, kM, 1>(n_rows, x.K, near_a, b, factor_of, row_of_b + n, sum + n, ld);
}
template <class V>
void product_sum(int64_t n_rows, const SmallProduct& x, const Stretch* stretches,
                 RowList<const typename V::Scalar> a, RowList<const typename V::Scalar> b, Range rows,
                 Range columns, typename V::Scalar* sum, int64_t ld, typename V::Scalar* scratch) {
  with_factors<V>(x, stretches, [&](auto factor_of) {
    for (int64_t r = 0; r < n_rows; r += kSummedRows) {
      const int64_t n = std::min(kSummedRows, n_rows - r);
      for (int64_t m = rows.begin, size = 0; m < rows.end; m += size) {
        const int64_t of_b = m / x.M * x.N;
        const int64_t left = std::min(rows.end, (m / x.M + 1) * x.M) - m;  // in the group of row m
        size = left >= kSumRows ? kSumRows : 1;
        lay_side_by_side<V>(n, x.K, a.from(r), m * x.K, int(size), scratch);
        if (size == 1) sum_rows<V, 1>(n, x, scratch, b.from(r), factor_of, of_b, columns, sum + m * ld, ld);
        else sum_rows<V, kSumRows>(n, x, scratch, b.from(r), factor_of, of_b, columns, sum + m * ld, ld);
      }
    }
  });
}
