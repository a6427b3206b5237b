// A program for few rows as register code: every register is one number, and one list of instructions is a
// whole step of a row.
//
//   forwarding   what a step writes and reads again stays in a register; buffers of the engine's own are
//                never memory, and copies, spreads and tables of elements are no instructions
//   stream       where loads and stores at t + dt of one buffer lie; it moves by one slot a step
//   fixed        registers that are filled once a play: constants, elements of weights and vectors, results
//                of `once`
//   carry        registers that a step reads, and overwrites with the next state
//   late term    one of several terms of a gradient. Their order is by chunks (see play/request.h): a step
//                keeps the operands, and the term is summed at the end of a chunk
//
// The order of every sum is the interpreter's, so the bits are, too.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/kernels.h"
#include "plan/register_cost.h"
#include "program/program.h"

namespace ostinato {

struct RegisterCode {
  struct Constant {
    int32_t d;
    double value;
  };
  struct Element {  // of a weight's argument, or of a vector (row = −1)
    int32_t d, argument, row, column;
  };
  struct CarryColumn {
    int32_t d, carry, column;
  };
  struct Stream {
    int32_t buffer, dt;  // buffer −1: the operands of late terms
  };
  using Instructions = std::vector<RegisterInstruction>;

  std::vector<Constant> constants;
  std::vector<Element> elements;
  Instructions once, step;
  std::vector<CarryColumn> carries;
  std::vector<Stream> streams;
  std::vector<Instructions> late_terms;  // their only stream: the kept operands of one row and step
  std::vector<int32_t> first_sum;        // by gradient: where its sums begin
  int32_t n_registers = 0, n_sums = 0, n_kept = 0;
  RegisterCost cost;
};

// None if the program is not covered, or so wide that the interpreter is faster even for one row.
// Not covered: sums of products over rows; a value that one step leaves to the next outside a carry; memory
// that one instruction writes and another one names by a second argument or buffer.
std::optional<RegisterCode> find_register_code(const Program& program, bool is_double);

}  // namespace ostinato
