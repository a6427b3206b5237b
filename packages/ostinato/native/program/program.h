// What the engine executes: plain structs, the same for every cell. src/ostinato/engine/program.py builds
// them; src/ostinato/engine/reference.py defines in NumPy what each instruction means.
//
//   argument   an array of the caller's, bound at each play: a matrix, a vector, or [T (+ 1), B, width]
//   buffer     a named place for values: an argument, or memory of the engine's own
//   operand    columns of a buffer at time t + dt, from a column on; or a register
//   register   a strip of values within a block
//   axis       a row, or a part of one, is an array [outer, times, inner]: the axis in the middle is spread
//              over, or reduced
//   section    once · before · loop · after: each a range of instructions. `once` is played once, `loop` step
//              by step; `before` and `after` run over all steps of a chunk at once
//   carry      the recurrent state: slot t (descending: t + 1) of a buffer is what step t reads
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "program/arrays.h"

namespace ostinato {

enum class Kind : int32_t {
#define KIND(name, python_name) name,
#include "program/kinds.def"
#undef KIND
  kEnd
};
struct Buffer {
  Kind kind;
  int32_t width;
  int32_t extra;     // of kTime and kTape: slots beyond T, 0 or 1
  int32_t argument;  // of kTime, kVector and kTape
};

// A block of a weight matrix: w[k0 … k0+nk)[n0 … n0+nn) is the argument's, from (row, column) on.
struct WeightBlock {
  int32_t argument, k0, nk, n0, nn, row, column;
};
struct Weight {
  int32_t K, N;
  std::vector<WeightBlock> blocks;
};

struct Operand {
  int32_t buffer = -1;  // ≥ 0: a buffer; −1: none; ≤ −2: register number −2 − buffer
  int32_t column = 0;
  int32_t dt = 0;
};
inline bool same(const Operand& x, const Operand& y) {
  return x.buffer == y.buffer && x.column == y.column && x.dt == y.dt;
}
// Whether operands of nx and ny columns share no element, at one step.
inline bool apart(const Operand& x, int64_t nx, const Operand& y, int64_t ny) {
  return x.buffer != y.buffer || x.dt != y.dt || x.column + nx <= y.column || y.column + ny <= x.column;
}

// The elements of a row of `width` columns that an instruction takes, run after run.
struct IndexTable {
  int32_t width;
  std::vector<ElementRun> runs;
};

enum class Code : int32_t {
#define CODE(name, python_name) name,
#include "program/codes.def"
#undef CODE
};
struct Instruction {
  Code code;
  int32_t op = 0;  // kOp: an Op of kernels/kernels.h
  int32_t n = 0;   // columns: of the result, or of kRowSum's and kRowMax's operand
  int32_t k = 0;   // columns of a product's factor, or rows of a gradient; or an axis's `times`
  // An index. kGemm: of a weight; kOuter, kColumnSum, kProductSum: of a gradient; kTake: of a table;
  // kProduct: of a product.
  int32_t weight = 0;
  int32_t count = 0;   // kBlock: its instructions; kProductSum: the index of its product
  int32_t inner = 1;   // kBroadcast, kRowSum, kRowMax: `inner` of the axis
  double s = 0;
  Operand d, a, b, c;
};
struct Gradient {
  int32_t K, N, argument;   // the sum over rows and steps is written to the argument, [K, N]
  bool transposed = false;  // the argument is [N, K]: of outer products
};
struct Carry {
  int32_t buffer;
  int32_t init;   // argument [B, width] that fills the first slot; −1: zeros
  int32_t final;  // argument [B, width] that receives the last slot; −1: not wanted
};
struct Section {
  int32_t begin, end;  // instructions
};

struct Program {
  int32_t n_arguments = 0;
  bool descending = false;  // plays t = T−1 … 0
  std::vector<Buffer> buffers;
  std::vector<Weight> weights;
  std::vector<Gradient> gradients;
  std::vector<Carry> carries;
  std::vector<IndexTable> tables;
  std::vector<SmallProduct> products;
  std::vector<Instruction> instructions;
  Section once{}, before{}, loop{}, after{};
};

// Columns of the operands and the result of a product within rows.
inline int32_t columns_of_a(const SmallProduct& x) { return x.groups * x.M * x.K; }
inline int32_t columns_of_b(const Program& p, const SmallProduct& x) {
  return x.table < 0 ? x.groups * x.K * x.N : p.tables[size_t(x.table)].width;
}
inline int32_t columns_of_d(const SmallProduct& x) { return x.groups * x.M * x.N; }

inline Axis axis_of(const Instruction& x) { return {x.k, x.inner}; }
// A row of n columns without its axis: the operand of a kBroadcast, the result of a kRowSum or kRowMax.
inline int32_t folded(int32_t n, const Instruction& x) { return n / x.k; }

// The limits of a program. The compiler keeps to them: tests/engine/test_tables.py compares both sides.
constexpr int32_t kMaxArguments = 4096;
constexpr int32_t kMaxRegisters = 48;   // of one block
constexpr int32_t kMaxBlock = 64;       // instructions of one block
constexpr int32_t kMaxWidth = 1 << 24;  // columns, and rows of a weight: a row of float32 is 64 MB

// Throws std::invalid_argument, which names the instruction and the rule it breaks. A valid program can be
// played on any B and T without a further check.
void validate(const Program& program);

// A program from integers, in the order of program/layout.h, and one scalar an instruction. Throws
// std::invalid_argument where they end early, go on, or do not fit; what the program means is validate's to
// check.
Program read_program(const std::vector<int64_t>& values, const std::vector<double>& scalars);

}  // namespace ostinato
