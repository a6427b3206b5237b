// Plays a program over time.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "plan/blocks.h"
#include "plan/column_sharing.h"
#include "plan/look_ahead.h"
#include "plan/register_code.h"
#include "plan/sum_sharing.h"
#include "play/machine_code.h"
#include "play/request.h"
#include "play/within_rows.h"
#include "play/workspaces.h"
#include "program/program.h"

namespace ostinato {

// A validated program with all that can be planned before T and B are known.
struct PlannedProgram {
  PlannedProgram(Program unchecked, int64_t item);  // item: bytes of an element

  Program program;
  std::vector<BlockPlan> blocks;  // by instruction; empty where that does not begin a block
  // The same, with the sums behind each block: for a thread that plays whole rows.
  std::vector<BlockPlan> blocks_with_sums;
  WithinRows within;
  ColumnSharing columns;
  SumSharing sums;
  std::vector<Operand> streamed;  // see streamed_operands
  std::vector<int> first_list;    // by instruction: its first list of rows (see RowCache)
  int n_lists = 0;
  std::optional<RegisterCode> registers;  // none: the interpreter alone plays it
};

template <class T> class Executor {
 public:
  Executor(Program program, Workspaces& workspaces)
      : plan_(std::move(program), sizeof(T)), workspaces_(workspaces) {}
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  void play(const PlayRequest& request);
  int64_t needed_bytes(const PlayRequest& request) const;  // of workspace, at most
  int64_t accumulator_bytes(const PlayRequest& request) const;  // see Segment
  int64_t chunk_steps(const PlayRequest& request) const;        // see MemoryPlan::whole_chunks
  const RegisterCode* register_code() const { return plan_.registers ? &*plan_.registers : nullptr; }
  const char* played_as(const PlayRequest& request) const;

  // The register code as machine code, which must stay callable as long as the executor. Once at most.
  void use_machine_code(MachineCode<T> code);
  // True once: when plays that machine code would shorten have taken as long as compiling it is worth.
  bool asks_for_machine_code(const PlayRequest& request);
  int32_t n_arguments() const { return plan_.program.n_arguments; }

 private:
  const MachineCode<T>* machine_code(const PlayRequest& request) const;
  bool plays_registers(const PlayRequest& request) const;
  void play_once(const PlayRequest& request);

  const PlannedProgram plan_;
  Workspaces& workspaces_;
  std::unique_ptr<const MachineCode<T>> kept_code_;
  std::atomic<const MachineCode<T>*> machine_code_{nullptr};  // of kept_code_, for plays on other threads
  std::atomic<int64_t> compilable_ns_{0};                     // plays that machine code would shorten
  std::atomic<bool> asked_{false};
};

}  // namespace ostinato
