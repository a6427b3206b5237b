// What a caller asks of one play of a program.
#pragma once
#include <cstdint>
#include <string>

#include "tuning.h"

namespace ostinato {

// The memory of an argument; strides are in elements, and their meaning depends on its use in the program:
//   over time (Kind::kTime)     element (slot, r, column) = data[slot · time + r · row + column]
//   tape (Kind::kTape)          rows of `row` elements, in an order of the engine's own
//   weight                      element (i, j) = data[i · time + j · row]
//   gradient                    element (i, j) = data[i · time + j]; that of unit u begins at data[u · row],
//                               if units have sums of their own
//   vector                      dense, [width]
//   init and final of a carry   [B, width]: element (r, column) = data[r · row + column].
//                               data = null: the carry begins with zeros; the last carry is not wanted
struct Argument {
  void* data;
  int64_t time, row;
};

// One run may be played in segments of consecutive steps, in playing order, one play each. The sums of weight
// gradients go on from segment to segment. An element of a group's sum with one term is one chain of
// additions, whatever the chunks and the segments are; a sum of several terms is added term by term within a
// chunk, and a sum of products in lanes, so that no segment may divide a chunk. Then the bits are those of a
// single play.
struct Segment {
  int64_t run_steps = 0;           // T of the whole run
  void* accumulators = nullptr;    // Executor::accumulator_bytes, which one segment leaves to the next
  bool first = true, last = true;  // in playing order
};

// How a program is played. The bits are the same, so the choice is one of time.
enum class Tier {
  kCheapest,
  kInterpreter,
  kRegisters,    // register code where it is possible
  kMachineCode,  // the same as machine code, which is compiled at the first play
};

struct PlayRequest {
  int64_t T = 0, B = 0;
  const Argument* arguments = nullptr;  // [n_arguments]
  // [B], or null. The engine plays rows in an order of its own: its row r is row rows[r] of the arguments.
  const int64_t* rows = nullptr;
  // [B], or null: all rows have T steps. Of the engine's rows, falling within each group.
  const int64_t* lengths = nullptr;
  // At most. What a program wrote to a tape can only be read with the same number of threads.
  int threads = 1;
  // The work of a step (see kWorkPerBarrierNs) from which one more thread shares the columns of a single
  // group; 0: from what a barrier costs now, as measured.
  int64_t work_per_thread = 0;
  // The batch consists of units of so many consecutive rows, which no group divides. A tape can only be read
  // with the same units.
  int64_t unit_rows = 1;
  // If set, weight gradients are summed for each unit, not over the batch. Units are then the groups of a
  // play; a thread plays the same rows as otherwise. Not with rows, lengths or segments.
  bool sums_by_unit = false;
  std::string isa;
  const Segment* segment = nullptr;  // null: this play is the whole run
  Tier tier = Tier::kCheapest;
};

// Rows are played in groups. The sums of weight gradients are taken group by group, then of pairs of groups,
// of pairs of pairs, and so on: since the groups depend on B alone, no number of threads changes their bits.
// The number of groups is a power of two, as the number of threads mostly is: each then has equally many.
inline int64_t n_groups(int64_t B) {
  int64_t n = 1;
  while (n < kMaxGroups && 2 * n * kGroupRows <= B) n *= 2;
  return n;
}
inline int64_t group_begin(int64_t B, int64_t group, int64_t unit_rows) {
  return B / unit_rows * group / n_groups(B) * unit_rows;
}

}  // namespace ostinato
