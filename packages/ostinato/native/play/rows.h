// A thread at work, and where the rows of its slab lie.
//
//   window   groups × steps, over which an instruction is played
//   span     rows [begin, end) that live at one step. In a ragged batch rows end at different steps; a group
//            has the longest rows first, so that its living rows are its first ones
#pragma once
#include <algorithm>

#include "play/session.h"

namespace ostinato {
namespace {  // as all of Executor's parts: see executor.cc

struct Window {
  Range groups, steps;
};

template <class T> struct GatheredRows {
  RowList<T> rows;
  int64_t n;
};

template <class T> class Worker {
 public:
  // Of the work that belongs to no slab, the thread does share number `share` of `n_shares`. If threads share
  // columns, all of them play slab 0 and meet at barriers.
  Worker(Session<T>& s, int64_t slab_number, int64_t share_number, int64_t share_count)
      : session(s), request(s.request), program(s.plan.program), kernels(s.kernels), slab(slab_number),
        share(share_number), n_shares(share_count), T_steps(s.request.T), B_rows(s.request.B),
        groups{s.first_group(slab_number), s.first_group(slab_number + 1)}, memory(s.memory[share_number]),
        prefetcher(!s.near_weights), placements_(s.placements.data() + slab_number * program.buffers.size()) {
  }

  Session<T>& session;
  const PlayRequest& request;
  const Program& program;
  const Kernels<T>& kernels;
  const int64_t slab, share, n_shares, T_steps, B_rows;
  const Range groups;  // of the slab
  const typename Session<T>::PlayerMemory& memory;
  Prefetcher prefetcher;

  bool leads() const { return session.n_parts == 1 || share == 0; }  // the first of a slab's threads
  void wait_for_others() { session.barrier.wait(int(share), int(n_shares)); }
  Range share_of(int64_t n) const { return {n * share / n_shares, n * (share + 1) / n_shares}; }

  // ---- Steps and living rows

  template <class F> void for_steps(Range steps, F f) const {  // in playing order
    if (program.descending) {
      for (int64_t t = steps.end; t-- > steps.begin;) f(t);
    } else {
      for (int64_t t = steps.begin; t < steps.end; t++) f(t);
    }
  }
  int64_t length(int64_t row) const { return request.lengths ? request.lengths[row] : T_steps; }

  // Finds the spans of these groups at step t; for_spans then visits them.
  void find_spans(Range of_groups, int64_t t) {
    n_spans_ = 0;
    const int64_t* begins = session.begins.data();
    if (!request.lengths) {
      spans_[n_spans_++] = {begins[of_groups.begin], begins[of_groups.end]};
      return;
    }
    for (int64_t g = of_groups.begin; g < of_groups.end; g++) {
      const int64_t begin = begins[g], end = end_of_living(begin, begins[g + 1], t);
      if (begin == end) continue;
      if (n_spans_ && spans_[n_spans_ - 1].end == begin) {
        spans_[n_spans_ - 1].end = end;
      } else {
        spans_[n_spans_++] = {begin, end};
      }
    }
  }
  template <class F> void for_spans(F f) const {
    for (int i = 0; i < n_spans_; i++) f(spans_[i]);
  }

  // ---- Addresses

  const Placement<T>& placement(const Operand& o) const { return placements_[o.buffer]; }
  T* address(const Operand& o, int64_t t, int64_t row) const {
    const Placement<T>& p = placements_[o.buffer];
    return slot(p, o, t) + (p.rows ? p.rows[row] : row) * p.row;
  }
  int64_t window_rows(const Window& w) const {
    return session.begins[w.groups.end] - session.begins[w.groups.begin];
  }

  // All rows of an instruction's operand number `which`, over a window: step after step.
  GatheredRows<T> gather(const Instruction& x, int which, const Operand& o, const Window& w) {
    RowCache<T>& list = memory.row_lists[session.plan.first_list[&x - program.instructions.data()] + which];
    const Placement<T>& p = placements_[o.buffer];
    const bool own = groups.begin <= w.groups.begin && w.groups.end <= groups.end;
    if (own && !request.lengths && !p.rows) {
      const int64_t n_rows = window_rows(w), n_steps = w.steps.end - w.steps.begin;
      T* const origin = address(o, w.steps.begin, session.begins[w.groups.begin]);
      const int64_t phase = p.n_slots ? w.steps.begin % p.n_slots : 0;
      if (list.n_rows == n_rows && list.n_steps == n_steps && (list.phase == phase || n_steps == 1))
        return {{list.rows, origin - list.origin}, n_rows * n_steps};
      list.n_rows = n_rows;
      list.n_steps = n_steps;
      list.phase = phase;
      list.origin = origin;
    }
    int64_t n = 0;
    for_steps(w.steps, [&](int64_t t) {
      T* const first = slot(p, o, t);
      find_spans(w.groups, t);
      for_spans([&](Range span) {
        for (int64_t r = span.begin; r < span.end; r++) {
          if (p.rows) {
            list.rows[n++] = first + p.rows[r] * p.row;
          } else if (own) {
            list.rows[n++] = first + r * p.row;
          } else {
            list.rows[n++] = slot(placement_in_any_slab(o.buffer, r), o, t) + r * p.row;
          }
        }
      });
    });
    return {{list.rows, 0}, n};
  }

 private:
  int64_t end_of_living(int64_t begin, int64_t end, int64_t t) const {
    const int64_t* lengths = request.lengths;
    return std::partition_point(lengths + begin, lengths + end, [t](int64_t n) { return n > t; }) - lengths;
  }
  static T* slot(const Placement<T>& p, const Operand& o, int64_t t) {  // where row 0 would begin
    t += o.dt;
    if (p.n_slots) t %= p.n_slots;
    return p.data + t * p.time + o.column;
  }
  const Placement<T>& placement_in_any_slab(int32_t buffer, int64_t row) const {
    int64_t of = 0;
    while (row >= session.begins[session.first_group(of + 1)]) of++;
    return session.placements[of * program.buffers.size() + buffer];
  }

  const Placement<T>* const placements_;
  Range spans_[kMaxGroups];
  int n_spans_ = 0;
};

}  // namespace
}  // namespace ostinato
