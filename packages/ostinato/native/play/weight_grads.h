// Gradients of weights: sums over rows and steps.
//
//   early    every group has an accumulator and adds to it chunk by chunk, while rows are near
//              clear_accumulators · accumulate, once a chunk · sum_own_groups · barrier · sum_groups
//   late     a gradient too large for that is summed after the last step, straight into the result: every
//            thread sums its own rows of the result over all rows of the batch
//              sum_late_gradients
//   copied   its terms are some columns of another gradient's: see plan/sum_sharing.h
// If a run is played in segments, its first segment clears the accumulators, and its last one adds them up.
// The groups are summed in pairs, then pairs of pairs, into the first one's accumulator. This is the result
// itself, unless that is transposed. If units have sums of their own, each is its result, and none are added.
#pragma once
#include <algorithm>
#include <cstring>

#include "play/memory_plan.h"
#include "play/rows.h"

namespace ostinato {
namespace {

template <class T> Rows<T> result_of(const Worker<T>& worker, size_t gradient, int64_t unit = 0) {
  return result_of<T>(worker.program.gradients[gradient], worker.request, unit);
}

template <class T> void clear(int64_t K, int64_t N, Rows<T> sum) {
  if (sum.stride == N) {
    std::memset(sum.data, 0, sizeof(T) * K * N);
  } else {
    for (int64_t k = 0; k < K; k++) std::memset(sum.data + k * sum.stride, 0, sizeof(T) * N);
  }
}
// A transposed sum of a unit has the result's order: the factors of its products are exchanged.
template <class T> bool is_exchanged(const Worker<T>& worker, const Gradient& g) {
  return worker.request.sums_by_unit && g.transposed;
}
template <class T> void clear_accumulator(const Worker<T>& worker, size_t gradient, int64_t group) {
  const Gradient& g = worker.program.gradients[gradient];
  const bool exchanged = is_exchanged(worker, g);
  clear<T>(exchanged ? g.N : g.K, exchanged ? g.K : g.N, worker.session.accumulators[gradient][group]);
}
// A unit's matrices are cleared when its first chunk is added, which then finds them near: 67 MB of results
// take a tenth less time. Only vectors are summed before, in the loop.
template <class T> bool is_cleared_late(const Worker<T>& worker, const Gradient& g) {
  return worker.request.sums_by_unit && worker.session.n_parts == 1 && g.K > 1;
}
template <class T> void clear_before_first_chunk(const Worker<T>& worker, int64_t group, Range steps) {
  if (!worker.request.sums_by_unit) return;
  if (worker.program.descending ? steps.end < worker.T_steps : steps.begin > 0) return;
  for (size_t i = 0; i < worker.program.gradients.size(); i++)
    if (is_cleared_late(worker, worker.program.gradients[i]) && !worker.session.accumulators[i].empty())
      clear_accumulator(worker, i, group);
}
template <class T> void clear_accumulators(const Worker<T>& worker) {
  if (worker.request.segment && !worker.request.segment->first) return;
  for (size_t i = 0; i < worker.program.gradients.size(); i++) {
    const Gradient& g = worker.program.gradients[i];
    const std::vector<Rows<T>>& sums = worker.session.accumulators[i];
    if (sums.empty()) {
      if (worker.share == 0) clear(g.K, g.N, result_of(worker, i));
    } else if (worker.leads() && !is_cleared_late(worker, g)) {
      for (int64_t group = worker.groups.begin; group < worker.groups.end; group++)
        clear_accumulator(worker, i, group);
    }
  }
}

template <class T>
void add_outer_product(Worker<T>& worker, int64_t K, int64_t N, const GatheredRows<T>& a,
                       const GatheredRows<T>& b, Rows<T> sum) {
  T* const scratch = worker.memory.registers + kRegisterElements;
  for (int64_t r = 0; r < a.n; r += kOuterRows)
    worker.kernels.outer(std::min(kOuterRows, a.n - r), K, N, a.rows.from(r), b.rows.from(r), sum.data,
                         sum.stride, scratch);
}

template <class T>
void accumulate_outer(Worker<T>& worker, const Instruction& x, const Window& window, Range rows,
                      Range columns) {
  const int64_t K = rows.end - rows.begin, N = columns.end - columns.begin;
  if (K == 0) return;
  Rows<T> sum = worker.session.accumulators[x.weight][window.groups.begin];
  Operand a = x.a, b = x.b;
  a.column += int32_t(rows.begin);
  b.column += int32_t(columns.begin);
  const GatheredRows<T> first = worker.gather(x, 0, a, window), second = worker.gather(x, 1, b, window);
  if (is_exchanged(worker, worker.program.gradients[x.weight])) {
    sum.data += columns.begin * sum.stride + rows.begin;
    return add_outer_product(worker, N, K, second, first, sum);
  }
  sum.data += rows.begin * sum.stride + columns.begin;
  add_outer_product(worker, K, N, first, second, sum);
}
template <class T>
void accumulate_columns(Worker<T>& worker, const Instruction& x, const Window& window, Range columns) {
  const Session<T>& s = worker.session;
  const int64_t group = window.groups.begin;
  T* const sum = s.accumulators[x.weight][group].data + columns.begin;
  Operand a = x.a;
  a.column += int32_t(columns.begin);
  const GatheredRows<T> rows = worker.gather(x, 0, a, window);
  RowList<T> scale;
  T* scaled_sum = nullptr;
  const int32_t scaled = s.plan.sums.scaled_with[size_t(&x - worker.program.instructions.data())];
  if (scaled >= 0) {
    const Instruction& y = worker.program.instructions[scaled];
    if (is_exchanged(worker, worker.program.gradients[y.weight])) {  // its numbers may lie apart
      accumulate_outer(worker, y, window, {0, 1}, columns);
    } else {
      scale = worker.gather(y, 0, y.a, window).rows;
      scaled_sum = s.accumulators[y.weight][group].data + columns.begin;
    }
  }
  worker.kernels.column_sums(rows.n, columns.end - columns.begin, rows.rows, sum, scale, scaled_sum);
}
// Adds a chunk of one group to some rows and columns of the accumulator.
template <class T>
void accumulate_group(Worker<T>& worker, const Instruction& x, const Window& window, Range rows,
                      Range columns) {
  const Session<T>& s = worker.session;
  const std::vector<Rows<T>>& sums = s.accumulators[x.weight];
  const bool skipped = s.plan.sums.skipped[size_t(&x - worker.program.instructions.data())];
  if (skipped || sums.empty() || columns.end == columns.begin) return;
  if (x.code == Code::kColumnSum) return accumulate_columns(worker, x, window, columns);
  if (x.code == Code::kOuter) return accumulate_outer(worker, x, window, rows, columns);
  const GatheredRows<T> a = worker.gather(x, 0, x.a, window), b = worker.gather(x, 1, x.b, window);
  const WithinRows& within = s.plan.within;
  const Rows<T> sum = sums[window.groups.begin];
  worker.kernels.product_sum(a.n, within.products[size_t(x.count)], within.stretches_of(size_t(x.count)),
                             a.rows, b.rows, rows, columns, sum.data, sum.stride,
                             worker.memory.registers + kRegisterElements);
}
template <class T>
void accumulate(Worker<T>& worker, const Instruction& x, Range groups, Range steps, Range rows,
                Range columns) {
  for (int64_t group = groups.begin; group < groups.end; group++)
    accumulate_group(worker, x, {{group, group + 1}, steps}, rows, columns);
}

// ---- After the last step

template <class T> void sum_late_gradient(Worker<T>& worker, const Instruction& x) {
  const Range mine = worker.share_of(x.k);
  if (mine.begin == mine.end) return;
  Operand a = x.a, b = x.b;
  a.column += int32_t(mine.begin);
  Rows<T> sum = result_of(worker, size_t(x.weight));
  sum.data += mine.begin * sum.stride;
  const int64_t steps = late_steps(worker.B_rows), n_blocks = (worker.T_steps + steps - 1) / steps;
  for (int64_t n = 0; n < x.n; n += kLateColumns) {
    const int64_t width = std::min<int64_t>(kLateColumns, x.n - n);
    for (int64_t j = 0; j < n_blocks; j++) {
      const int64_t t0 = (worker.program.descending ? n_blocks - 1 - j : j) * steps;
      const Window window{{0, worker.session.n_groups}, {t0, std::min(worker.T_steps, t0 + steps)}};
      add_outer_product(worker, mine.end - mine.begin, width, worker.gather(x, 0, a, window),
                        worker.gather(x, 1, b, window), sum);
    }
    b.column += int32_t(width);
    sum.data += width;
  }
}
template <class T> void sum_late_gradients(Worker<T>& worker) {
  const Section& after = worker.program.after;
  for (int32_t i = after.begin; i < after.end; i++) {
    const Instruction& x = worker.program.instructions[i];
    if (x.code == Code::kBlock) i += x.count;
    if (x.code == Code::kOuter && worker.session.accumulators[x.weight].empty()) sum_late_gradient(worker, x);
  }
}

template <class T> bool ends_the_run(const Worker<T>& worker) {
  return !worker.request.segment || worker.request.segment->last;
}
template <class T> int64_t slab_of(const Session<T>& s, int64_t group) {
  int64_t slab = 0;
  while (group >= s.first_group(slab + 1)) slab++;
  return slab;
}
// f(first group of the left half, and of the right half, the slab that has both or −1), in order.
template <class T, class F> void for_pairs_of_groups(const Session<T>& s, size_t gradient, F f) {
  const int64_t n_groups = int64_t(s.accumulators[gradient].size());
  for (int64_t n = 1; n < n_groups; n *= 2)
    for (int64_t left = 0; left + n < n_groups; left += 2 * n) {
      const int64_t slab = slab_of(s, left);
      f(left, left + n, slab == slab_of(s, std::min(left + 2 * n, n_groups) - 1) ? slab : -1);
    }
}
// Adds rows × columns of the right group's sum to the left one's.
template <class T>
void add_pair(const Session<T>& s, size_t gradient, int64_t left, int64_t right, Range rows, Range columns) {
  const Rows<T> a = s.accumulators[gradient][left], b = s.accumulators[gradient][right];
  for (int64_t k = rows.begin; k < rows.end; k++) {
    T* const sum = a.data + k * a.stride;
    const T* const term = b.data + k * b.stride;
    for (int64_t n = columns.begin; n < columns.end; n++) sum[n] += term[n];
  }
}
// Each slab adds up the pairs that lie in it, without a barrier. Fewer sums are then left that one core
// fetches from another: 6 % of a backward pass at 32 units.
template <class T> void sum_own_groups(const Worker<T>& worker) {
  if (!ends_the_run(worker) || worker.request.sums_by_unit) return;
  for (size_t i = 0; i < worker.program.gradients.size(); i++) {
    const Gradient& g = worker.program.gradients[i];
    for_pairs_of_groups(worker.session, i, [&](int64_t left, int64_t right, int64_t slab) {
      if (slab == worker.slab) add_pair(worker.session, i, left, right, {0, g.K}, {0, g.N});
    });
  }
}

template <class T>
void copy_sum(const Worker<T>& worker, const SumSharing::Copy& copy, Range columns, int64_t unit = 0) {
  const int64_t begin = std::max<int64_t>(columns.begin, copy.column);
  const int64_t end = std::min<int64_t>(columns.end, copy.column + worker.program.gradients[copy.to].N);
  if (begin >= end) return;
  T* const to = result_of(worker, size_t(copy.to), unit).data + (begin - copy.column);
  std::memcpy(to, result_of(worker, size_t(copy.from), unit).data + begin, sizeof(T) * size_t(end - begin));
}
template <class T> void write_transposed(const Worker<T>& worker, size_t gradient, Range rows,
                                         Range columns) {
  const Rows<T> out = result_of(worker, gradient), sum = worker.session.accumulators[gradient][0];
  for (int64_t k = rows.begin; k < rows.end; k++)
    for (int64_t n = columns.begin; n < columns.end; n++)
      out.data[n * out.stride + k] = sum.data[k * sum.stride + n];
}
template <class T> void copy_sums_of_units(const Worker<T>& worker) {
  const Range units = worker.share_of(worker.session.n_groups);
  for (const SumSharing::Copy& copy : worker.session.plan.sums.copies)
    for (int64_t unit = units.begin; unit < units.end; unit++)
      copy_sum(worker, copy, {0, worker.program.gradients[copy.from].N}, unit);
}
// Pairs of different slabs. Threads share the rows of the result, so that no two write to one line; of a
// vector or a transposed result, the columns.
template <class T> void sum_groups(const Worker<T>& worker) {
  if (!ends_the_run(worker)) return;
  if (worker.request.sums_by_unit) return copy_sums_of_units(worker);
  const Session<T>& s = worker.session;
  for (size_t i = 0; i < worker.program.gradients.size(); i++) {
    const Gradient& g = worker.program.gradients[i];
    if (s.accumulators[i].empty()) continue;
    const bool by_rows = g.K > 1 && !g.transposed;
    const Range rows = by_rows ? worker.share_of(g.K) : Range{0, g.K};
    const Range columns = by_rows ? Range{0, g.N} : worker.share_of(g.N);
    for_pairs_of_groups(s, i, [&](int64_t left, int64_t right, int64_t slab) {
      if (slab < 0) add_pair(s, i, left, right, rows, columns);
    });
    for (const SumSharing::Copy& copy : s.plan.sums.copies)
      if (size_t(copy.from) == i) copy_sum(worker, copy, columns);
    if (g.transposed) write_transposed(worker, i, rows, columns);
  }
}

}  // namespace
}  // namespace ostinato
