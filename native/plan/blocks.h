// A block as it is played.
#pragma once
#include <cstdint>
#include <vector>

#include "program/program.h"

namespace ostinato {

constexpr int64_t kStrip = 128, kLongestStrip = 512;  // columns of a strip, in rows of one stride
constexpr int64_t kRegisters = 2 * kMaxRegisters * kStrip;  // elements of all registers of a thread
constexpr int64_t kNearStrips = 1 << 15;  // bytes, at most, of those of all operands that a block uses again

// Operations find their operands in a table: the streams, each place in memory once, then the registers.
struct Block {
  struct Stream { Operand operand; bool one_column; };  // one column: what kBroadcast reads
  struct Step {
    int32_t kernel;  // an Op
    double s;
    int16_t which[4];  // a, b, c and d in the table
  };
  int64_t width = 0, strip = kStrip;
  int n_registers = 0;
  std::vector<Stream> streams;
  std::vector<Step> steps;

  Block() = default;
  Block(const Instruction* head, int64_t item);  // item: bytes of an element

 private:
  int16_t find(const Operand& o, bool one_column = false);
  void renumber_registers();
  int64_t operands_used_again() const;
  bool join_reader(size_t first);
  bool overlap(int16_t x, int16_t y) const;
};

}  // namespace ostinato
