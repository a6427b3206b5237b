// A slab, played by one thread. Schedule of a chunk of steps:
//   before       all rows of the chunk at once
//   loop         some groups at a time, step by step; each step prefetches the next one's rows
//   after        group by group, so that each sum over a chunk reads rows that are near
#pragma once
#include <algorithm>
#include <cstring>

#include "play/instructions.h"
#include "play/rows.h"

namespace ostinato {
namespace {

// ---- Carries

// f(carry, the engine's row, the caller's row)
template <class T, class F> void for_carries(const Worker<T>& worker, F f) {
  const int64_t *begins = worker.session.begins.data(), *order = worker.request.rows;
  for (const Carry& c : worker.program.carries)
    for (int64_t r = begins[worker.groups.begin]; r < begins[worker.groups.end]; r++)
      f(c, r, order ? order[r] : r);
}
template <class T> bool is_given(const Worker<T>& worker, int32_t argument) {
  return argument != -1 && worker.request.arguments[argument].data;
}
template <class T> T* row_of_argument(const Worker<T>& worker, int32_t argument, int64_t row) {
  const Argument& a = worker.request.arguments[argument];
  return static_cast<T*>(a.data) + row * a.row;
}
template <class T> void load_carries(const Worker<T>& worker) {
  for_carries(worker, [&](const Carry& c, int64_t r, int64_t callers_row) {
    T* const slot = worker.address({c.buffer, 0, 0}, worker.program.descending ? worker.length(r) : 0, r);
    const int64_t bytes = sizeof(T) * worker.program.buffers[c.buffer].width;
    if (is_given(worker, c.init)) {
      std::memcpy(slot, row_of_argument(worker, c.init, callers_row), bytes);
    } else {
      std::memset(slot, 0, bytes);
    }
  });
}
template <class T> void store_carries(const Worker<T>& worker) {
  for_carries(worker, [&](const Carry& c, int64_t r, int64_t callers_row) {
    if (!is_given(worker, c.final)) return;
    const T* const slot =
        worker.address({c.buffer, 0, 0}, worker.program.descending ? 0 : worker.length(r), r);
    std::memcpy(row_of_argument(worker, c.final, callers_row), slot,
                sizeof(T) * worker.program.buffers[c.buffer].width);
  });
}

// ---- Chunks

// Has the products of step t prefetch the rows that the next step reads and writes for the first time. The
// processor's own prefetchers miss them, because the code of one kernel serves all operands in turn. Where
// threads share columns nothing is gained: another thread is about to write to the same lines.
template <class T> void look_ahead(Worker<T>& worker, Range groups, int64_t t) {
  const Session<T>& s = worker.session;
  const int64_t next = worker.program.descending ? t - 1 : t + 1;
  if (!s.far || next < 0 || next >= worker.T_steps) return;
  worker.prefetcher.clear();
  worker.find_spans(groups, next);
  for (const Operand& o : s.plan.streamed) {
    const Placement<T>& p = worker.placement(o);
    const int64_t bytes = worker.program.buffers[o.buffer].width * int64_t(sizeof(T));
    const int64_t row_bytes = p.row * int64_t(sizeof(T));
    const bool dense =
        !p.rows && row_bytes >= bytes && row_bytes < bytes + kLineBytes;  // no line between rows
    worker.for_spans([&](Range span) {
      if (dense) {
        const int64_t n = span.end - span.begin;
        return worker.prefetcher.add(worker.address(o, next, span.begin), n * row_bytes);
      }
      for (int64_t r = span.begin; r < span.end; r++)
        worker.prefetcher.add(worker.address(o, next, r), bytes);
    });
  }
  const int64_t n_rows = s.begins[groups.end] - s.begins[groups.begin];
  worker.prefetcher.begin(s.depth * ((n_rows + kTileRows - 1) / kTileRows));
}

template <class T> void play_chunk(Worker<T>& worker, Range steps) {
  const Program& program = worker.program;
  play_section(worker, program.before, {worker.groups, steps});
  const int64_t together = worker.session.loop_groups;
  for (int64_t g = worker.groups.begin; g < worker.groups.end; g += together) {
    const Range groups{g, std::min(g + together, worker.groups.end)};
    worker.for_steps(steps, [&](int64_t t) {
      look_ahead(worker, groups, t);
      play_section(worker, program.loop, {groups, {t, t + 1}});
      worker.prefetcher.fetch_rest();
    });
  }
  if (program.after.begin == program.after.end) return;
  for (int64_t g = worker.groups.begin; g < worker.groups.end; g++) {
    clear_before_first_chunk(worker, g, steps);
    play_section(worker, program.after, {{g, g + 1}, steps});
  }
}

}  // namespace
}  // namespace ostinato
