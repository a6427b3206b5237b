// Blocks as they are planned: the same bits as one operation after the other.
#include "kernels/dispatch.h"
#include "plan/blocks.h"
#include "tests.h"

namespace ostinato {
namespace {

constexpr int kStreams = 4, kRegisters = 4, kEntries = kStreams + kRegisters;
constexpr int64_t kWidth = 19;  // a vector and a part of one

// Entries 0 … kStreams−1 are streams, the others registers.
Operand operand(int64_t entry) {
  return {entry < kStreams ? int32_t(entry) : int32_t(-2 - (entry - kStreams)), 0, 0};
}

class RandomBlock {
 public:
  explicit RandomBlock(Random random) : random_(random) {
    instructions_.resize(1);
    instructions_[0].code = Code::kBlock;
    instructions_[0].n = int32_t(kWidth);
    while (instructions_.size() < 12) {
      if (random_.chance(60)) {
        std::string text = kFusedRows[random_.below(kFusedCount)].expression;
        for (int64_t& name : names_) name = random_.below(kEntries);
        add(text, random_.below(kEntries));
      } else {
        add_operation(random_.pick(std::vector<int32_t>{kOp_add, kOp_mul, kOp_sub, kOp_tanh}), entry(),
                      entry(), entry());
      }
    }
    instructions_[0].count = int32_t(instructions_.size()) - 1;
  }
  const std::vector<Instruction>& instructions() const { return instructions_; }

 private:
  Random random_;
  std::vector<Instruction> instructions_;
  int64_t names_[3];

  int64_t entry() { return random_.below(kEntries); }
  void add_operation(int32_t op, int64_t a, int64_t b, int64_t d) {
    Instruction x{};
    x.code = Code::kOp;
    x.op = op;
    x.a = operand(a);
    if (kOpRows[op].arity > 1) x.b = operand(b);
    x.d = operand(d);
    instructions_.push_back(x);
  }
  // The operations of an expression, with results in between in any registers: others may destroy them.
  int64_t add(std::string& text, int64_t d) {
    const size_t end = std::min(text.find_first_of("(,)"), text.size());
    const std::string name = text.substr(0, end);
    text.erase(0, end);
    if (text.empty() || text[0] != '(') return random_.chance(95) ? names_[name[0] - 'a'] : entry();
    int64_t inputs[2] = {0, 0};
    for (int i = 0; text[0] != ')'; i++) {
      text.erase(0, text.find_first_not_of("(, "));
      inputs[i] = add(text, kStreams + random_.below(kRegisters));
      if (random_.chance(10)) add_operation(kOp_sub, entry(), entry(), entry());
    }
    text.erase(0, 1);
    int32_t op = 0;
    while (name != kOpRows[op].name) op++;
    if (kOpRows[op].arity > 1 && random_.chance(30)) std::swap(inputs[0], inputs[1]);
    add_operation(op, inputs[0], inputs[1], d);
    return d;
  }
};

using Values = std::vector<std::vector<float>>;  // by entry

void run(const Kernels<float>& kernels, int32_t kernel, Values& values, const int16_t* which) {
  Rows<float> table[kEntries];
  for (int i = 0; i < kEntries; i++) table[i] = {values[size_t(i)].data(), kWidth};
  kernels.elementwise[kernel](1, kWidth, table, which, 0);
}

Values one_by_one(const std::vector<Instruction>& block, Values values) {
  const auto entry = [](const Operand& o) {
    return int16_t(o.buffer >= 0 ? o.buffer : o.buffer == -1 ? 0 : kStreams + -2 - o.buffer);
  };
  for (size_t i = 1; i < block.size(); i++) {
    const Instruction& x = block[i];
    const int16_t which[] = {entry(x.a), entry(x.b), 0, entry(x.d)};
    run(kernels<float>("base"), x.op, values, which);
  }
  return values;
}
// n_fused: operations that stand for an expression.
Values planned(const std::vector<Instruction>& block, const Values& values, int* n_fused) {
  const BlockPlan plan(block.data(), sizeof(float));
  Values table;
  for (const BlockPlan::Stream& s : plan.streams) table.push_back(values[size_t(s.operand.buffer)]);
  table.resize(kEntries, std::vector<float>(kWidth));
  for (const BlockPlan::Operation& x : plan.operations) {
    *n_fused += x.kernel >= kFirstFused;
    run(kernels<float>("base"), x.kernel, table, x.which);
  }
  Values found = values;
  for (size_t i = 0; i < plan.streams.size(); i++) found[size_t(plan.streams[i].operand.buffer)] = table[i];
  return found;
}

}  // namespace

void test_blocks() {
  int n_fused = 0;
  for (uint32_t seed = 0; seed < 4000; seed++) {
    Random random(seed);
    Values values(kEntries, std::vector<float>(kWidth));
    for (int i = 0; i < kStreams; i++)
      for (float& x : values[size_t(i)]) x = float(random.number());
    const RandomBlock block(random);
    const Values wanted = one_by_one(block.instructions(), values);
    const Values found = planned(block.instructions(), values, &n_fused);
    for (size_t i = 0; i < kStreams; i++)
      CHECK(same(found[i], wanted[i]), "stream " + std::to_string(i) + " of seed " + std::to_string(seed));
  }
  CHECK(n_fused > 1000, std::to_string(n_fused));
}

}  // namespace ostinato
