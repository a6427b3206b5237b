// Register code: the interpreter's bits, and what it makes of a program.
#include "plan/register_code.h"

#include <algorithm>

#include "kernels/dispatch.h"
#include "programs.h"

namespace ostinato {
namespace {

Workspaces workspaces;

template <class T>
std::vector<std::vector<T>> played(const Program& program, Setting setting, Tier tier, double scale = 1) {
  Executor<T> executor(program, workspaces);
  CHECK(executor.register_code() != nullptr, "");
  Arrays<T> arrays(program, setting.T, setting.B, Random(7), false, scale);
  PlayRequest request = setting.request(arrays.arguments());
  request.tier = tier;
  executor.play(request);
  return arrays.values();
}
template <class T> void check(const Program& program, const char* name, double scale = 1) {
  for (auto [T_steps, B] : {std::pair<int64_t, int64_t>{1, 1}, {70, 1}, {600, 1}, {3, 3}, {45, 7}}) {
    Setting setting(T_steps, B, false, Random(11));
    for (const std::string& isa : available_isas()) {
      setting.isa = isa;
      const auto ours = played<T>(program, setting, Tier::kRegisters, scale);
      const auto wanted = played<T>(program, setting, Tier::kInterpreter, scale);
      for (size_t i = 0; i < wanted.size(); i++)
        CHECK(same(ours[i], wanted[i]), std::string(name) + ", " + isa + ", argument " + std::to_string(i) +
                                            ", T " + std::to_string(T_steps) + ", B " + std::to_string(B));
    }
  }
}

Program without_product_sum(Program p) {
  p.instructions.pop_back();
  p.after.end--;
  return p;
}
// A second term of two gradients: their sums are by chunks.
Program with_second_terms(Program p) {
  const int32_t first = p.after.begin;
  Instruction outer = p.instructions[size_t(first + 1)], column = p.instructions[size_t(first + 2)];
  outer.a.dt = 1 - outer.a.dt;
  p.instructions.push_back(outer);
  p.instructions.push_back(column);
  p.after.end += 2;
  return p;
}

int64_t count(const RegisterCode& code, int32_t op) {
  return std::count_if(code.step.begin(), code.step.end(), [&](const auto& x) { return x.op == op; });
}

void check_forwarding() {
  const Program gru = gru_step(2, 3);
  const RegisterCode code = *find_register_code(gru, true);
  CHECK(count(code, kLoad) == 2 && count(code, kStore) == 3, "x is read once, and y alone is memory");
  CHECK(count(code, kOp_copy) == 0, "the carry is written where it lies");
  CHECK(count(code, kOp_fma) == 3 * 3 + 2 * 9 + 3 * 6, "");
  const size_t fixed =
      code.constants.size() + code.elements.size() + code.once.size() - 1 + code.carries.size();
  CHECK(size_t(code.n_registers) - fixed < code.step.size() / 4, "registers are used again");
}
void check_what_is_not_covered() {
  CHECK(!find_register_code(sample_program(2, 3, false), true), "a sum of products");
  CHECK(!find_register_code(gru_step(2, 200), true), "wide");
  Program twice = gru_step(2, 3);
  twice.carries[0].final = kGruY;  // y is memory of a second name
  CHECK(!find_register_code(twice, true), "");
}

}  // namespace

void test_register_code() {
  for (bool descending : {false, true}) {
    const Program sample = without_product_sum(sample_program(2, 5, descending));
    for (const Program& p : {sample, with_second_terms(sample)}) {
      check<float>(p, "sample");
      check<double>(p, "sample");
      check<float>(p, "sample of numbers near zero", 1e-37);
      check<double>(p, "sample of numbers near zero", 1e-307);
    }
  }
  check<float>(gru_step(2, 3), "gru");
  check<double>(gru_step(2, 3), "gru");
  for (int32_t H : {2, 3, 4}) check<double>(carries_step(H), "carries");
  check_forwarding();
  check_what_is_not_covered();
}

}  // namespace ostinato
