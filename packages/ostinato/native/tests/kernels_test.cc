// Every kernel against a slow, obvious version, on every instruction set of this machine. Elementwise
// kernels have a test of their own.
#include "kernels/kernels.h"

#include <algorithm>
#include <limits>

#include "kernels/dispatch.h"
#include "matrices.h"
#include "program/stretches.h"
#include "tests.h"

namespace ostinato {
namespace {

int64_t whole(int64_t N, int64_t lanes) { return (N + lanes - 1) / lanes * lanes; }

// Packs w[k][n] = src[k · stride + n] into panels; the last is filled with zeros to whole vectors.
template <class T>
void pack(int64_t K, int64_t N, const T* src, int64_t stride, const Kernels<T>& kernels, T* packed) {
  for (int64_t p = 0; p < N; p += kernels.panel) {
    const int64_t width = std::min(N - p, kernels.panel), to = whole(width, kernels.lanes);
    for (int64_t k = 0; k < K; k++, packed += to) {
      for (int64_t n = 0; n < width; n++) packed[n] = src[k * stride + p + n];
      for (int64_t n = width; n < to; n++) packed[n] = 0;
    }
  }
}

// Around the tiles (16, 32 and 64 columns; two and three panels of one row) and around the vectors.
const int64_t kColumns[] = {1,  2,  3,  4,  5,  7,  8,  9,  15,  16,  17,  31,  33, 47,
                            48, 49, 63, 64, 65, 80, 95, 96, 112, 127, 129, 160, 175, 195, 257};
const int64_t kDepths[] = {1, 2, 3, 7, 16, 17};
constexpr int64_t kMaxRows = 17;  // a full tile of 8, two, and one row more

// A product is one chain of fused multiply-adds, to the bit.
float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
double multiply_add(double a, double b, double c) { return std::fma(a, b, c); }

// ---- products

enum class Init { kNone, kOther, kInPlace };

// The product as one factor, or cut into two at `cut` of K.
template <class T>
void check_gemm(const Kernels<T>& kernels, int64_t rows, int64_t K, int64_t N, Init init, int64_t cut,
                Random& random) {
  Matrix<T> a(rows, K, random), w(K, N, random), c(rows, N, random), out(rows, N, random);
  if (init == Init::kInPlace) c = out;
  std::vector<T> packed(size_t(whole(N, kernels.lanes) * K));
  T* const second = packed.data() + whole(N, kernels.lanes) * cut;
  pack(cut, N, w.data(), w.stride(), kernels, packed.data());
  pack(K - cut, N, w.data() + cut * w.stride(), w.stride(), kernels, second);
  RowList<T> rest = a.list(), added;
  rest.offset += cut;
  const Factor<T> factors[2] = {{cut, a.list(), packed.data()}, {K - cut, rest, second}};
  if (init != Init::kNone) added = init == Init::kInPlace ? out.list() : c.list();
  Prefetcher prefetcher;
  prefetcher.add(w.data(), 64 * random.below(20));
  kernels.gemm(rows, N, factors + (cut == 0), cut == 0 ? 1 : 2, added, out.list(),
               random.chance(50) ? &prefetcher : nullptr);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t n = 0; n < N; n++) {
      T wanted = init == Init::kNone ? T(0) : c.at(r, n);
      for (int64_t k = 0; k < K; k++) wanted = multiply_add(a.at(r, k), w.at(k, n), wanted);
      CHECK(same(out.at(r, n), wanted), "gemm, " + shape(kernels.name, rows, K, N));
    }
  CHECK(out.gaps_untouched(), "gemm, " + shape(kernels.name, rows, K, N));
}

template <class T> void check_outer(const Kernels<T>& kernels, int64_t rows, int64_t K, int64_t N,
                                    Random& random) {
  Matrix<T> a(rows, K, random), b(rows, N, random), out(K, N, random);
  const Matrix<T> before = out;
  std::vector<T> scratch(size_t(outer_scratch(K, kernels.panel)));
  kernels.outer(rows, K, N, a.list(), b.list(), out.data(), out.stride(), scratch.data());
  for (int64_t k = 0; k < K; k++)
    for (int64_t n = 0; n < N; n++) {
      T wanted = before.at(k, n);
      for (int64_t r = 0; r < rows; r++) wanted = multiply_add(a.at(r, k), b.at(r, n), wanted);
      CHECK(same(out.at(k, n), wanted), "outer, " + shape(kernels.name, rows, K, N));
    }
  CHECK(out.gaps_untouched(), "outer, " + shape(kernels.name, rows, K, N));
}

template <class T> void check_products(const Kernels<T>& kernels) {
  Random random(1);
  for (int64_t N : kColumns)
    for (int64_t K : kDepths)
      for (int64_t rows = 1; rows <= kMaxRows; rows++)
        for (Init init : {Init::kNone, Init::kOther, Init::kInPlace})
          for (int64_t cut : {int64_t(0), K / 3}) check_gemm(kernels, rows, K, N, init, cut, random);
  for (int64_t N : kColumns)
    for (int64_t K = 1; K <= kMaxRows; K++)
      for (int64_t rows : {1, 2, 5, 31}) check_outer(kernels, rows, K, N, random);
  for (int64_t N : {64, 65, 256, 257, 300})  // packed, where that is four panels or more
    for (int64_t K : {kPackedColumns - 1, kPackedColumns, kPackedColumns + 1, int64_t(71)})
      for (int64_t rows : {int64_t(1), int64_t(31), kOuterRows}) check_outer(kernels, rows, K, N, random);
}

// ---- sums and the largest of a row

template <class T> void check_column_sums(const Kernels<T>& kernels, int64_t rows, int64_t N,
                                          Random& random) {
  Matrix<T> a(rows, N, random), scale(rows, 1, random), sum(1, N, random), scaled(1, N, random);
  Matrix<T> only_sum = sum, only_scaled = scaled;
  const Matrix<T> sum_before = sum, scaled_before = scaled;
  kernels.column_sums(rows, N, a.list(), sum.data(), scale.list(), scaled.data());
  kernels.column_sums(rows, N, a.list(), only_sum.data(), {}, nullptr);
  kernels.column_sums(rows, N, a.list(), nullptr, scale.list(), only_scaled.data());
  for (int64_t n = 0; n < N; n++) {
    T wanted = sum_before.at(0, n), wanted_scaled = scaled_before.at(0, n);
    for (int64_t r = 0; r < rows; r++) {
      wanted += a.at(r, n);
      wanted_scaled = multiply_add(scale.at(r, 0), a.at(r, n), wanted_scaled);
    }
    const std::string what = "column_sums, " + shape(kernels.name, rows, 0, N);
    CHECK(same(sum.at(0, n), wanted) && same(only_sum.at(0, n), wanted), what);
    CHECK(same(scaled.at(0, n), wanted_scaled) && same(only_scaled.at(0, n), scaled.at(0, n)), what);
  }
  CHECK(sum.gaps_untouched() && scaled.gaps_untouched(), shape(kernels.name, rows, 0, N));
}

template <class T, class F> T sixteen_lanes(const Matrix<T>& a, int64_t row, int64_t N, T neutral, F f) {
  T lanes[16];
  for (T& lane : lanes) lane = neutral;
  for (int64_t c = 0; c < N; c++) lanes[c % 16] = f(lanes[c % 16], a.at(row, c));
  for (int width = 8; width >= 1; width /= 2)
    for (int i = 0; i < width; i++) lanes[i] = f(lanes[i], lanes[i + width]);
  return lanes[0];
}
template <class T> T larger(T a, T b) { return a != a ? a : b != b ? b : a > b ? a : b; }

template <class T> void check_reductions(const Kernels<T>& kernels, int64_t rows, int64_t N, Random& random) {
  Matrix<T> a(rows, N, random), sums(rows, 1, random), most(rows, 1, random);
  if (random.chance(30))
    a.at(rows - 1, N - 1) = random.pick(std::initializer_list<T>{NAN, INFINITY, -INFINITY});
  kernels.row_sum(rows, N, {N, 1}, {a.data(), a.stride()}, {sums.data(), sums.stride()});
  kernels.row_max(rows, N, {N, 1}, {a.data(), a.stride()}, {most.data(), most.stride()});
  for (int64_t r = 0; r < rows; r++) {
    const T sum = sixteen_lanes(a, r, N, T(0), [](T x, T y) { return x + y; });
    CHECK(same(sums.at(r, 0), sum), "row_sum, " + shape(kernels.name, rows, 0, N));
    CHECK(same(most.at(r, 0), sixteen_lanes(a, r, N, T(-INFINITY), larger<T>)),
          "row_max, " + shape(kernels.name, rows, 0, N));
  }
  CHECK(sums.gaps_untouched() && most.gaps_untouched(), shape(kernels.name, rows, 0, N));
}

template <class T> void check_sums(const Kernels<T>& kernels) {
  Random random(2);
  for (int64_t N : kColumns)
    for (int64_t rows = 1; rows <= 5; rows++) {
      check_column_sums(kernels, rows, N, random);
      check_reductions(kernels, rows, N, random);
    }
}

// ---- Rows as arrays: to the bit what their definitions say, written out

template <class T> void check_axis(const Kernels<T>& kernels, int64_t outer, int64_t times, int64_t inner,
                                   Random& random) {
  const int64_t rows = 1 + random.below(3), N = outer * times * inner, n = outer * inner;
  Matrix<T> a(rows, N, random), sums(rows, n, random), most(rows, n, random), narrow(rows, n, random);
  if (random.chance(20)) a.at(0, random.below(N)) = NAN;
  const Axis axis{times, inner};
  kernels.row_sum(rows, N, axis, {a.data(), a.stride()}, {sums.data(), sums.stride()});
  kernels.row_max(rows, N, axis, {a.data(), a.stride()}, {most.data(), most.stride()});
  const std::string what =
      shape(kernels.name, rows, 0, N) + ", axis " + std::to_string(times) + ", " + std::to_string(inner);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < n; i++) {
      Matrix<T> column(1, times, random);
      T sum = 0, largest = -INFINITY;
      for (int64_t j = 0; j < times; j++) {
        column.at(0, j) = a.at(r, (i / inner * times + j) * inner + i % inner);
        sum += column.at(0, j);
        largest = larger(largest, column.at(0, j));
      }
      if (inner == 1) sum = sixteen_lanes(column, 0, times, T(0), [](T x, T y) { return x + y; });
      CHECK(same(sums.at(r, i), sum), "row_sum, " + what);
      CHECK(same(most.at(r, i), largest), "row_max, " + what);
    }
  // The same sums strip by strip; sums of neighbours are whole.
  Matrix<T> by_strips(rows, n, random);
  for (int64_t begin = 0, end = 0; begin < N; begin = end) {
    const int64_t unit = inner == 1 ? times : 1;
    end = begin + unit * (1 + random.below((N - begin) / unit));
    kernels.add_to_sums(rows, end - begin, {a.data() + begin, a.stride()},
                        {by_strips.data(), by_strips.stride()}, begin, axis);
  }
  CHECK(by_strips == sums && by_strips.gaps_untouched(), "add_to_sums, " + what);
  // Some columns of what is spread: a strip.
  const int64_t column = random.below(N), width = 1 + random.below(N - column);
  Matrix<T> strip(rows, width, random);
  kernels.spread(rows, width, {narrow.data(), narrow.stride()}, {strip.data(), strip.stride()}, column, axis);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < width; c++) {
      const int64_t at = column + c;
      CHECK(same(strip.at(r, c), narrow.at(r, at / (times * inner) * inner + at % inner)), "spread, " + what);
    }
  CHECK(sums.gaps_untouched() && most.gaps_untouched() && strip.gaps_untouched(), what);
}

template <class T> void check_take(const Kernels<T>& kernels, int64_t width, Random& random) {
  const int64_t rows = 1 + random.below(3);
  std::vector<ElementRun> runs;
  std::vector<int64_t> places;
  while (places.size() < 40) {
    ElementRun run{int32_t(random.below(width + 1)) - 1, 1, int32_t(random.below(5)) - 2};
    if (run.start < 0) run.step = 0;
    while (run.count < 9 && run.start + run.count * run.step < width &&
           run.start + run.count * run.step >= (run.start < 0 ? -1 : 0))
      run.count++;
    for (int64_t i = 0; i < run.count; i++) places.push_back(run.start + i * run.step);
    runs.push_back(run);
  }
  const int64_t n = int64_t(places.size());
  Matrix<T> a(rows, width, random), out(rows, n, random);
  kernels.take(rows, runs.data(), int64_t(runs.size()), {a.data(), a.stride()}, {out.data(), out.stride()});
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < n; i++)
      CHECK(same(out.at(r, i), places[size_t(i)] < 0 ? T(0) : a.at(r, places[size_t(i)])), "take");
  CHECK(out.gaps_untouched(), "take");
}

template <class T>
void check_small_product(const Kernels<T>& kernels, const SmallProduct& x, Random& random) {
  const int64_t rows = 1 + random.below(3), G = x.groups, M = x.M, K = x.K, N = x.N;
  Matrix<T> a(rows, G * M * K, random), b(rows, G * K * N, random), out(rows, G * M * N, random);
  kernels.small_product(rows, x, nullptr, {a.data(), a.stride()}, {b.data(), b.stride()},
                        {out.data(), out.stride()});
  const std::string what = std::string(kernels.name) + ", small product " + std::to_string(M) + ", " +
                           std::to_string(K) + ", " + std::to_string(N) + (x.across ? " across" : "");
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < G * M * N; i++) {
      const int64_t g = i / (M * N), m = i / N % M, n = i % N;
      const auto term = [&](int64_t k, T sum) {
        const int64_t of_b = x.across ? (g * N + n) * K + k : (g * K + k) * N + n;
        return multiply_add(a.at(r, (g * M + m) * K + k), b.at(r, of_b), sum);
      };
      T sum = 0, lanes[16] = {};
      for (int64_t k = 0; k < K; k++) {
        sum = term(k, sum);
        lanes[k % 16] = term(k, lanes[k % 16]);
      }
      for (int width = 8; width >= 1; width /= 2)
        for (int j = 0; j < width; j++) lanes[j] += lanes[j + width];
      CHECK(same(out.at(r, i), x.across ? lanes[0] : sum), what);
    }
  CHECK(out.gaps_untouched(), what);
}

// Rows of n elements of a row of `width`, each sixteen side by side where they are there at all.
IndexTable random_stretches(int64_t n_rows, int64_t n, int64_t width, Random& random) {
  IndexTable table{int32_t(width), {}};
  for (int64_t row = 0; row < n_rows; row++)
    for (int64_t block = 0; block < n; block += 16) {
      const int64_t start = random.below(width + 15) - 15;
      for (int64_t i = 0; i < std::min<int64_t>(16, n - block); i++) {
        const int64_t place = start + i;
        const bool there = place >= 0 && place < width && random.chance(80);
        table.runs.push_back({there ? int32_t(place) : -1, 1, there ? 1 : 0});
      }
    }
  return table;
}

// A product that finds b by its places has the bits of one that reads b where it lies.
template <class T> void check_product_by_places(const Kernels<T>& kernels, SmallProduct x, Random& random) {
  const int64_t rows = 1 + random.below(3), G = x.groups, width = 1 + random.below(150);
  const int64_t n = x.columns_of_b(), n_rows_of_b = G * (x.across ? x.N : x.K);
  const IndexTable table = random_stretches(n_rows_of_b, n, width, random);
  const std::vector<Stretch> stretches = find_stretches(table, n);
  CHECK(int64_t(stretches.size()) == n_rows_of_b * ((n + 15) / 16), "stretches");
  Matrix<T> a(rows, G * x.M * x.K, random), image(rows, width, random), b(rows, G * x.K * x.N, random);
  Matrix<T> out(rows, G * x.M * x.N, random), wanted(rows, G * x.M * x.N, random);
  kernels.take(rows, table.runs.data(), int64_t(table.runs.size()), {image.data(), image.stride()},
               {b.data(), b.stride()});
  kernels.small_product(rows, x, nullptr, {a.data(), a.stride()}, {b.data(), b.stride()},
                        {wanted.data(), wanted.stride()});
  kernels.small_product(rows, x, stretches.data(), {a.data(), a.stride()}, {image.data(), image.stride()},
                        {out.data(), out.stride()});
  CHECK(out == wanted && out.gaps_untouched(), std::string(kernels.name) + ", product by places");
}

// A sum of products over n_rows rows, sixteen at a time, in sixteen lanes; some rows and columns of it.
template <class T>
void check_product_sum(const Kernels<T>& kernels, SmallProduct x, int64_t n_rows, bool by_places,
                       Random& random) {
  const int64_t M = x.groups * x.M, n_b = x.groups * x.N * x.K;
  const int64_t width = by_places ? 1 + random.below(150) : n_b;
  const IndexTable table = random_stretches(x.groups * x.N, x.K, width, random);
  const std::vector<Stretch> stretches = find_stretches(table, x.K);
  Matrix<T> a(n_rows, M * x.K, random), image(n_rows, width, random), b(n_rows, n_b, random);
  if (by_places)
    kernels.take(n_rows, table.runs.data(), int64_t(table.runs.size()), {image.data(), image.stride()},
                 {b.data(), b.stride()});
  else b = image;
  std::vector<T*> rows_of_a, rows_of_b;
  for (int64_t r = 0; r < n_rows; r++) {
    rows_of_a.push_back(&a.at(r, 0));
    rows_of_b.push_back(&image.at(r, 0));
  }
  Matrix<T> sum(M, x.N, random), wanted = sum;
  std::vector<T> scratch(size_t(product_sum_scratch(x.K)));
  const int64_t m0 = random.below(M), n0 = random.below(x.N);
  const Range rows{m0, m0 + 1 + random.below(M - m0)}, columns{n0, n0 + 1 + random.below(x.N - n0)};
  for (int64_t first = 0; first < n_rows; first += 16)
    for (int64_t m = rows.begin; m < rows.end; m++)
      for (int64_t n = columns.begin; n < columns.end; n++) {
        T lanes[16] = {};
        for (int64_t r = first; r < std::min(first + 16, n_rows); r++)
          for (int64_t k = 0; k < x.K; k++) {
            const int64_t of_b = (m / x.M * x.N + n) * x.K + k;
            lanes[k % 16] = multiply_add(a.at(r, m * x.K + k), b.at(r, of_b), lanes[k % 16]);
          }
        for (int half = 8; half >= 1; half /= 2)
          for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
        wanted.at(m, n) += lanes[0];
      }
  kernels.product_sum(n_rows, x, by_places ? stretches.data() : nullptr, {rows_of_a.data()},
                      {rows_of_b.data()}, rows, columns, sum.data(), sum.stride(), scratch.data());
  CHECK(sum == wanted && sum.gaps_untouched(), std::string(kernels.name) + ", product_sum");
}

template <class T> void check_arrays(const Kernels<T>& kernels) {
  Random random(3);
  for (int64_t outer : {1, 2, 15, 16, 17, 33})
    for (int64_t times : {1, 2, 3, 16, 17, 35})
      for (int64_t inner : {1, 2, 3, 15, 16, 17, 65}) check_axis(kernels, outer, times, inner, random);
  for (int64_t width : {1, 2, 3, 16, 17, 130}) check_take(kernels, width, random);
  for (int32_t M : {1, 2, 4, 5})
    for (int32_t K : {1, 2, 15, 16, 17, 33})
      for (int32_t N : {1, 2, 7, 16, 17, 31, 64, 81})
        for (bool across : {false, true})
          check_small_product(kernels, {int32_t(1 + random.below(3)), M, K, N, across}, random);
  for (int32_t M : {1, 2, 4, 6, 7, 9, 13})
    for (int32_t K : {1, 15, 16, 17, 33})
      for (int32_t N : {1, 4, 16, 31, 64, 81}) {
        const int32_t groups = int32_t(1 + random.below(3));
        for (bool across : {false, true}) check_product_by_places(kernels, {groups, M, K, N, across}, random);
        for (int64_t rows : {1, 16, 35})
          check_product_sum(kernels, {groups, M, K, N, true}, rows, random.chance(50), random);
      }
}

// Taken in parts of any size, no line is left out, but for the last ones of a range, which are fetched at
// once; and no line beyond the end is fetched.
void check_prefetcher() {
  Random random(7);
  for (int i = 0; i < 200; i++) {
    Prefetcher prefetcher;
    std::vector<char> memory(64 * 160);
    std::vector<bool> fetched(memory.size() / 64);
    const int64_t begin = 64 * random.below(40), middle = 64 * (40 + random.below(40)),
                  end = 64 * (80 + random.below(80));
    prefetcher.add(memory.data() + begin, middle - begin),
        prefetcher.add(memory.data() + middle, end - middle);
    prefetcher.begin(random.below(400));
    while (true) {
      const int64_t wanted = 4 + random.below(160);
      const float* at = nullptr;
      const int64_t n = prefetcher.take<Random>(wanted, at);
      CHECK(0 < n && n <= wanted && (at || n == wanted), std::to_string(n));
      if (!at) break;
      for (int64_t k = 0; k < n; k++)
        fetched[size_t((reinterpret_cast<const char*>(at) - memory.data() + k * prefetcher.step()) / 64)] =
            true;
    }
    for (int64_t line = 0; line < int64_t(fetched.size()); line++) {
      const bool inside = 64 * line >= begin && 64 * line < end, last = 64 * line >= end - 64 * 32;
      CHECK(fetched[size_t(line)] ? inside : !inside || last, std::to_string(line));
    }
    const float* left = nullptr;
    CHECK(prefetcher.take<Random>(8, left) == 8 && !left, "nothing is left");
  }
  Prefetcher full;
  char line;
  for (int i = 0; i < 1000; i++) full.add(&line, 0), full.add(&full, 1);  // as many as there is room for
  full.begin(1);
  full.clear();
  const float* none = nullptr;
  CHECK(full.take<Random>(8, none) == 8 && !none, "");
}

// ---- the checks themselves

void check_that_the_checks_can_fail() {
  Random random(5);
  Matrix<float> a(3, 5, random), b = a;
  CHECK(a == b && a.gaps_untouched(), "");
  b.at(2, 4) = std::nextafter(b.at(2, 4), 2.f);
  CHECK(!(a == b), "the last bit of the last element");
  b.at(1, 6) = 0;
  CHECK(!b.gaps_untouched(), "a write between the rows");
  CHECK(!same(0.f, -0.f) && same(NAN, -NAN), "");

  int different = 0;  // the order of a sum is seen
  for (int i = 0; i < 100; i++) {
    float x[8], up = 0, down = 0;
    for (float& v : x) v = float(random.number());
    for (int k = 0; k < 8; k++) up = multiply_add(x[k], x[7 - k] + 1, up);
    for (int k = 8; k-- > 0;) down = multiply_add(x[k], x[7 - k] + 1, down);
    different += !same(up, down);
  }
  CHECK(different > 30, std::to_string(different));
}

template <class T> void check_all(const std::string& isa) {
  const Kernels<T>& kernels = ostinato::kernels<T>(isa);
  check_products(kernels);
  check_sums(kernels);
  check_arrays(kernels);
}

}  // namespace

void test_kernels() {
  check_that_the_checks_can_fail();
  check_prefetcher();
  for (const std::string& isa : available_isas()) check_all<float>(isa), check_all<double>(isa);
}

}  // namespace ostinato
