// What a step takes as register code and by the interpreter, from which the cheaper one is chosen. Measured
// on one core of a server (AVX-512, 2.5 GHz).
#pragma once
#include "program/program.h"

namespace ostinato {

struct RegisterCost {
  double registers_ns = 0;        // of each row
  double machine_code_ns = 0;     // of each row, if the registers are compiled
  double interpreter_ns = 0;      // whatever the rows are
  double interpreter_row_ns = 0;  // of each row, beside it
  int64_t numbers = 0;            // that a step computes or moves: a bound for the work of planning

  bool registers_are_faster(int64_t n_rows) const { return faster(registers_ns, n_rows); }
  bool machine_code_is_faster(int64_t n_rows) const { return faster(machine_code_ns, n_rows); }

 private:
  bool faster(double row_ns, int64_t n_rows) const {
    return row_ns * double(n_rows) < interpreter_ns + interpreter_row_ns * double(n_rows);
  }
};

RegisterCost find_register_cost(const Program& program, bool is_double);

}  // namespace ostinato
