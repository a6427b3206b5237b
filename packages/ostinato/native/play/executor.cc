// The time loop. Schedule of a play, on each thread:
//   prepare   pack a share of the weights · clear accumulators · `once` · load carries
//   barrier
//   play      chunk by chunk: slab.h; or column_slab.h where threads share the columns of a single group
//             store carries · add up the pairs of groups that lie in the slab
//   barrier   if the program has gradients
//   sum       a share of the late gradients, and of the sums of groups: weight_grads.h
// Vocabulary: group (request.h); slab, part, player, chunk (session.h); window, span (rows.h).
//
// The parts of the executor are headers with internal linkage, which only this file includes: in one
// translation unit GCC inlines a function that is called once.
#include "play/executor.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "kernels/dispatch.h"
#include "play/column_slab.h"
#include "play/float_environment.h"
#include "play/memory_plan.h"
#include "play/pack.h"
#include "play/register_play.h"
#include "play/session.h"
#include "play/slab.h"
#include "play/weight_grads.h"

namespace ostinato {
namespace {

// ---- The schedule

template <class T> void prepare(Worker<T>& worker) {
  pack_weights(worker);
  clear_accumulators(worker);
  if (worker.share == 0) play_once(worker);
  if (worker.leads()) load_carries(worker);
}
template <class T> void play_all_steps(Worker<T>& worker) {
  const int64_t T_steps = worker.T_steps, chunk = worker.session.chunk,
                n_chunks = (T_steps + chunk - 1) / chunk;
  for (int64_t i = 0; i < n_chunks; i++) {
    const int64_t begin = (worker.program.descending ? n_chunks - 1 - i : i) * chunk;
    const Range steps{begin, std::min(T_steps, begin + chunk)};
    if (worker.session.n_parts > 1) {
      play_chunk_by_columns(worker, steps);
    } else {
      play_chunk(worker, steps);
    }
  }
  if (worker.leads()) store_carries(worker);
  sum_own_groups(worker);
}
template <class T> void sum_gradients(Worker<T>& worker) {
  sum_late_gradients(worker);
  sum_groups(worker);
}

template <class T> void run_thread(void* context, int id, int n_threads) noexcept {
  FloatEnvironment environment;
  Session<T>& s = *static_cast<Session<T>*>(context);
  const auto on_each_slab = [&](auto stage) {
    if (s.n_parts > 1) {
      Worker<T> worker(s, 0, id, n_threads);
      return stage(worker);
    }
    for (int64_t slab = id; slab < s.n_slabs; slab += n_threads) {
      Worker<T> worker(s, slab, slab, s.n_slabs);
      stage(worker);
    }
  };
  on_each_slab([](Worker<T>& worker) { prepare(worker); });
  s.barrier.wait(id, n_threads);
  on_each_slab([](Worker<T>& worker) { play_all_steps(worker); });
  if (s.plan.program.gradients.empty()) return;
  s.barrier.wait(id, n_threads);
  on_each_slab([](Worker<T>& worker) { sum_gradients(worker); });
}

// ---- How many threads share the columns of a step

int64_t most_parts(const ColumnSharing& columns, const PlayRequest& request) {
  if (columns.stages.empty() || n_groups(request.B) > 1) return 1;
  return std::max(1, std::min(request.threads, kMaxGroups));
}
int64_t choose_parts(const ColumnSharing& columns, const PlayRequest& request) {
  const int64_t most = most_parts(columns, request);
  if (most == 1) return 1;
  const bool measured = request.work_per_thread == 0;
  const double B = double(request.B), work = columns.weights * (B + 2) + columns.products * B;  // of a step
  if (measured && work * double(request.T) + kPackWork * columns.weights < kLeastSharedWork) return 1;
  const double per_thread =
      measured ? kWorkPerBarrierNs * barrier_ns(int(most)) : double(request.work_per_thread);
  const double pays = work / per_thread / double(std::max<int64_t>(1, columns.barriers));
  return pays < double(most) ? std::max<int64_t>(1, int64_t(pays)) : most;
}

// ---- The workspace, cut as planned

// Where a slab finds each buffer: at the caller's, among the locals, or in its own memory.
template <class T>
void add_placements(Session<T>& s, const MemoryPlan<T>& plan, int64_t slab, T* locals, T* memory) {
  const int64_t first = s.begins[s.first_group(slab)], n = plan.rows_of_slab(slab);
  const int64_t* const order = s.request.rows;
  for (size_t i = 0; i < s.plan.program.buffers.size(); i++) {
    const Buffer& b = s.plan.program.buffers[i];
    const int64_t row = padded(b.width), slots = plan.slots(i);
    const bool callers = b.kind == Kind::kTime || b.kind == Kind::kVector || b.kind == Kind::kTape;
    const Argument a = callers ? s.request.arguments[b.argument] : Argument{};
    T* const data = static_cast<T*>(a.data);
    switch (b.kind) {
      case Kind::kTime: s.placements.push_back({data, a.time, a.row, 0, order}); break;
      case Kind::kVector: s.placements.push_back({data, 0, 0, 0, nullptr}); break;
      case Kind::kTape: {  // slab after slab, each dense
        T* const begin = data + first * (s.request.T + b.extra - 1) * a.row;
        s.placements.push_back({begin, n * a.row, a.row, 0, nullptr});
        break;
      }
      case Kind::kLocal: s.placements.push_back({locals, 0, 0, 0, nullptr}); break;
      default: {
        const bool wraps = slots > 1 && (b.kind == Kind::kPair || slots < s.request.T);
        s.placements.push_back(
            {memory - first * row, slots == 1 ? 0 : n * row, row, wraps ? slots : 0, nullptr});
      }
    }
    locals += plan.local(i);
    memory += n * plan.buffer_of_a_row(i);
  }
}
template <class T> void add_accumulators(Session<T>& s, const MemoryPlan<T>& plan, int64_t slab, T* memory) {
  for (size_t i = 0; i < s.plan.program.gradients.size(); i++) {
    if (!plan.accumulated(i)) continue;
    const Gradient& x = s.plan.program.gradients[i];
    for (int64_t g = s.first_group(slab); g < s.first_group(slab + 1); g++) {
      const Rows<T> own{memory, x.N};
      s.accumulators[i].push_back(plan.in_result(i, g) ? result_of<T>(x, s.request, g) : own);
      memory += plan.accumulator(i, g);
    }
  }
}
template <class T> void add_player(Session<T>& s, const MemoryPlan<T>& plan, char*& at) {
  const int64_t n_lists = s.plan.n_lists, rows_of_a_list = plan.rows_of_a_list();
  T* const registers = piece<T>(at, plan.registers());
  T* const product = piece<T>(at, plan.product());
  T* const panels = piece<T>(at, plan.panels());
  RowCache<T>* const row_lists = piece<RowCache<T>>(at, n_lists);
  T** const rows = piece<T*>(at, n_lists * rows_of_a_list);
  for (int64_t i = 0; i < n_lists; i++) row_lists[i] = {rows + i * rows_of_a_list};
  s.memory.push_back({registers, row_lists, product, panels});
}
template <class T> void place_packed_weights(Session<T>& s, const MemoryPlan<T>& plan, T* memory) {
  for (size_t i = 0; i < s.plan.program.weights.size(); i++) {
    s.packed.push_back(memory);
    memory += plan.weight(i);
  }
  for (const ColumnSharing::Stage& stage : s.columns.stages)
    for (int64_t part = 0; part < s.n_parts; part++) {
      s.packed_parts.push_back(memory);
      memory += plan.weight_part(stage, part);
    }
}
template <class T> void place_all(Session<T>& s, const MemoryPlan<T>& plan, Workspace& workspace) {
  char* at = workspace.reserve(plan.bytes());
  T* const locals = piece<T>(at, plan.locals());
  place_packed_weights(s, plan, piece<T>(at, plan.weights()));
  s.accumulators.resize(s.plan.program.gradients.size());
  char* handed_on = s.request.segment ? static_cast<char*>(s.request.segment->accumulators) : nullptr;
  for (int64_t player = 0; player < plan.n_players(); player++) {
    at += kThreadGapBytes;
    if (player < s.n_slabs) {
      add_accumulators(s, plan, player, piece<T>(handed_on ? handed_on : at, plan.accumulators(player)));
      if (handed_on) handed_on += kThreadGapBytes;
      add_placements(s, plan, player, locals, piece<T>(at, plan.buffers(player)));
    }
    add_player(s, plan, at);
  }
}

int32_t end_of_section(const Program& program, size_t instruction) {
  for (const Section* s : {&program.once, &program.before, &program.loop})
    if (int64_t(instruction) < s->end) return s->end;
  return program.after.end;
}

// Operands of which an instruction reads all rows of a window at once.
int n_operands_over_rows(Code code) {
  switch (code) {
    case Code::kGemm: return 3;
    case Code::kOuter:
    case Code::kProductSum: return 2;
    case Code::kColumnSum: return 1;
    default: return 0;
  }
}

// ---- Register code

bool can_play_registers(const PlannedProgram& plan, const PlayRequest& request) {
  return plan.registers && n_groups(request.B) == 1 && !request.rows && !request.lengths &&
         !request.segment && !request.sums_by_unit;
}
bool compiling_pays(const PlannedProgram& plan, const PlayRequest& request) {
  if (!can_play_registers(plan, request)) return false;
  if (request.tier != Tier::kCheapest) return request.tier == Tier::kMachineCode;
  return plan.registers->cost.machine_code_is_faster(request.B);
}
// The steps after which late terms are summed: the interpreter's chunks.
template <class T>
int64_t register_chunk(const PlannedProgram& plan, const PlayRequest& request, const Kernels<T>& kernels) {
  return MemoryPlan<T>(plan, request, 1, kernels).chunk();
}
template <class T>
int64_t register_bytes(const PlannedProgram& plan, const PlayRequest& request, const Kernels<T>& kernels) {
  const int64_t chunk = register_chunk(plan, request, kernels);
  return RegisterMemory(*plan.registers, request.B, chunk).template bytes<T>();
}

}  // namespace

PlannedProgram::PlannedProgram(Program unchecked, int64_t item) : program(std::move(unchecked)) {
  validate(program);
  within = WithinRows(program);
  columns = find_column_sharing(program);
  sums = find_sum_sharing(program);
  streamed = streamed_operands(program);
  blocks.resize(program.instructions.size());
  blocks_with_sums.resize(program.instructions.size());
  for (size_t i = 0; i < blocks.size(); i++) {
    const Code code = program.instructions[i].code;
    if (code == Code::kBlock) {
      blocks[i] = BlockPlan(&program.instructions[i], item);
      blocks_with_sums[i] = BlockPlan::with_sums(program, int32_t(i), end_of_section(program, i), item);
    }
    first_list.push_back(n_lists);
    n_lists += n_operands_over_rows(code);
  }
  registers = find_register_code(program, item == sizeof(double));
}

template <class T> void Executor<T>::use_machine_code(MachineCode<T> code) {
  if (!plan_.registers || kept_code_ || code.late_terms.size() != plan_.registers->late_terms.size())
    throw std::invalid_argument("machine code: wanted one function for each list of register code, once");
  kept_code_ = std::make_unique<const MachineCode<T>>(std::move(code));
  machine_code_.store(kept_code_.get(), std::memory_order_release);
}
template <class T> bool Executor<T>::asks_for_machine_code(const PlayRequest& request) {
  if (asked_.load(std::memory_order_relaxed) || !compiling_pays(plan_, request)) return false;
  if (request.tier == Tier::kCheapest && compilable_ns_ < kCompileAfterNs) return false;
  return !asked_.exchange(true);
}
template <class T> const MachineCode<T>* Executor<T>::machine_code(const PlayRequest& request) const {
  return compiling_pays(plan_, request) ? machine_code_.load(std::memory_order_acquire) : nullptr;
}
template <class T> bool Executor<T>::plays_registers(const PlayRequest& request) const {
  if (!can_play_registers(plan_, request) || request.tier == Tier::kInterpreter) return false;
  return request.tier == Tier::kRegisters || plan_.registers->cost.registers_are_faster(request.B);
}
template <class T> const char* Executor<T>::played_as(const PlayRequest& request) const {
  if (machine_code(request)) return "machine code";
  return plays_registers(request) ? "register code" : "interpreter";
}

template <class T> int64_t Executor<T>::needed_bytes(const PlayRequest& request) const {
  const Kernels<T>& kernels = ostinato::kernels<T>(request.isa);
  if (machine_code(request) || plays_registers(request)) return register_bytes(plan_, request, kernels);
  const auto bytes = [&](int64_t n_parts) { return MemoryPlan<T>(plan_, request, n_parts, kernels).bytes(); };
  if (request.work_per_thread > 0) return bytes(choose_parts(plan_.columns, request));
  int64_t most = 0;  // how many parts there are will be known when it is measured
  for (int64_t n_parts = most_parts(plan_.columns, request); n_parts > 0; n_parts--)
    most = std::max(most, bytes(n_parts));
  return most;
}

template <class T> int64_t Executor<T>::accumulator_bytes(const PlayRequest& request) const {
  return MemoryPlan<T>(plan_, request, 1, ostinato::kernels<T>(request.isa)).accumulator_bytes();
}

template <class T> int64_t Executor<T>::chunk_steps(const PlayRequest& request) const {
  return MemoryPlan<T>(plan_, request, 1, ostinato::kernels<T>(request.isa)).whole_chunks();
}

template <class T> void Executor<T>::play(const PlayRequest& request) {
  if (asked_.load(std::memory_order_relaxed) || !compiling_pays(plan_, request)) return play_once(request);
  const auto begin = std::chrono::steady_clock::now();
  play_once(request);
  compilable_ns_ += std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
}

template <class T> void Executor<T>::play_once(const PlayRequest& request) {
  const Kernels<T>& kernels = ostinato::kernels<T>(request.isa);
  const MachineCode<T>* const compiled = machine_code(request);
  if (compiled || plays_registers(request)) {
    std::unique_ptr<Workspace> workspace = workspaces_.take();
    char* const memory = workspace->reserve(register_bytes(plan_, request, kernels));
    const int64_t chunk = register_chunk(plan_, request, kernels);
    RegisterPlay<T>(plan_.program, *plan_.registers, request, kernels, compiled, chunk, memory).run();
    return workspaces_.give(std::move(workspace));
  }
  const MemoryPlan<T> plan(plan_, request, choose_parts(plan_.columns, request), kernels);
  Session<T> s{plan_,
               request,
               kernels,
               plan.columns(),
               loop_depth(plan_.program, kernels.panel),
               plan.n_slabs(),
               plan.n_parts(),
               plan.chunk(),
               plan.n_groups(),
               plan.loop_groups(),
               plan.far(),
               plan.near_weights(),
               plan.single_use()};
  s.begins.reserve(s.n_groups + 1);
  s.first_groups.reserve(s.n_slabs + 1);
  for (int64_t g = 0; g <= s.n_groups; g++) s.begins.push_back(plan.group_begin(g));
  for (int64_t slab = 0; slab <= s.n_slabs; slab++) s.first_groups.push_back(plan.first_group(slab));
  std::unique_ptr<Workspace> workspace = workspaces_.take();
  place_all(s, plan, *workspace);
  parallel(int(plan.n_players()), run_thread<T>, &s);
  workspaces_.give(std::move(workspace));
}

template class Executor<float>;
template class Executor<double>;

}  // namespace ostinato
