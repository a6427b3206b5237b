// A play that Python asks for: checked, and without the GIL.
#pragma once
#include <nanobind/nanobind.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "play/executor.h"
#include "python/arguments.h"

namespace ostinato {

inline std::atomic<int64_t> engine_ns{0};  // that the engine has played since the process began

// A call's steps and rows. The order and the lengths of the engine's rows are empty where they are the
// caller's order, and where all rows have all steps.
struct CallShape {
  int64_t n_steps, n_rows;
  Integers order, lengths;
  int64_t unit_rows = 1;  // see PlayRequest
  bool sums_by_unit = false;
};

inline void check(const CallShape& shape) {
  if (shape.n_steps < 1 || shape.n_rows < 1)
    throw std::invalid_argument("play: wanted at least one step and one row");
  for (const Integers* list : {&shape.order, &shape.lengths})
    if (!list->empty() && int64_t(list->size()) != shape.n_rows)
      throw std::invalid_argument("play: rows and lengths need one number for each row");
  const int64_t unit = shape.unit_rows;
  if (unit < 1 || shape.n_rows % unit || (unit > 1 && shape.n_rows / unit < n_groups(shape.n_rows)))
    throw std::invalid_argument("play: wanted rows that are whole units, as many as there are groups");
  if (shape.sums_by_unit && !(shape.order.empty() && shape.lengths.empty()))
    throw std::invalid_argument("play: sums by unit are of rows in order that all have all steps");
  for (int64_t row : shape.order)
    if (row < 0 || row >= shape.n_rows) throw std::invalid_argument("play: rows has a number out of range");
  for (int64_t length : shape.lengths)
    if (length < 0 || length > shape.n_steps)
      throw std::invalid_argument("play: lengths has a number out of range");
}

// The tier of a name; null: the cheapest.
inline Tier tier_of(const char* name) {
  if (!name) return Tier::kCheapest;
  if (std::string(name) == "interpreter") return Tier::kInterpreter;
  if (std::string(name) == "registers") return Tier::kRegisters;
  if (std::string(name) == "machine_code") return Tier::kMachineCode;
  throw std::invalid_argument("OSTINATO_TIER: wanted `interpreter`, `registers` or `machine_code`");
}
inline Tier tier_of_process() {
  static const Tier tier = tier_of(std::getenv("OSTINATO_TIER"));
  return tier;
}

// What compiles a program to machine code: f(program, at_once), see engine/machine_code/. It outlives the
// interpreter.
inline nanobind::object& compiler() {
  static auto* const found = new nanobind::object(nanobind::none());
  return *found;
}
template <class T> void ask_for_machine_code(Executor<T>& executor, const PlayRequest& request) {
  if (compiler().is_none() || !executor.asks_for_machine_code(request)) return;
  compiler()(nanobind::find(executor), request.tier == Tier::kMachineCode);
}

template <class T>
void call_engine(Executor<T>& executor, const std::vector<Argument>& arguments, const CallShape& shape,
                 int threads, const std::string& isa, int64_t work_per_thread = 0,
                 const Segment* segment = nullptr, Tier tier = tier_of_process()) {
  if (int64_t(arguments.size()) != executor.n_arguments())
    throw std::invalid_argument("play: wanted " + std::to_string(executor.n_arguments()) + " arguments");
  if (work_per_thread < 0)
    throw std::invalid_argument("play: work_per_thread is 1 or more, or 0: as measured");
  check(shape);
  PlayRequest request;
  request.T = shape.n_steps;
  request.B = shape.n_rows;
  request.arguments = arguments.data();
  request.unit_rows = shape.unit_rows;
  request.sums_by_unit = shape.sums_by_unit;
  request.threads = threads;
  request.work_per_thread = work_per_thread;
  request.isa = isa;
  request.segment = segment;
  request.tier = tier;
  if (!shape.order.empty()) request.rows = shape.order.data();
  if (!shape.lengths.empty()) request.lengths = shape.lengths.data();
  ask_for_machine_code(executor, request);
  nanobind::gil_scoped_release release;
  const auto begin = std::chrono::steady_clock::now();
  executor.play(request);
  engine_ns += std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace ostinato
