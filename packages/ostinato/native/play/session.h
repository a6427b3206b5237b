// What all threads of one play share.
//
//   group    of rows: see request.h. If units have sums of their own, these are the groups of a play
//   slab     consecutive groups, played from the first step to the last by one thread
//   part     some columns of a step. Where a single group is played by several threads, each plays parts
//   player   whoever has memory of its own: a slab, or a thread that plays parts
//   chunk    the steps between two visits to `before` and `after`: see kChunkRows
// There are as many slabs, or as many parts, as threads were asked for, at most. If the runtime gives fewer
// threads, each plays several.
#pragma once
#include <vector>

#include "kernels/kernels.h"
#include "play/executor.h"
#include "play/threads.h"

namespace ostinato {

// Where a slab finds a buffer: element (slot, r, column) = data[slot · time + r · row + column].
template <class T> struct Placement {
  T* data;
  int64_t time, row;
  int64_t n_slots;      // slots are used again after so many steps; 0: every step has its own
  const int64_t* rows;  // of an argument in the caller's order: PlayRequest::rows; else null
};

// A list of where the rows of one operand begin, over some steps. Each operand of each slab has one. If all
// rows live to the end and keep the engine's order, a list for as many rows and steps differs from the one
// before by one offset, and is not made again.
template <class T> struct RowCache {
  T** rows = nullptr;   // in the workspace, because on the threads of a play no allocation may fail
  T* origin = nullptr;  // where the first row began when the list was made
  int64_t n_rows = 0, n_steps = 0;
  int64_t phase = 0;  // slot of the first step, where slots are used again: lists wrap by it
};

template <class T> struct Session {
  const PlannedProgram& plan;
  const PlayRequest& request;
  const Kernels<T>& kernels;
  const ColumnSharing& columns;  // without stages where threads do not share columns
  int64_t depth;                 // see loop_depth
  int64_t n_slabs, n_parts;      // one of them is 1
  int64_t chunk, n_groups;
  int64_t loop_groups;  // played together in the loop
  bool far;             // whether more is read and written over time than the caches hold
  bool near_weights;    // whether the weights stay in L2
  bool single_use;      // whether each weight multiplies a few rows, once

  // What a player has for itself.
  struct PlayerMemory {
    T* registers;            // then the scratch of outer products
    RowCache<T>* row_lists;  // [n_lists]
    T* product;              // a part's result of several pieces
    T* panel;                // of each factor, where weights are used once
  };
  std::vector<PlayerMemory> memory = {};      // by player
  std::vector<Placement<T>> placements = {};  // by slab, then by buffer
  std::vector<T*> packed = {};                // by weight
  std::vector<T*> packed_parts = {};          // by stage of the shared columns, then by part
  // By gradient, then by group; none if the gradient is summed late or copied.
  std::vector<std::vector<Rows<T>>> accumulators = {};
  std::vector<int64_t> begins = {};        // the first row of each group, and the end
  std::vector<int64_t> first_groups = {};  // of each slab, and the end
  Barrier barrier = {};

  int64_t first_group(int64_t slab) const { return first_groups[slab]; }
};

template <class T> Rows<T> result_of(const Gradient& g, const PlayRequest& request, int64_t unit = 0) {
  const Argument& a = request.arguments[g.argument];
  return {static_cast<T*>(a.data) + (request.sums_by_unit ? unit * a.row : 0), a.time};
}

}  // namespace ostinato
