// The rows that each step of the loop touches for the first time, so that the step before can prefetch them.
#pragma once
#include <cstdint>
#include <vector>

#include "program/program.h"

namespace ostinato {

// One operand for each buffer that grows with time: at the slot that the loop reaches last, from column 0.
std::vector<Operand> streamed_operands(const Program& program);

// Iterations over k of all products of a step, for one register tile of rows: each can fetch one line.
int64_t loop_depth(const Program& program, int64_t panel);

}  // namespace ostinato
