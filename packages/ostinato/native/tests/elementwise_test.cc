// Elementwise kernels. tests/engine/test_functions.py compares their meaning with NumPy. Here they are
// compared with the portable kernel, with any length and stride, any bits, and in place.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "kernels/dispatch.h"
#include "kernels/kernels.h"
#include "matrices.h"
#include "tests.h"

namespace ostinato {
namespace {

template <class T> T any_value(Random& random) {
  using Limits = std::numeric_limits<T>;
  const T special[] = {0,
                       T(-0.),
                       1,
                       -1,
                       Limits::infinity(),
                       -Limits::infinity(),
                       Limits::quiet_NaN(),
                       -Limits::quiet_NaN(),
                       Limits::max(),
                       Limits::lowest(),
                       Limits::min(),
                       Limits::denorm_min(),
                       T(3e9),
                       T(-3e9),
                       88,
                       -88};
  if (random.chance(40)) return random.pick(special);
  if (random.chance(50)) return T(8 * random.number());
  uint32_t bits[2] = {uint32_t(random.below(1ll << 32)), uint32_t(random.below(1ll << 32))};
  T value;
  std::memcpy(&value, bits, sizeof value);
  return value;
}

template <class T> struct Operands {
  Matrix<T> a, b, c, out;
  Operands(int64_t rows, int64_t N, Random& random) : a(rows, N, random), b(a), c(a), out(rows, N, random) {
    for (Matrix<T>* m : {&a, &b, &c})
      for (int64_t r = 0; r < rows; r++)
        for (int64_t n = 0; n < N; n++) m->at(r, n) = any_value<T>(random);
  }
  Rows<T> rows(Matrix<T>& m) { return {m.data(), m.stride()}; }
  void run(const Kernels<T>& kernels, int op, int64_t n_rows, int64_t N, T s, bool in_place) {
    const Rows<T> table[] = {rows(a), rows(b), rows(c), rows(in_place ? a : out)};
    const int16_t which[] = {0, 1, 2, 3};
    if (op < 0) return kernels.spread(n_rows, N, {a.data(), a.stride()}, rows(out), 0, {N, 1});
    kernels.elementwise[op](n_rows, N, table, which, s);
  }
  void run_row(const Kernels<T>& kernels, int op, int64_t N, T s, bool in_place) {
    kernels.row_elementwise[op](N, a.data(), b.data(), c.data(), in_place ? a.data() : out.data(), s);
  }
};

template <class T> void check_operation(const Kernels<T>& kernels, int op, int64_t rows, int64_t N,
                                        Random& random) {
  const std::string what =
      (op < 0 ? "spread" : kOpRows[op].name) + std::string(", ") + shape(kernels.name, rows, 0, N);
  Operands<T> theirs(rows, N, random), ours = theirs, alone = theirs;
  const T s = random.chance(30) ? any_value<T>(random) : T(random.number());
  const bool in_place = op >= 0 && random.chance(30);
  theirs.run(ostinato::kernels<T>("base"), op, rows, N, s, in_place);
  ours.run(kernels, op, rows, N, s, in_place);
  CHECK(ours.out == theirs.out && ours.a == theirs.a, what);
  CHECK(ours.out.gaps_untouched() && ours.a.gaps_untouched(), what);
  if (op < 0 || rows > 1 || !kernels.row_elementwise[op]) return;
  alone.run_row(kernels, op, N, s, in_place);
  CHECK(alone.out == theirs.out && alone.a == theirs.a, "a row alone: " + what);
  CHECK(alone.out.gaps_untouched() && alone.a.gaps_untouched(), "a row alone: " + what);
}

template <class T> void check_operations(const Kernels<T>& kernels) {
  Random random(3);
  for (int op = -1; op < kOpCount; op++) {
    for (int64_t N = 1; N <= 35; N++)
      for (int64_t rows = 1; rows <= 3; rows++) check_operation(kernels, op, rows, N, random);
    for (int64_t N : {127, 128, 129}) check_operation(kernels, op, 2, N, random);
  }
}

// Two operations at once give the same bits as one after the other.
template <class T> void check_pair(const Kernels<T>& kernels, int pair, int64_t rows, int64_t N,
                                   Random& random) {
  const PairRow& row = kPairRows[pair];
  const std::string what =
      kOpRows[row.first].name + std::string(" ") + kOpRows[row.second].name + shape(kernels.name, rows, 0, N);
  Operands<T> one_by_one(rows, N, random), at_once = one_by_one, alone = one_by_one;
  const T s = T(random.number());
  const bool in_place = random.chance(30);
  at_once.run(kernels, kFirstPair + pair, rows, N, s, in_place);
  one_by_one.run(kernels, row.first, rows, N, s, false);
  Operands<T> last = one_by_one;  // operands of the second: the result, and what the first did not read
  (row.place == 0 ? last.a : last.b) = one_by_one.out;
  (row.place == 0 ? last.b : last.a) = kOpRows[row.first].arity == 1 ? one_by_one.b : one_by_one.c;
  last.c = one_by_one.c;
  last.run(kernels, row.second, rows, N, s, false);
  const Matrix<T>& result = in_place ? at_once.a : at_once.out;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t n = 0; n < N; n++) CHECK(same(result.at(r, n), last.out.at(r, n)), what);
  CHECK(result.gaps_untouched(), what);
  if (rows > 1 || !kernels.row_elementwise[kFirstPair + pair]) return;
  alone.run_row(kernels, kFirstPair + pair, N, s, in_place);
  CHECK(alone.out == at_once.out && alone.a == at_once.a, "a row alone: " + what);
}
template <class T> void check_pairs(const Kernels<T>& kernels) {
  Random random(6);
  for (int pair = 0; pair < kPairCount; pair++)
    for (int64_t N = 1; N <= 35; N++) check_pair(kernels, pair, 1 + N % 3, N, random);
}

// The value of an expression of fused.def, operation by operation.
template <class T> Matrix<T> value_of(const Kernels<T>& kernels, std::string& text, const Operands<T>& x,
                                      int64_t rows, int64_t N) {
  const size_t end = std::min(text.find_first_of("(,)"), text.size());
  const std::string name = text.substr(0, end);
  text.erase(0, end);
  if (text.empty() || text[0] != '(') return name == "a" ? x.a : name == "b" ? x.b : x.c;
  Operands<T> now = x;
  for (Matrix<T>* operand : {&now.a, &now.b, &now.c}) {
    if (text[0] == ')') break;
    text.erase(0, text.find_first_not_of("(, "));
    *operand = value_of(kernels, text, x, rows, N);
  }
  text.erase(0, 1);
  int op = 0;
  while (name != kOpRows[op].name) op++;
  now.run(kernels, op, rows, N, 0, false);
  return now.out;
}
template <class T> void check_fused(const Kernels<T>& kernels) {
  Random random(8);
  for (int row = 0; row < kFusedCount; row++)
    for (int64_t N = 1; N <= 35; N++) {
      const int64_t rows = 1 + N % 3;
      Operands<T> at_once(rows, N, random), alone = at_once;
      std::string text = kFusedRows[row].expression;
      const Matrix<T> wanted = value_of(kernels, text, at_once, rows, N);
      at_once.run(kernels, kFirstFused + row, rows, N, 0, false);
      const std::string what = kFusedRows[row].expression + shape(kernels.name, rows, 0, N);
      for (int64_t r = 0; r < rows; r++)
        for (int64_t n = 0; n < N; n++) CHECK(same(at_once.out.at(r, n), wanted.at(r, n)), what);
      CHECK(at_once.out.gaps_untouched(), what);
      if (rows > 1 || !kernels.row_elementwise[kFirstFused + row]) continue;
      alone.run_row(kernels, kFirstFused + row, N, 0, false);
      CHECK(alone.out == at_once.out, "a row alone: " + what);
    }
}

// The others are compared with the portable kernel: signs that it might get wrong as they do.
template <class T> void check_signed_zeros(const Kernels<T>& kernels) {
  Random random(4);
  for (int64_t N : {1, 5, 16, 33}) {
    Operands<T> x(1, N, random);
    const auto all = [&](int op, T a, T s, T wanted) {
      for (int64_t n = 0; n < N; n++) x.a.at(0, n) = a;
      x.run(kernels, op, 1, N, s, false);
      for (int64_t n = 0; n < N; n++)
        CHECK(same(x.out.at(0, n), wanted), kOpRows[op].name + shape(kernels.name, 1, 0, N));
    };
    const T minus = T(-0.);
    all(kOp_neg, 0, 0, minus);
    all(kOp_neg, minus, 0, 0);
    all(kOp_fill, 1, minus, minus);
    all(kOp_copy, minus, 0, minus);
    all(kOp_sign, minus, 0, 0);
    all(kOp_add_s, minus, minus, minus);
    all(kOp_mul_s, 1, minus, minus);
    all(kOp_tanh, minus, 0, minus);
  }
}

template <class T> void check_all(const std::string& isa) {
  const Kernels<T>& kernels = ostinato::kernels<T>(isa);
  check_operations(kernels);
  check_pairs(kernels);
  check_fused(kernels);
  check_signed_zeros(kernels);
}

}  // namespace

void test_elementwise() {
  for (const std::string& isa : available_isas()) check_all<float>(isa), check_all<double>(isa);
}

}  // namespace ostinato
