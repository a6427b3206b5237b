// A block as it is played: pairs of operations joined, operands numbered, the strip chosen.
#pragma once
#include <cstdint>
#include <vector>

#include "program/program.h"
#include "tuning.h"

namespace ostinato {

// Elements of all registers of a thread: 48 registers of twice the usual strip.
constexpr int64_t kRegisterElements = 2 * kMaxRegisters * kStrip;

// Operations find their operands in a table: first the streams, which are operands in memory, each once;
// then the registers.
struct BlockPlan {
  static constexpr int32_t kSpreads = -1, kFolds = -2, kOnFibres = -3;
  struct Stream {
    Operand operand;
    // The operand does not move on with the strips: kBroadcast reads it, or it is a folded sum's result.
    bool whole;
  };
  // The place of an operand's fibres: the strip at `column` begins with its number column / block · inner.
  // block = 0: the operand is not spread, and moves on with the strips.
  struct FibresOf {
    int32_t step = 0, block = 0, inner = 0;  // step: see Fibres
  };
  struct Operation {
    int32_t kernel;  // an Op, of one operation or of a pair; kSpreads, kFolds or kOnFibres, which know axes
    double s;
    int16_t which[4];  // places of a, b, c and d in the table
    Axis axis = {1, 1};  // of kSpreads and kFolds
    // Columns of a fibre, of kOnFibres and of kFolds that sums a · b; 0: of no other.
    int32_t fibre = 0;
    int32_t number = 0, scalars = 0;  // of kOnFibres: on_fibres[number][scalars]
    FibresOf fibres[3] = {};
    int arity() const;
  };
  int64_t width = 0, strip = kStrip;  // width is a multiple of strip where an operation on fibres is played
  int n_registers = 0;
  int32_t n_folded = 0;  // instructions behind the block that it plays
  int32_t n_with_axes = 0;  // operations that know axes
  std::vector<Stream> streams;
  std::vector<Operation> operations;

  BlockPlan() = default;
  BlockPlan(const Instruction* head, int64_t item);  // item: bytes of an element
  // A plan for whole rows. It also plays the sums over an axis behind the block, if they sum values that the
  // block computes: each strip is added up while it is in L1. Operands that are spread over an axis are read
  // where they lie, if there is such a kernel. end: of the section.
  static BlockPlan with_sums(const Program& program, int32_t head, int32_t end, int64_t item);

 private:
  enum class Columns { kAny, kWholeRows };
  BlockPlan(const std::vector<Instruction>& instructions, int32_t n_sums, int64_t unit, int64_t item,
            Columns columns);
  int16_t find(const Operand& o, bool whole = false);
  void renumber_registers();
  int64_t operands_used_again() const;
  int readers(size_t operation) const;
  bool join_reader(size_t first);
  // plan/fused.cc
  struct Match;
  bool computes(const struct Expression& x, size_t operation, Match& match) const;
  bool is_value_of(const struct Expression& x, int16_t which, size_t reader, Match& match) const;
  bool stays(const Match& match, size_t root) const;
  bool fuse(size_t& root);
  bool overlap(int16_t x, int16_t y) const;
};

}  // namespace ostinato
