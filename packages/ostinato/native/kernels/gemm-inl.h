// Matrix products on register tiles, included inside the namespace of one instruction set.
//
//   tile    MR rows × NV vectors of the result, held in registers
//   panel   the packed [K][NV · lanes] slice of the weights that one column of tiles needs
//
// Size of a tile: 6 rows × 4 vectors where there are 32 registers (24 accumulators + 4 weights + 1
// broadcast), on AVX-512 and NEON; 6 × 2 where there are 16 (12 + 2 + 1), on AVX2; up to 8 rows where
// there are fewer columns. 12 × 2 and 8 × 3 on AVX-512: level at K = 128, and worse at row counts that leave
// a remainder.
// Every element of the result is one chain of fused multiply-adds in ascending k, whatever the tile.
#pragma once

constexpr int kMaxTileRows = 8;  // of narrow tiles: as many as there are registers for their addresses
template <class V, int NV> constexpr int tile_rows() {
  constexpr int rows = (V::kRegisters - NV - 1) / NV;
  return rows < kTileRows ? kTileRows : rows < kMaxTileRows ? rows : kMaxTileRows;
}

// Every loop over a tile is unrolled. If GCC unrolls one late, it keeps the tile on the stack and writes it
// there at each k, at half the rate.
#define OSTINATO_FOR(i, n) _Pragma("GCC unroll 12") for (int i = 0; i < n; i++)
// Stands before a loop over k or over rows. Its counter needs the ports of the processor on which the sums
// are computed, and unrolled it counts less: 3 to 6 %.
#define OSTINATO_UNROLL_4 _Pragma("GCC unroll 4")

// The operands of a product, without the range of rows and columns.
template <class T> struct GemmOperands {
  const Factor<T>* factors;
  int n_factors;
  RowList<const T> init;  // no rows: zero
  RowList<T> out;
  Prefetcher* prefetcher;  // or null
  const Factor<T>* outer;  // a factor of one column, which begins the chain; or null
};

// Rows [row, row + MR) and columns [column, column + NV vectors): `tail` lanes of the last, if partial.
template <class V, int MR, int NV, bool kPartial, bool kPrefetch>
inline void gemm_tile(const GemmOperands<typename V::Scalar>& p, int64_t row, int64_t column, int64_t ldw,
                      int tail) {
  using T = typename V::Scalar;
  constexpr int L = V::kLanes;
  auto read = [&](const T* x, int j) {
    return kPartial && j == NV - 1 ? V::load(x + j * L, tail) : V::load(x + j * L);
  };
  V acc[MR][NV];
  OSTINATO_FOR(i, MR)
    OSTINATO_FOR(j, NV) acc[i][j] = p.init.first ? read(p.init[row + i] + column, j) : V::all(0);
  if (p.outer) {
    V b[NV];
    OSTINATO_FOR(j, NV) b[j] = V::load(p.outer->w + column + j * L);
    OSTINATO_FOR(i, MR) {
      const V x = V::all(p.outer->a[row + i][0]);
      OSTINATO_FOR(j, NV) acc[i][j] = fma(x, b[j], acc[i][j]);
    }
  }
  for (int f = 0; f < p.n_factors; f++) {
    const int64_t K = p.factors[f].K;
    const T* w = p.factors[f].w + column * K;
    const T* a[MR];
    OSTINATO_FOR(i, MR) a[i] = p.factors[f].a[row + i];
    // Each of the first tiles of a panel fetches a part of the next panel: weights beyond L2 then flow in at
    // an even rate, instead of all during the next panel's first tile (+20 % where L3 is slow). The other
    // tiles fetch for the prefetcher.
    const int64_t tile = row / tile_rows<V, NV>();
    const bool for_prefetcher = kPrefetch && !(p.prefetcher->far_weights && tile < NV);
    const int64_t step = for_prefetcher ? p.prefetcher->step() / int64_t(sizeof(T)) : L;
    for (int64_t k = 0, end = K; k < K; end = K) {
      const T* ahead = w + (K - k) * ldw + tile % NV * K * L;
      if (for_prefetcher) end = k + p.prefetcher->template take<V>(K - k, ahead);
      OSTINATO_UNROLL_4
      for (; k < end; k++, w += ldw, ahead += kPrefetch ? step : L) {
        prefetch_to_l2(ahead);
        V b[NV];
        OSTINATO_FOR(j, NV) b[j] = V::load(w + j * L);
        OSTINATO_FOR(i, MR) {
          const V x = V::all(a[i][k]);
          OSTINATO_FOR(j, NV) acc[i][j] = fma(x, b[j], acc[i][j]);
        }
      }
    }
  }
  T* out[MR];  // read before the first store, after which GCC would have to read the list again
  OSTINATO_FOR(i, MR) out[i] = p.out[row + i] + column;
  OSTINATO_FOR(i, MR)
    OSTINATO_FOR(j, NV) {
      if (kPartial && j == NV - 1) acc[i][j].store(out[i] + j * L, tail);
      else acc[i][j].store(out[i] + j * L);
    }
}

template <class V, int MR, int NV, bool kPrefetch>
inline void gemm_tile_any(const GemmOperands<typename V::Scalar>& p, int64_t row, int64_t column, int64_t ldw,
                          int tail) {
  if (tail) gemm_tile<V, MR, NV, true, kPrefetch>(p, row, column, ldw, tail);
  else gemm_tile<V, MR, NV, false, kPrefetch>(p, row, column, ldw, tail);
}

// Rows in balanced tiles: 32 rows are 6, 6, 5, 5, 5, 5 and never leave a remainder of 2.
template <class Tile> inline void for_row_tiles(int64_t n_rows, int64_t most, Tile tile) {
  const int64_t n_tiles = (n_rows + most - 1) / most;
  for (int64_t i = 0, r = 0; i < n_tiles; i++) {
    const int64_t end = n_rows * (i + 1) / n_tiles;
    tile(r, int(end - r));
    r = end;
  }
}

template <class V, int NV, bool kPrefetch>
void gemm_panel(const GemmOperands<typename V::Scalar>& p, int64_t n_rows, int64_t column, int64_t ldw,
                int tail) {
  constexpr int most = tile_rows<V, NV>();
  for_row_tiles(n_rows, most, [&](int64_t r, int rows) {
    switch (rows) {
      case 1: return gemm_tile_any<V, 1, NV, kPrefetch>(p, r, column, ldw, tail);
      case 2: return gemm_tile_any<V, 2, NV, kPrefetch>(p, r, column, ldw, tail);
      case 3: return gemm_tile_any<V, 3, NV, kPrefetch>(p, r, column, ldw, tail);
      case 4: return gemm_tile_any<V, 4, NV, kPrefetch>(p, r, column, ldw, tail);
      case 5: return gemm_tile_any<V, 5, NV, kPrefetch>(p, r, column, ldw, tail);
      case 6: return gemm_tile_any<V, 6, NV, kPrefetch>(p, r, column, ldw, tail);
      case 7: return gemm_tile_any<V, (most < 7 ? 1 : 7), NV, kPrefetch>(p, r, column, ldw, tail);
      default: return gemm_tile_any<V, (most < 8 ? 1 : 8), NV, kPrefetch>(p, r, column, ldw, tail);
    }
  });
}

// One row or two against P whole panels at once, and the E vectors of the last one. tail: lanes of the last
// vector, if it is partial. A panel alone has too few chains (NV a row) to hide the latency of an addition.
template <class V, int MR, int NV, int P, int E>
void gemm_panels(const RowProduct<typename V::Scalar>* rows, int64_t column, int tail) {
  using T = typename V::Scalar;
  constexpr int L = V::kLanes, N = P * NV + E;
  V acc[MR][N];
  OSTINATO_FOR(i, MR) {
    const T* const init = rows[i].init ? rows[i].init + column : nullptr;
    OSTINATO_FOR(j, N - 1) acc[i][j] = init ? V::load(init + j * L) : V::all(0);
    const T* const end = init + (N - 1) * L;
    acc[i][N - 1] = !init ? V::all(0) : tail ? V::load(end, tail) : V::load(end);
  }
  for (int f = 0; f < rows[0].n_factors; f++) {
    const int64_t K = rows[0].factors[f].K;
    const T *w = rows[0].factors[f].w + column * K, *last = w + P * K * NV * L;
    const T* a[MR];
    OSTINATO_FOR(i, MR) a[i] = rows[i].factors[f].a;
    for (int64_t k = 0; k < K; k++, w += NV * L, last += E * L) {
      V x[MR];
      OSTINATO_FOR(i, MR) x[i] = V::all(a[i][k]);
      OSTINATO_FOR(j, N) {
        const V b = V::load(j < P * NV ? w + (j / NV) * K * NV * L + (j % NV) * L : last + (j - P * NV) * L);
        OSTINATO_FOR(i, MR) acc[i][j] = fma(x[i], b, acc[i][j]);
      }
    }
  }
  OSTINATO_FOR(i, MR) {
    T* const out = rows[i].out + column;
    OSTINATO_FOR(j, N - 1) acc[i][j].store(out + j * L);
    if (tail) acc[i][N - 1].store(out + (N - 1) * L, tail);
    else acc[i][N - 1].store(out + (N - 1) * L);
  }
}

// P whole panels, and as many vectors of the last one as are left.
template <class V, int NV, int P>
void row_panels(const RowProduct<typename V::Scalar>& x, int64_t column, int vectors, int tail) {
  switch (vectors) {
    case 0:
      if constexpr (P > 0) gemm_panels<V, 1, NV, P, 0>(&x, column, 0);
      return;
    case 1: return gemm_panels<V, 1, NV, P, 1>(&x, column, tail);
    case 2: return gemm_panels<V, 1, NV, P, 2>(&x, column, tail);
    case 3: return gemm_panels<V, 1, NV, P, (NV < 3 ? 2 : 3)>(&x, column, tail);
    default: return gemm_panels<V, 1, NV, P, (NV < 4 ? 2 : 4)>(&x, column, tail);
  }
}
template <class V, int NV> void row_gemm(int64_t N, const RowProduct<typename V::Scalar>& x) {
  constexpr int L = V::kLanes, PW = NV * L;
  int64_t n = 0;
  // Three panels at once; but four are two and two, as the last one alone has too few chains.
  for (; N - n >= 3 * PW && (N - n) / PW != 4; n += 3 * PW) gemm_panels<V, 1, NV, 3, 0>(&x, n, 0);
  if (N - n >= 4 * PW) {
    gemm_panels<V, 1, NV, 2, 0>(&x, n, 0);
    n += 2 * PW;
  }
  const int panels = int((N - n) / PW), left = int((N - n) % PW), tail = left % L;
  const int vectors = (left + L - 1) / L;
  if (panels == 0) row_panels<V, NV, 0>(x, n, vectors, tail);
  else if (panels == 1) row_panels<V, NV, 1>(x, n, vectors, tail);
  else row_panels<V, NV, 2>(x, n, vectors, tail);
}
template <class T>
RowProduct<T> row_product(const Factor<T>* factors, int n_factors, RowList<const T> init, RowList<T> out,
                          int64_t row) {
  RowProduct<T> x;
  x.n_factors = n_factors;
  for (int f = 0; f < n_factors; f++) x.factors[f] = {factors[f].K, factors[f].a[row], factors[f].w};
  x.init = init.first ? init[row] : nullptr;
  x.out = out[row];
  return x;
}

template <class V, int NV, bool kPrefetch>
void gemm_of(int64_t n_rows, int64_t N, const Factor<typename V::Scalar>* factors, int n_factors,
             RowList<const typename V::Scalar> init, RowList<typename V::Scalar> out,
             Prefetcher* prefetcher) {
  constexpr int L = V::kLanes, PW = NV * L;
  const bool outer = n_rows > 2 && n_factors > 1 && factors[0].K == 1;
  const GemmOperands<typename V::Scalar> p{factors + outer, n_factors - outer,        init, out,
                                           prefetcher,      outer ? factors : nullptr};
  int64_t n = 0;
  if (n_rows == 1) return row_gemm<V, NV>(N, row_product(factors, n_factors, init, out, 0));
  if (n_rows == 2) {
    const RowProduct<typename V::Scalar> rows[] = {row_product(factors, n_factors, init, out, 0),
                                                   row_product(factors, n_factors, init, out, 1)};
    for (; N - n >= 2 * PW; n += 2 * PW) gemm_panels<V, 2, NV, 2, 0>(rows, n, 0);
  }
  for (; n < N; n += PW) {
    const int width = int(N - n < PW ? N - n : PW), vectors = (width + L - 1) / L, tail = width % L;
    if (NV >= 4 && vectors == 4) gemm_panel<V, NV, kPrefetch>(p, n_rows, n, PW, tail);
    else if (NV >= 3 && vectors == 3) gemm_panel<V, (NV >= 3 ? 3 : NV), kPrefetch>(p, n_rows, n, 3 * L, tail);
    else if (vectors == 2) gemm_panel<V, 2, kPrefetch>(p, n_rows, n, 2 * L, tail);
    else gemm_panel<V, 1, kPrefetch>(p, n_rows, n, L, tail);
  }
}
// Two instances, so that each tile is called from one place and is inlined there: 10 % of short products.
template <class V, int NV>
void gemm(int64_t n_rows, int64_t N, const Factor<typename V::Scalar>* factors, int n_factors,
          RowList<const typename V::Scalar> init, RowList<typename V::Scalar> out, Prefetcher* prefetcher) {
  if (prefetcher) gemm_of<V, NV, true>(n_rows, N, factors, n_factors, init, out, prefetcher);
  else gemm_of<V, NV, false>(n_rows, N, factors, n_factors, init, out, nullptr);
}

// Sums NV vectors of columns at once: one alone would wait for each addition.
template <class V, int NV, bool kSum, bool kScaled>
inline void sums_of_vectors(int64_t n_rows, RowList<const typename V::Scalar> a, int64_t column,
                            typename V::Scalar* sum, RowList<const typename V::Scalar> scale,
                            typename V::Scalar* scaled, int tail) {
  constexpr int L = V::kLanes;
  auto read = [&](const typename V::Scalar* x, int j) {
    return tail ? V::load(x, tail) : V::load(x + j * L);
  };
  V s[NV], t[NV];
  OSTINATO_FOR(j, NV) {
    s[j] = kSum ? read(sum + column, j) : V::all(0);
    t[j] = kScaled ? read(scaled + column, j) : V::all(0);
  }
  for (int64_t r = 0; r < n_rows; r++) {
    const typename V::Scalar* x = a[r] + column;
    const V factor = kScaled ? V::all(scale[r][0]) : V::all(0);
    OSTINATO_FOR(j, NV) {
      const V v = read(x, j);
      if (kSum) s[j] = add(s[j], v);
      if (kScaled) t[j] = fma(factor, v, t[j]);
    }
  }
  OSTINATO_FOR(j, NV) {
    if (kSum) tail ? s[j].store(sum + column, tail) : s[j].store(sum + column + j * L);
    if (kScaled) tail ? t[j].store(scaled + column, tail) : t[j].store(scaled + column + j * L);
  }
}
template <class V, bool kSum, bool kScaled>
void all_sums(int64_t n_rows, int64_t N, RowList<const typename V::Scalar> a, typename V::Scalar* sum,
              RowList<const typename V::Scalar> scale, typename V::Scalar* scaled) {
  constexpr int L = V::kLanes, NV = kSum && kScaled && V::kRegisters < 32 ? 4 : 8;
  int64_t n = 0;
  for (; N - n >= NV * L; n += NV * L)
    sums_of_vectors<V, NV, kSum, kScaled>(n_rows, a, n, sum, scale, scaled, 0);
  for (; N - n >= 2 * L; n += 2 * L)
    sums_of_vectors<V, 2, kSum, kScaled>(n_rows, a, n, sum, scale, scaled, 0);
  for (; N - n >= L; n += L) sums_of_vectors<V, 1, kSum, kScaled>(n_rows, a, n, sum, scale, scaled, 0);
  if (n < N) sums_of_vectors<V, 1, kSum, kScaled>(n_rows, a, n, sum, scale, scaled, int(N - n));
}
template <class V>
void column_sums(int64_t n_rows, int64_t N, RowList<const typename V::Scalar> a, typename V::Scalar* sum,
                 RowList<const typename V::Scalar> scale, typename V::Scalar* scaled) {
  if (sum && scaled) all_sums<V, true, true>(n_rows, N, a, sum, scale, scaled);
  else if (sum) all_sums<V, true, false>(n_rows, N, a, sum, scale, scaled);
  else all_sums<V, false, true>(n_rows, N, a, sum, scale, scaled);
}

template <class T> struct OuterRows {
  int64_t n;
  RowList<const T> a;
  int64_t a_tile;  // if a was packed: elements from one tile's columns to the next one's; else 0
  RowList<const T> b;
};

// One tile of out += aᵀ b: MR consecutive columns of a against NV vectors of b, contracted over rows.
template <class V, int MR, int NV, bool kPartial>
void outer_tile(const OuterRows<typename V::Scalar>& rows, int64_t ca, int64_t cb, typename V::Scalar* out,
                int64_t ld, int tail) {
  using T = typename V::Scalar;
  constexpr int L = V::kLanes;
  auto read = [&](const T* p, int j) {
    return kPartial && j == NV - 1 ? V::load(p + j * L, tail) : V::load(p + j * L);
  };
  V acc[MR][NV];
  OSTINATO_FOR(i, MR)
    OSTINATO_FOR(j, NV) acc[i][j] = read(out + i * ld, j);
  if (rows.a_tile) {  // the result is too large to stay in L1: fetch its next tile
    OSTINATO_FOR(i, MR)
      OSTINATO_FOR(j, NV) prefetch_for_writing(out + (MR + i) * ld + j * L);
  }
  OSTINATO_UNROLL_4
  for (int64_t r = 0; r < rows.n; r++) {
    const T *x = rows.a[r] + ca, *y = rows.b[r] + cb;
    V v[NV];
    OSTINATO_FOR(j, NV) v[j] = read(y, j);
    OSTINATO_FOR(i, MR) {
      const V s = V::all(x[i]);
      OSTINATO_FOR(j, NV) acc[i][j] = fma(s, v[j], acc[i][j]);
    }
  }
  OSTINATO_FOR(i, MR)
    OSTINATO_FOR(j, NV) {
      T* p = out + i * ld + j * L;
      if (kPartial && j == NV - 1) acc[i][j].store(p, tail);
      else acc[i][j].store(p);
    }
}

template <class V, int NV>
void outer_panel(const OuterRows<typename V::Scalar>& rows, int64_t K, int64_t column,
                 typename V::Scalar* out, int64_t ld, int tail) {
  const bool partial = tail != 0;
  int64_t tile = 0;
  constexpr int most = tile_rows<V, NV>();
  for_row_tiles(K, rows.a_tile ? kTileRows : most, [&](int64_t k, int columns) {
    const int64_t first = rows.a_tile ? tile++ * rows.a_tile : k;
    auto* o = out + k * ld;
#define OSTINATO_TILE(R)                                                                        \
  case R:                                                                                       \
    if (partial) outer_tile<V, (most < R ? 1 : R), NV, true>(rows, first, column, o, ld, tail); \
    else outer_tile<V, (most < R ? 1 : R), NV, false>(rows, first, column, o, ld, tail);        \
    break;
    switch (columns) {
      OSTINATO_TILE(1)
      OSTINATO_TILE(2)
      OSTINATO_TILE(3)
      OSTINATO_TILE(4)
      OSTINATO_TILE(5)
      OSTINATO_TILE(6)
      OSTINATO_TILE(7)
      OSTINATO_TILE(8)
    }
#undef OSTINATO_TILE
  });
}

// MR columns of a, row after row, as an outer_tile reads them.
template <int MR, class T>
void pack_columns(int64_t n_rows, RowList<const T> a, int64_t column, T* out) {
  for (int64_t r = 0; r < n_rows; r++, out += kTileRows) std::memcpy(out, a[r] + column, MR * sizeof(T));
}

// Where rows are read often, the columns that a tile reads are first laid side by side: rows that lie far
// apart map to few sets of L1 and drive each other out (+15 % at 256 × 2048, none at 128 × 128).
template <class V, int NV>
void outer(int64_t n_rows, int64_t K, int64_t N, RowList<const typename V::Scalar> a,
           RowList<const typename V::Scalar> b, typename V::Scalar* out, int64_t ld,
           typename V::Scalar* scratch) {
  using T = typename V::Scalar;
  constexpr int L = V::kLanes, PW = NV * L;
  if (K == 1) return all_sums<V, false, true>(n_rows, N, b, nullptr, a, out);
  const bool pack = K >= kPackedColumns && N >= 4 * PW;
  const T *near_a[kOuterRows], *near_b[kOuterRows];
  OuterRows<T> rows{n_rows, a, 0, b};
  if (pack) {
    T* to = scratch + kOuterRows * PW;
    for (int64_t r = 0; r < n_rows; r++) {
      near_a[r] = to + r * kTileRows;
      near_b[r] = scratch + r * PW;
    }
    for_row_tiles(K, kTileRows, [&](int64_t k, int columns) {
      if (columns == kTileRows) pack_columns<kTileRows>(n_rows, a, k, to);
      else pack_columns<kTileRows - 1>(n_rows, a, k, to);
      to += n_rows * kTileRows;
    });
    rows = {n_rows, {near_a}, n_rows * kTileRows, {near_b}};
  }
  for (int64_t n = 0; n < N; n += PW) {
    const int width = int(N - n < PW ? N - n : PW), vectors = (width + L - 1) / L, tail = width % L;
    if (pack)
      for (int64_t r = 0; r < n_rows; r++) {
        T* to = scratch + r * PW;
        for (int j = 0; j < width / L; j++) V::load(b[r] + n + j * L).store(to + j * L);
        if (tail) V::load(b[r] + n + width - tail, tail).store(to + width - tail, tail);
      }
    const int64_t column = pack ? 0 : n;
    if (NV >= 4 && vectors == 4) outer_panel<V, NV>(rows, K, column, out + n, ld, tail);
    else if (NV >= 3 && vectors == 3) outer_panel<V, (NV >= 3 ? 3 : NV)>(rows, K, column, out + n, ld, tail);
    else if (vectors == 2) outer_panel<V, 2>(rows, K, column, out + n, ld, tail);
    else outer_panel<V, 1>(rows, K, column, out + n, ld, tail);
  }
}
