// A single group, played by several threads: it has too few rows to give each thread a slab.
//
//   section   each thread plays
//   before    some steps of the chunk
//   loop      some columns of each step, as planned in plan/column_sharing.h
//   after     some steps of the chunk; of a sum over rows and steps, some rows of its result, or some columns
//             if that is a vector
// There is a barrier between sections, and before instructions that read the results of other threads.
#pragma once
#include <cstring>

#include "play/instructions.h"
#include "play/pack.h"
#include "play/rows.h"

namespace ostinato {
namespace {

template <class T>
void multiply_part(const Worker<T>& worker, const ColumnSharing::Stage& stage, int64_t part, int64_t n_rows,
                   int64_t N, Factor<T>* factors, RowList<T> init, RowList<T> out) {
  if (!worker.session.single_use)
    return worker.kernels.gemm(n_rows, N, factors, stage.factors, init, out, nullptr);
  multiply_while_packing(worker, n_rows, N, factors, stage.factors, init, out,
                         [&](int32_t factor, int64_t n0, int64_t n1, T* to) {
                           pack_part_panel(worker, stage, factor, part, n0, n1, to);
                         });
}

// A part's columns lie in one piece of the result.
template <class T>
void multiply_into_place(const Worker<T>& worker, const ColumnSharing::Stage& stage, int64_t part, int64_t t,
                         Range span, int64_t N, Factor<T>* factors) {
  const Instruction& x = worker.program.instructions[stage.begin];
  const ColumnSharing::Piece& piece = stage.pieces[0];
  const int64_t column = piece.begin + part_columns(piece.width, part, worker.session.n_parts).begin;
  const int64_t n_rows = span.end - span.begin;
  T *init[kSingleGroupRows], *out[kSingleGroupRows];
  for (int64_t r = 0; r < n_rows; r++) {
    out[r] = worker.address(x.d, t, span.begin + r) + column;
    if (x.c.buffer != -1) init[r] = worker.address(x.c, t, span.begin + r) + column;
  }
  multiply_part<T>(worker, stage, part, n_rows, N, factors, {x.c.buffer == -1 ? nullptr : init}, {out});
}

// A part's columns lie in several pieces: they are multiplied beside one another, and the result is laid
// where it belongs.
template <class T>
void multiply_in_pieces(const Worker<T>& worker, const ColumnSharing::Stage& stage, int64_t part, int64_t t,
                        Range span, int64_t N, Factor<T>* factors) {
  const int64_t n_rows = span.end - span.begin;
  T* out[kSingleGroupRows];
  for (int64_t r = 0; r < n_rows; r++) out[r] = worker.memory.product + r * padded(N);
  const auto for_pieces =
      [&](auto f) {  // f(its product, its column there, the row, where it lies, its width)
        int64_t n = 0;
        for (const ColumnSharing::Piece& piece : stage.pieces) {
          const Range mine = part_columns(piece.width, part, worker.session.n_parts);
          const Instruction& gemm = worker.program.instructions[piece.gemm];
          for (int64_t r = 0; r < n_rows; r++)
            f(gemm, piece.begin + mine.begin, span.begin + r, out[r] + n, mine.end - mine.begin);
          n += mine.end - mine.begin;
        }
      };
  for_pieces([&](const Instruction& x, int64_t column, int64_t row, T* to, int64_t n) {
    if (x.c.buffer == -1) {
      std::memset(to, 0, sizeof(T) * size_t(n));
    } else {
      std::memcpy(to, worker.address(x.c, t, row) + column, sizeof(T) * size_t(n));
    }
  });
  multiply_part<T>(worker, stage, part, n_rows, N, factors, {out}, {out});
  for_pieces([&](const Instruction& x, int64_t column, int64_t row, const T* from, int64_t n) {
    std::memcpy(worker.address(x.d, t, row) + column, from, sizeof(T) * size_t(n));
  });
}

template <class T>
void play_part_of_gemms(const Worker<T>& worker, const ColumnSharing::Stage& stage, const T* packed,
                        int64_t part, int64_t t, Range span) {
  const int64_t n_rows = span.end - span.begin, N = part_width(stage, part, worker.session.n_parts);
  if (N == 0) return;
  T* a[kMaxFactors][kSingleGroupRows];
  Factor<T> factors[kMaxFactors];
  for (int f = 0; f < stage.factors; f++) {
    const Instruction& x = worker.program.instructions[stage.begin + f];
    for (int64_t r = 0; r < n_rows; r++) {
      a[f][r] = worker.address(x.a, t, span.begin + r);
      // All lines at once: they come from the cores of the other threads.
      for (int64_t k = 0; k < x.k; k += kShareColumns) prefetch_to_l1(a[f][r] + k);
    }
    factors[f] = {x.k, {a[f]}, packed};
    packed += x.k * round_up(N, worker.kernels.lanes);
  }
  if (stage.pieces.size() == 1) {
    multiply_into_place(worker, stage, part, t, span, N, factors);
  } else {
    multiply_in_pieces(worker, stage, part, t, span, N, factors);
  }
}

template <class T> void play_step_by_columns(Worker<T>& worker, int64_t t) {
  const Session<T>& s = worker.session;
  worker.find_spans(worker.groups, t);
  for (size_t i = 0; i < s.columns.stages.size(); i++) {
    const ColumnSharing::Stage& stage = s.columns.stages[i];
    const Instruction& x = worker.program.instructions[stage.begin];
    if (stage.barrier_before) worker.wait_for_others();
    if (x.code == Code::kColumnSum) {
      for (int64_t part = worker.share; part < s.n_parts; part += worker.n_shares)
        accumulate(worker, x, worker.groups, {t, t + 1}, {0, 1}, part_columns(x.n, part, s.n_parts));
      continue;
    }
    for (int64_t part = worker.share; part < s.n_parts; part += worker.n_shares)
      worker.for_spans([&](Range span) {
        if (x.code == Code::kGemm)
          return play_part_of_gemms(worker, stage, s.packed_parts[i * s.n_parts + part], part, t, span);
        if (x.code == Code::kBlock)
          return play_block(worker, s.plan.blocks[stage.begin], t, span, part_columns(x.n, part, s.n_parts));
        if (is_shared(worker.program, x)) return play_within_rows(worker, x, t, span, part, s.n_parts);
        if (part == 0) play_within_rows(worker, x, t, span);
      });
  }
}

template <class T> void play_share_of_steps(Worker<T>& worker, const Section& section, Range steps) {
  const Range mine = worker.share_of(steps.end - steps.begin);
  if (mine.begin == mine.end) return;
  play_section(worker, section, {worker.groups, {steps.begin + mine.begin, steps.begin + mine.end}});
}
template <class T> void accumulate_share(Worker<T>& worker, const Instruction& x, Range steps) {
  const bool vector = worker.program.gradients[x.weight].K == 1;
  const Range rows = vector ? Range{0, 1} : worker.share_of(x.k);
  const Range columns = vector ? part_columns(x.n, worker.share, worker.n_shares) : Range{0, x.n};
  accumulate(worker, x, worker.groups, steps, rows, columns);
}

template <class T> void play_chunk_by_columns(Worker<T>& worker, Range steps) {
  const Program& program = worker.program;
  play_share_of_steps(worker, program.before, steps);
  worker.wait_for_others();
  worker.for_steps(steps, [&](int64_t t) { play_step_by_columns(worker, t); });
  worker.wait_for_others();
  for (int32_t begin = program.after.begin, end = begin; begin < program.after.end; begin = end) {
    const bool sums = is_sum(program.instructions[begin]);
    while (end < program.after.end && is_sum(program.instructions[end]) == sums) end++;
    if (!sums) play_share_of_steps(worker, {begin, end}, steps);
    for (int32_t i = begin; i < end && sums; i++) accumulate_share(worker, program.instructions[i], steps);
    worker.wait_for_others();
  }
}

}  // namespace
}  // namespace ostinato
