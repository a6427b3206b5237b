// Plays a program over time.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plan/column_sharing.h"
#include "program/program.h"
#include "plan/sum_sharing.h"
#include "play/workspaces.h"

namespace ostinato {

// Where an argument lies, in elements. Kind::kTime: element (slot, row, column) = data[slot · time +
// row · row + column]. Kind::kTape: rows of `row` elements. A matrix: data[i · time + j · row]. A vector
// or [B, width]: row is its row stride. A carry's first and last may be null: it begins with zeros, the
// last one is not wanted.
struct Argument {
  void* data;
  int64_t time, row;
};

struct Play {
  int64_t T = 0, B = 0;
  const Argument* arguments = nullptr;
  // [B]: row r of the engine's own buffers is row rows[r] of the arguments; null: the same order.
  const int64_t* rows = nullptr;
  const int64_t* lengths = nullptr;  // [B], of the engine's rows, descending within each group; null: all T
  int threads = 1;  // what lies on a tape is where it was only for the same number
  int64_t worth = 0;  // work on a step for which a further thread joins a single group; 0: as measured
  std::string isa;
};

// Rows are played in groups that depend on B alone: the sums of weight gradients are taken group by
// group, then of pairs of groups, of pairs of pairs, …, so that threads cannot change their bits.
// Buffer rows of group g: group_begin(B, g) … group_begin(B, g + 1).
int64_t n_groups(int64_t B);
inline int64_t group_begin(int64_t B, int64_t g) { return B * g / n_groups(B); }

struct Block;

template <class T> class Executor {
 public:
  Executor(Program program, Workspaces& workspaces);
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;
  ~Executor();
  void play(const Play& play);
  int32_t n_arguments() const { return program_.n_arguments; }
  int64_t needed_bytes(const Play& play) const;  // the engine's own, whatever the arguments are

 private:
  Program program_;
  std::vector<Block> blocks_;  // of the instruction with the same index, where that begins a block
  Columns columns_;
  Sums sums_;
  std::vector<Operand> over_time_;  // what the loop reads and writes, of each buffer the last slot
  std::vector<int> lists_;     // how many lists of rows the instructions before each need; of all, last
  Workspaces& workspaces_;
};

}  // namespace ostinato
