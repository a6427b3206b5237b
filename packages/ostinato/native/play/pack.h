// Weights in panels, as the product kernels read them: [⌈N/panel⌉][K][panel], the last panel as many whole
// vectors wide as it needs. A column of a weight is one of the caller's matrix, or zeros.
//
//   once a play       every thread packs its share of the panels            pack_weights
//   single use        each panel is packed where it is multiplied, once     multiply_while_packing
#pragma once
#include <algorithm>

#include "platform.h"
#include "play/memory_plan.h"
#include "play/rows.h"

namespace ostinato {
namespace {

// out[c][r] = in[r][c]
template <class T>
void transpose(int64_t R, int64_t C, const T* in, int64_t in_stride, T* out, int64_t out_stride) {
  for (int64_t r = 0; r < R; r++)
    for (int64_t c = 0; c < C; c++) out[c * out_stride + r] = in[r * in_stride + c];
}
// Four rows and columns at a time: a third of the time.
inline void transpose(int64_t R, int64_t C, const float* in, int64_t in_stride, float* out,
                      int64_t out_stride) {
  const int64_t R4 = R / 4 * 4, C4 = C / 4 * 4;
  for (int64_t r = 0; r < R4; r += 4)
    for (int64_t c = 0; c < C4; c += 4)
      transpose_4x4(in + r * in_stride + c, in_stride, out + c * out_stride + r, out_stride);
  transpose<float>(R - R4, C, in + R4 * in_stride, in_stride, out + R4, out_stride);
  transpose<float>(R4, C - C4, in + C4, in_stride, out + C4 * out_stride, out_stride);
}

template <class T> int64_t panel_width(const Kernels<T>& kernels, int64_t n_columns) {
  return std::min(kernels.panel, round_up(n_columns, kernels.lanes));
}

// Columns [n0, n1) of a weight, into a panel of some width.
template <class T>
void pack_columns(const PlayRequest& request, const Weight& w, int64_t n0, int64_t n1, T* out,
                  int64_t width) {
  int64_t covered = 0;
  for (const WeightBlock& b : w.blocks) covered += int64_t(b.nk) * b.nn;
  if (covered < int64_t(w.K) * w.N)
    for (int64_t k = 0; k < w.K; k++) std::fill(out + k * width, out + k * width + (n1 - n0), T(0));
  for (const WeightBlock& b : w.blocks) {
    const int64_t from = std::max<int64_t>(n0, b.n0), to = std::min<int64_t>(n1, b.n0 + b.nn);
    if (from >= to) continue;
    const Argument& matrix = request.arguments[b.argument];
    const int64_t row_stride = matrix.time, column_stride = matrix.row;
    const T* src =
        static_cast<const T*>(matrix.data) + b.row * row_stride + (b.column + from - b.n0) * column_stride;
    T* dst = out + b.k0 * width + (from - n0);
    if (row_stride == 1) {  // transposed in memory: read along k
      for (int64_t k = 0; k < b.nk; k += kPackRows)
        transpose(to - from, std::min<int64_t>(kPackRows, b.nk - k), src + k, column_stride, dst + k * width,
                  width);
    } else {
      for (int64_t k = 0; k < b.nk; k++)
        for (int64_t n = 0; n < to - from; n++) dst[k * width + n] = src[k * row_stride + n * column_stride];
    }
  }
}

template <class T> void pack_panel(const Worker<T>& worker, const Weight& w, int64_t n0, int64_t n1, T* out) {
  const int64_t width = panel_width(worker.kernels, n1 - n0);
  if (n1 - n0 < width) std::fill(out, out + w.K * width, T(0));
  pack_columns(worker.request, w, n0, n1, out, width);
}

// ---- Of a part: its columns of all pieces beside one another

template <class T>
void pack_part_panel(const Worker<T>& worker, const ColumnSharing::Stage& stage, int32_t factor, int64_t part,
                     int64_t n0, int64_t n1, T* out) {
  const Program& program = worker.program;
  const int64_t width = panel_width(worker.kernels, n1 - n0);
  if (n1 - n0 < width) std::fill(out, out + program.instructions[stage.begin + factor].k * width, T(0));
  int64_t n = 0;  // where a piece begins among the part's columns
  for (const ColumnSharing::Piece& piece : stage.pieces) {
    const Range mine = part_columns(piece.width, part, worker.session.n_parts);
    const int64_t end = n + mine.end - mine.begin, from = std::max(n, n0), to = std::min(end, n1);
    if (from < to) {
      const Weight& w = program.weights[program.instructions[piece.gemm + factor].weight];
      const int64_t shift = piece.begin + mine.begin - n;  // from a column of the part to the weight's
      pack_columns(worker.request, w, shift + from, shift + to, out + (from - n0), width);
    }
    n = end;
  }
}
// One factor after the other, each in panels.
template <class T>
void pack_part(const Worker<T>& worker, const ColumnSharing::Stage& stage, int64_t part, T* out) {
  const int64_t N = part_width(stage, part, worker.session.n_parts), panel = worker.kernels.panel;
  for (int32_t factor = 0; factor < stage.factors; factor++) {
    const int64_t K = worker.program.instructions[stage.begin + factor].k;
    for (int64_t n = 0; n < N; n += panel)
      pack_part_panel(worker, stage, factor, part, n, std::min(N, n + panel), out + n * K);
    out += K * round_up(N, worker.kernels.lanes);
  }
}

template <class T> void pack_weights(const Worker<T>& worker) {
  const Session<T>& s = worker.session;
  if (s.single_use) return;
  const bool shared = !s.columns.stages.empty();
  for (size_t i = 0; i < worker.program.weights.size(); i++) {
    if (shared && s.columns.loop_only[i]) continue;  // packed by parts
    const Weight& w = worker.program.weights[i];
    const int64_t panel = worker.kernels.panel;
    const Range mine = worker.share_of((w.N + panel - 1) / panel);
    for (int64_t q = mine.begin; q < mine.end; q++)
      pack_panel(worker, w, q * panel, std::min<int64_t>(w.N, (q + 1) * panel),
                 s.packed[i] + q * panel * w.K);
  }
  for (size_t i = 0; i < s.columns.stages.size(); i++) {
    const ColumnSharing::Stage& stage = s.columns.stages[i];
    if (stage.pieces.empty()) continue;
    for (int64_t part = worker.share; part < s.n_parts; part += worker.n_shares)
      pack_part(worker, stage, part, s.packed_parts[i * s.n_parts + part]);
  }
}

// ---- Of a single use

// Weights that multiply once are packed panel by panel in one place, which stays in the caches: two thirds
// of the time at 1024 units. pack_one(factor, first column, end, out) packs a panel.
template <class T, class F>
void multiply_while_packing(const Worker<T>& worker, int64_t n_rows, int64_t N, Factor<T>* factors,
                            int n_factors, RowList<T> init, RowList<T> out, F pack_one) {
  const Kernels<T>& kernels = worker.kernels;
  for (int64_t n0 = 0; n0 < N; n0 += kernels.panel) {
    const int64_t n1 = std::min(N, n0 + kernels.panel);
    T* to = worker.memory.panel;
    for (int f = 0; f < n_factors; f++) {
      pack_one(f, n0, n1, to);
      factors[f].w = to;
      to += factors[f].K * panel_width(kernels, n1 - n0);
    }
    kernels.gemm(n_rows, n1 - n0, factors, n_factors, {init.first, init.offset + n0},
                 {out.first, out.offset + n0}, nullptr);
  }
}

}  // namespace
}  // namespace ostinato
