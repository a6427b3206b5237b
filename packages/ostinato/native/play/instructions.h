// Instructions over a window. Products and sums over rows take all rows of the window at once; blocks and
// operations within a row are played step by step.
#pragma once
#include <algorithm>
#include <cstring>

#include "play/pack.h"
#include "play/rows.h"
#include "play/weight_grads.h"
#include "play/within_rows.h"

namespace ostinato {
namespace {

// ---- Products

template <class T>
void play_gemm(Worker<T>& worker, const Instruction* x, int n_factors, const GatheredRows<T>& out,
               const Window& w) {
  const Session<T>& s = worker.session;
  RowList<T> init;
  if (x->c.buffer != -1) init = worker.gather(*x, 1, x->c, w).rows;
  Factor<T> factors[kMaxFactors];
  for (int f = 0; f < n_factors; f++)
    factors[f] = {x[f].k, worker.gather(x[f], 2, x[f].a, w).rows, s.packed[x[f].weight]};
  if (s.single_use) {
    const auto pack_one = [&](int32_t factor, int64_t n0, int64_t n1, T* to) {
      pack_panel(worker, worker.program.weights[x[factor].weight], n0, n1, to);
    };
    return multiply_while_packing(worker, out.n, x->n, factors, n_factors, init, out.rows, pack_one);
  }
  Prefetcher* const prefetcher = s.far ? &worker.prefetcher : nullptr;
  for (int64_t r = 0; r < out.n; r += kGemmRows) {
    const int64_t n_rows = std::min(kGemmRows, out.n - r);
    worker.kernels.gemm(n_rows, x->n, factors, n_factors, init.from(r), out.rows.from(r), prefetcher);
    for (int f = 0; f < n_factors; f++) factors[f].a = factors[f].a.from(kGemmRows);
  }
}

// Whether the next product multiplies the same row, and its weight and result lie beside this one's.
template <class T> bool continues_beside(const Worker<T>& worker, const Instruction& x,
                                         const Instruction& next) {
  const std::vector<T*>& packed = worker.session.packed;
  return next.code == Code::kGemm && next.k == x.k && same(next.a, x.a) && x.a.buffer != x.d.buffer &&
         next.d.buffer == x.d.buffer && next.d.dt == x.d.dt && next.d.column == x.d.column + x.n &&
         (x.c.buffer != x.d.buffer || same(x.c, x.d)) &&
         (next.c.buffer != x.d.buffer || same(next.c, next.d)) && x.n % worker.kernels.panel == 0 &&
         packed[next.weight] == packed[x.weight] + int64_t(x.k) * x.n;
}
// Two products of one row as one: each alone has too few chains of additions to hide their latency.
template <class T>
void play_gemm_pair(Worker<T>& worker, const Instruction& x, const Instruction& next, RowList<T> out,
                    const Window& w) {
  T* row = out[0];
  for (const Instruction* half : {&x, &next}) {
    const size_t bytes = sizeof(T) * size_t(half->n);
    if (half->c.buffer == -1) {
      std::memset(row, 0, bytes);
    } else if (!same(half->c, half->d)) {
      std::memcpy(row, worker.gather(*half, 1, half->c, w).rows[0], bytes);
    }
    row += half->n;
  }
  const Factor<T> factor{x.k, worker.gather(x, 2, x.a, w).rows, worker.session.packed[x.weight]};
  worker.kernels.gemm(1, x.n + next.n, &factor, 1, out, out, nullptr);
}

// Plays the products from x on that can be played at once, and returns how many they are. `left` instructions
// are left in the section.
template <class T> int play_gemms(Worker<T>& worker, const Instruction* x, int left, const Window& w) {
  const GatheredRows<T> out = worker.gather(x[0], 0, x[0].d, w);
  if (out.n == 1 && !worker.session.single_use && left > 1 && continues_beside(worker, x[0], x[1]) &&
      !(left > 2 && continues(x[1], x[2]))) {
    play_gemm_pair(worker, x[0], x[1], out.rows, w);
    return 2;
  }
  int n_factors = 1;
  while (n_factors < std::min(kMaxFactors, left) && continues(x[0], x[n_factors])) n_factors++;
  play_gemm(worker, x, n_factors, out, w);
  return n_factors;
}

// ---- Blocks, and operations within a row

// Columns [column, column + n) of an operation on fibres; table: as in play_block.
template <class T>
void play_on_fibres(const Kernels<T>& kernels, const BlockPlan::Operation& x, const Rows<T>* table,
                    int64_t n_rows, int64_t n, int64_t column) {
  Fibres<T> operands[4];
  for (int k = 0; k < 3; k++) {
    const Rows<T>& rows = table[x.which[k]];
    const BlockPlan::FibresOf& of = x.fibres[k];
    operands[k] = {rows.data + (of.block ? int32_t(column) / of.block * of.inner : 0), of.step, rows.stride};
  }
  const Rows<T>& d = table[x.which[3]];
  const int64_t J = x.fibre, n_fibres = n / J;
  if (x.kernel == BlockPlan::kOnFibres) {
    operands[3] = {d.data, J, d.stride};
    kernels.on_fibres[x.number][x.scalars](n_rows, n_fibres, J, operands);
  } else if (x.axis.inner == 1) {
    const Rows<T> sums{d.data + column / x.axis.times, d.stride};
    kernels.sum_fibres(n_rows, n_fibres, J, x.axis.times / J, operands[0], operands[1], sums);
  } else {
    const int64_t block = x.axis.times * J;
    const Rows<T> sums{d.data + column / block * J, d.stride};
    kernels.add_fibres(n_rows, n_fibres, J, x.scalars, operands[0], operands[1], sums, column % block == 0);
  }
}
template <class T>
void play_with_axes(const Kernels<T>& kernels, const BlockPlan::Operation& x, const Rows<T>* table,
                    int64_t n_rows, int64_t n, int64_t column) {
  if (x.fibre) return play_on_fibres(kernels, x, table, n_rows, n, column);
  const Rows<T>&a = table[x.which[0]], &d = table[x.which[3]];
  if (x.kernel == BlockPlan::kSpreads) {
    kernels.spread(n_rows, n, {a.data, a.stride}, d, column, x.axis);
  } else {
    kernels.add_to_sums(n_rows, n, {a.data, a.stride}, d, column, x.axis);
  }
}

// Some columns of a block, or all if it has folded sums: all operations on one strip, while it is in L1, then
// on the next. prefetcher, or null: operations that know axes fetch the lines that products have left, three
// for each two lines of the strip.
template <class T>
void play_block(const Worker<T>& worker, const BlockPlan& b, int64_t t, Range span, Range columns,
                Prefetcher* prefetcher = nullptr) {
  const int64_t W = columns.end - columns.begin, C = std::min(b.strip, W);
  if (W == 0) return;
  const int n_streams = int(b.streams.size());
  const auto row_order = [&](int i) { return worker.placement(b.streams[i].operand).rows; };
  // Whether rows lie in another order: then they are played one by one. From H = 16 on this is faster than
  // copying them into strips.
  bool scattered = false;
  for (int i = 0; i < n_streams; i++) scattered = scattered || row_order(i);
  const int64_t R = scattered ? 1 : b.strip / C;  // rows in one strip
  Rows<T> table[kMaxBlock * 5 + kMaxRegisters];  // four operands of each operation, and the folded sums
  for (int i = 0; i < n_streams; i++) {
    const BlockPlan::Stream& stream = b.streams[i];
    table[i] = {worker.address(stream.operand, t, span.begin) + (stream.whole ? 0 : columns.begin),
                worker.placement(stream.operand).row};
  }
  for (int i = 0; i < b.n_registers; i++) table[n_streams + i] = {worker.memory.registers + i * b.strip, C};
  const int64_t lines = 3 * R * C * int64_t(sizeof(T)) / kLineBytes / std::max(1, 2 * b.n_with_axes) + 1;
  for (int64_t r = span.begin; r < span.end; r += R) {
    const int64_t n_rows = std::min(R, span.end - r);
    for (int64_t c = 0; c < W; c += C) {
      const int64_t n = std::min(C, W - c);
      const bool next_rows = c + C >= W, last = next_rows && r + R >= span.end;
      const auto to_next_strip = [&](int i) {
        const bool whole = b.streams[i].whole;
        if (!next_rows) return whole ? 0 : C;
        const int64_t* rows = row_order(i);
        return (rows ? rows[r + 1] - rows[r] : R) * table[i].stride - (whole ? 0 : c);
      };
      for (const BlockPlan::Operation& x : b.operations) {
        if (x.kernel >= 0) {
          worker.kernels.elementwise[x.kernel](n_rows, n, table, x.which, T(x.s));
          continue;
        }
        if (prefetcher) prefetcher->fetch_next(lines);
        play_with_axes(worker.kernels, x, table, n_rows, n, columns.begin + c);
      }
      if (last) continue;
      for (int i = 0; i < n_streams; i++) table[i].data += to_next_strip(i);
    }
  }
}

template <class T>
void play_within_rows(const Worker<T>& worker, const Instruction& x, int64_t t, Range span,
                      int64_t part = 0, int64_t n_parts = 1) {
  const int64_t n = worker.request.rows ? 1 : span.end - span.begin;  // rows in one stride
  for (int64_t r = span.begin; r < span.end; r += n) {
    const auto rows = [&](const Operand& o) {
      return Rows<T>{worker.address(o, t, r), worker.placement(o).row};
    };
    const Rows<T> a = rows(x.a), b = x.b.buffer < 0 ? a : rows(x.b);
    play_within_rows<T>(worker.kernels, worker.session.plan.within, x, n, {a.data, a.stride},
                        {b.data, b.stride}, rows(x.d), part, n_parts);
  }
}

// ---- Sections

template <class T> void play_once(const Worker<T>& worker) {  // blocks, of vectors
  const Section& once = worker.program.once;
  for (int32_t i = once.begin; i < once.end; i++) {
    const BlockPlan& block = worker.session.plan.blocks[i];
    play_block(worker, block, 0, {0, 1}, {0, block.width});
    i += worker.program.instructions[i].count;
  }
}

template <class T> void play_section(Worker<T>& worker, const Section& section, const Window& w) {
  for (int32_t i = section.begin; i < section.end;) {
    const Instruction& x = worker.program.instructions[i];
    switch (x.code) {
      case Code::kGemm: i += play_gemms(worker, &x, section.end - i, w); break;
      case Code::kOuter:
      case Code::kColumnSum:
      case Code::kProductSum:
        accumulate(worker, x, w.groups, w.steps, {0, x.k}, {0, x.n});
        i++;
        break;
      default: {
        const BlockPlan& block = worker.session.plan.blocks_with_sums[i];
        const bool is_block = x.code == Code::kBlock;
        const bool fetches = worker.session.far && block.width * int64_t(sizeof(T)) >= kPageBytes;
        worker.for_steps(w.steps, [&](int64_t t) {
          worker.find_spans(w.groups, t);
          worker.for_spans([&](Range span) {
            if (is_block) {
              play_block(worker, block, t, span, {0, block.width}, fetches ? &worker.prefetcher : nullptr);
            } else {
              play_within_rows(worker, x, t, span);
            }
          });
        });
        i += is_block ? 1 + x.count + block.n_folded : 1;
      }
    }
  }
}

}  // namespace
}  // namespace ostinato
