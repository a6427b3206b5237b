// Operations on fibres give the bits of the kernels that read whole rows, and are played where they can be.
#include <algorithm>

#include "kernels/dispatch.h"
#include "plan/blocks.h"
#include "tests.h"

namespace ostinato {
namespace {

// [n_fibres, J] of each row, with a gap between rows, and the same spread: fibre i at fibre i · step.
template <class T> struct Values {
  int64_t n_rows, n_fibres, J, stride;
  bool scalar;
  std::vector<T> data;
  int64_t step;

  Values(int64_t rows, int64_t fibres, int64_t columns, bool is_scalar, bool one, Random& random)
      : n_rows(rows), n_fibres(fibres), J(columns), stride(fibres * columns + 3), scalar(is_scalar),
        data(size_t(rows * stride)), step(one ? 0 : is_scalar ? 1 : columns) {
    for (T& x : data) x = T(random.number());
    if (random.chance(20)) data[size_t(random.below(rows * stride))] = T(NAN);
  }
  Fibres<T> fibres() { return {data.data(), step, stride}; }
  Rows<T> rows() { return {data.data(), stride}; }
  Values whole() const {  // written out
    Values x = *this;
    x.step = J;
    x.scalar = false;
    for (int64_t r = 0; r < n_rows; r++)
      for (int64_t i = 0; i < n_fibres; i++)
        for (int64_t j = 0; j < J; j++)
          x.data[size_t(r * stride + i * J + j)] = data[size_t(r * stride + i * step + (scalar ? 0 : j))];
    return x;
  }
};

template <class T> void check_kernels(const std::string& isa, int64_t J, Random& random) {
  const Kernels<T>& kernels = ostinato::kernels<T>(isa);
  const int64_t rows = 1 + random.below(3), n = 1 + random.below(40);
  const std::string shape = isa + ", " + std::to_string(n) + " fibres of " + std::to_string(J);
  const auto values = [&](bool scalar) { return Values<T>(rows, n, J, scalar, random.chance(50), random); };
  for (int number = 0; number < kOnFibresCount; number++)
    for (int scalars = 0; scalars < 4; scalars++) {
      Values<T> a = values(scalars & kScalarOfA), b = values(false), c = values(scalars & kScalarOfC);
      Values<T> out(rows, n, J, false, false, random), wanted = out;
      Values<T> whole_a = a.whole(), whole_b = b.whole(), whole_c = c.whole();
      const Fibres<T> x[] = {a.fibres(), b.fibres(), c.fibres(), out.fibres()};
      kernels.on_fibres[number][scalars](rows, n, J, x);
      const Rows<T> table[] = {whole_a.rows(), whole_b.rows(), whole_c.rows(), wanted.rows()};
      const int16_t which[] = {0, 1, 2, 3};
      kernels.elementwise[kFibreKernels[number]](rows, n * J, table, which, T(0));
      CHECK(same(out.data, wanted.data), shape + ", kernel " + std::to_string(number));
    }
  for (bool scalar : {false, true}) {
    Values<T> a = values(scalar), b = values(false), product = b.whole();
    Values<T> whole_a = a.whole(), whole_b = b.whole();
    const Rows<T> table[] = {whole_a.rows(), whole_b.rows(), {}, product.rows()};
    const int16_t which[] = {0, 1, 2, 3};
    kernels.elementwise[kOp_mul](rows, n * J, table, which, T(0));
    // In two parts, of which the second goes on.
    Values<T> sums(rows, 1, J, false, false, random), wanted = sums;
    const int64_t first = random.below(n);
    const auto rest = [&](Fibres<T> x) { return Fibres<T>{x.data + first * x.step, x.step, x.stride}; };
    if (first) kernels.add_fibres(rows, first, J, scalar, a.fibres(), b.fibres(), sums.rows(), true);
    kernels.add_fibres(rows, n - first, J, scalar, rest(a.fibres()), rest(b.fibres()), sums.rows(), !first);
    kernels.row_sum(rows, n * J, {n, J}, {product.data.data(), product.stride}, wanted.rows());
    CHECK(same(sums.data, wanted.data), shape + ", add_fibres");
    if (scalar) continue;
    for (int64_t per_sum = 1; per_sum <= n; per_sum++) {
      if (n % per_sum) continue;
      Values<T> neighbours(rows, n / per_sum, 1, false, false, random), as_rows = neighbours;
      kernels.sum_fibres(rows, n, J, per_sum, a.fibres(), b.fibres(), neighbours.rows());
      kernels.row_sum(rows, n * J, {per_sum * J, 1}, {product.data.data(), product.stride}, as_rows.rows());
      CHECK(same(neighbours.data, as_rows.data), shape + ", sum_fibres of " + std::to_string(per_sum));
    }
  }
}

// ---- What is played on fibres

enum Buffers : int32_t { bAll, bOut, bOfFibres, bOfMatrices, bFibre, bProduct, bSums };

Instruction op(int32_t name, Operand d, Operand a, Operand b) {
  Instruction x{};
  x.code = Code::kOp;
  x.op = name;
  x.d = d;
  x.a = a;
  x.b = b;
  return x;
}
Instruction on_axis(Code code, int32_t n, Operand d, Operand a, int32_t times, int32_t inner) {
  Instruction x{};
  x.code = code;
  x.n = n;
  x.d = d;
  x.a = a;
  x.k = times;
  x.inner = inner;
  return x;
}

// out = all · f + m · v and Σ out · v over the last axis, of rows [G, I, J]: f has a number a fibre, m one a
// matrix, v is one fibre.
BlockPlan sample(int32_t G, int32_t I, int32_t J) {
  const int32_t n = G * I * J;
  Program p;
  p.n_arguments = 6;
  p.buffers = {{Kind::kTime, n, 0, 0}, {Kind::kTime, n, 0, 1}, {Kind::kTime, G * I, 0, 2},
               {Kind::kTime, G, 0, 3}, {Kind::kTime, J, 0, 4}, {Kind::kStep, n, 0, -1},
               {Kind::kTime, G * I, 0, 5}};
  const auto in = [](int32_t buffer) { return Operand{buffer, 0, 0}; };
  const auto reg = [](int32_t number) { return Operand{-2 - number, 0, 0}; };
  Instruction head{};
  head.code = Code::kBlock;
  head.n = n;
  p.instructions = {head,
                    on_axis(Code::kBroadcast, 0, reg(0), in(bOfFibres), J, 1),
                    op(kOp_mul, reg(1), in(bAll), reg(0)),
                    on_axis(Code::kBroadcast, 0, reg(0), in(bOfMatrices), I * J, 1),
                    on_axis(Code::kBroadcast, 0, reg(2), in(bFibre), G * I, J),
                    op(kOp_mul, reg(0), reg(2), reg(0)),
                    op(kOp_add, in(bOut), reg(1), reg(0)),
                    op(kOp_mul, in(bProduct), in(bOut), reg(2))};
  p.instructions[0].count = int32_t(p.instructions.size()) - 1;
  p.instructions.push_back(on_axis(Code::kRowSum, n, in(bSums), in(bProduct), J, 1));
  p.loop = {0, int32_t(p.instructions.size())};
  p.after = {p.loop.end, p.loop.end};
  validate(p);
  return BlockPlan::with_sums(p, 0, p.loop.end, sizeof(float));
}

void check_plans() {
  const auto on_fibres = [](const BlockPlan& plan) {
    return std::count_if(plan.operations.begin(), plan.operations.end(),
                         [](const auto& x) { return x.fibre > 0; });
  };
  // The three operations that are left, the spreads being read where they lie; one register, of the product.
  const BlockPlan all = sample(4, 32, 32);
  CHECK(all.operations.size() == 3 && on_fibres(all) == 3 && all.n_registers == 1,
        std::to_string(all.operations.size()));
  CHECK(all.strip == 1024 && all.n_folded == 1, std::to_string(all.strip));
  CHECK(sample(3, 10, 32).strip == 320, "a strip ends with a matrix");
  // Fibres that are no whole vectors, rows shorter than a strip, and matrices that no strip fits.
  for (const BlockPlan& none : {sample(4, 33, 20), sample(1, 2, 32), sample(2, 67, 16)})
    CHECK(on_fibres(none) == 0 && none.operations.size() == 7, std::to_string(none.operations.size()));
}

}  // namespace

void test_fibres() {
  Random random(11);
  for (const std::string& isa : available_isas())
    for (int64_t J : {16, 32, 48, 64, 96, 128, 144})
      for (int i = 0; i < 10; i++)
        check_kernels<float>(isa, J, random), check_kernels<double>(isa, J, random);
  check_plans();
}

}  // namespace ostinato
