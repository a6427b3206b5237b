#include "plan/step_order.h"

namespace ostinato {
namespace {

enum : int { kInBefore = 1, kInLoop = 2, kInAfter = 4 };

bool is_one_bit(int bits) { return bits && !(bits & (bits - 1)); }

}  // namespace

StepOrder::StepOrder(const Program& program) : p_(program), uses_(p_.buffers.size()) {
  note(p_.before, kInBefore);
  note(p_.loop, kInLoop);
  note(p_.after, kInAfter);
}

bool StepOrder::holds() const {
  std::vector<int> n_carries(uses_.size());
  for (const Carry& c : p_.carries) n_carries[size_t(c.buffer)]++;
  for (size_t i = 0; i < uses_.size(); i++)
    if (n_carries[i] > 1 || !keeps_order(uses_[i], n_carries[i] == 1)) return false;
  return arguments_are_apart(n_carries);
}

void StepOrder::note(const Section& section, int bit) {
  for (int32_t i = section.begin; i < section.end; i++) {
    const Instruction& x = p_.instructions[size_t(i)];
    for (const Operand* o : {&x.a, &x.b, &x.c, &x.d}) {
      // Operands that are no buffers, such as weights, are of instructions that are refused.
      if (o->buffer < 0 || size_t(o->buffer) >= uses_.size()) continue;
      BufferUse& use = uses_[size_t(o->buffer)];
      (o == &x.d ? use.written_in : use.read_in) |= bit;
      (o == &x.d ? use.dt_written : use.dt_read) |= 1 << o->dt;
    }
  }
}

bool StepOrder::keeps_order(const BufferUse& use, bool is_carry) const {
  const int next = 1 << (p_.descending ? 0 : 1), both = 3;
  if (is_carry && use.written_in != kInLoop) return false;
  if (!use.written_in || (use.written_in | use.read_in) == kInLoop) return true;
  if (!is_one_bit(use.dt_written) || (is_carry && use.read_in & kInBefore)) return false;
  return !(use.dt_read & ~(is_carry && use.dt_written == next ? both : use.dt_written));
}

// An argument that is written has one use: nothing else reads or writes its memory.
bool StepOrder::arguments_are_apart(const std::vector<int>& n_carries) const {
  std::vector<int> n_uses(size_t(p_.n_arguments));
  std::vector<bool> written(size_t(p_.n_arguments));
  const auto add = [&](int32_t argument, bool is_written) {
    if (argument < 0) return;
    n_uses[size_t(argument)]++;
    if (is_written) written[size_t(argument)] = true;
  };
  for (const Carry& c : p_.carries) {
    add(c.init, false);
    add(c.final, true);
  }
  for (size_t i = 0; i < p_.buffers.size(); i++) {
    const Kind kind = p_.buffers[i].kind;
    if (kind == Kind::kTime || kind == Kind::kTape || kind == Kind::kVector)
      add(p_.buffers[i].argument, uses_[i].written_in || n_carries[i]);
  }
  for (const Weight& w : p_.weights)
    for (const WeightBlock& b : w.blocks) add(b.argument, false);
  for (const Gradient& g : p_.gradients) add(g.argument, true);
  for (size_t i = 0; i < n_uses.size(); i++)
    if (written[i] && n_uses[i] > 1) return false;
  return true;
}

}  // namespace ostinato
