// From values to registers: dead instructions are removed, carries are written where their old values lie if
// nothing reads these any more, and other registers are used again after the last instruction that reads
// them.
#pragma once
#include <cstdint>
#include <vector>

#include "plan/register_code.h"

namespace ostinato {

// An instruction in single assignment. Operands are values: those below kFirstTemporary are fixed registers,
// which keep their number; a of kLoad and kStore is a stream, b a column. −1: no operand.
struct ValueInstruction {
  int32_t op, d, a, b, c;
};
using ValueInstructions = std::vector<ValueInstruction>;
constexpr int32_t kFirstTemporary = 1 << 24;
constexpr ValueInstruction kEndOfStep{kEnd, -1, -1, -1, -1};

struct CarriedValue {
  int32_t now, next;  // the fixed register that a step reads, and the value that it leaves there
};

struct ValueCode {
  ValueInstructions once, step;  // `once` has fixed results
  std::vector<ValueInstructions> late_terms;
  std::vector<CarriedValue> carried;
  int32_t n_fixed, n_temporaries;
};

// Completes `made` with instructions and the number of registers. False if there are too many registers.
bool allocate_registers(ValueCode code, RegisterCode& made);

}  // namespace ostinato
