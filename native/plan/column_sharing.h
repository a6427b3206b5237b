// How threads share the loop where there are too few rows for all of them: by columns. Each plays its
// own columns of every instruction, and they barrier_before where one reads what another has written, or writes
// what another may still be reading. Buffers are taken to lie apart, as callers' do.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "program/program.h"
#include "tuning.h"

namespace ostinato {

struct ColumnSharing {
  struct Piece { int32_t gemm, begin, width; };  // columns of an instruction's result, each thread has a share
  // Products of one factor, beside one another; or products that are added to one another; either is played
  // as one. Or a block; or a reduction, of the first thread alone.
  struct Stage {
    int32_t begin, end;   // instructions
    int32_t factors = 1;  // as many as instructions where products are added
    bool barrier_before = false;    // before it
    std::vector<Piece> pieces = {};  // of products: the result's
  };
  std::vector<Stage> stages;  // of a step; none where threads cannot share a program
  double weights = 0;       // that a step multiplies by
  int64_t barriers = 0;     // in a step
  std::vector<bool> loop_only = {};  // of each weight: whether only the loop multiplies by it
};

ColumnSharing find_column_sharing(const Program& program);

// Whether a product only adds to the result of the one before: both in one pass have the same bits.
inline bool continues(const Instruction& x, const Instruction& next) {
  return next.code == Code::kGemm && next.n == x.n && same(next.d, x.d) && same(next.c, x.d) &&
         next.a.buffer != x.d.buffer && x.a.buffer != x.d.buffer;
}

inline Range part_columns(int64_t width, int64_t part, int64_t parts) {
  const int64_t n = (width + kShareColumns - 1) / kShareColumns;
  const auto edge = [&](int64_t i) { return std::min(width, n * i / parts * kShareColumns); };
  return {edge(part), edge(part + 1)};
}
inline int64_t part_width(const ColumnSharing::Stage& stage, int64_t part, int64_t parts) {  // of all pieces
  int64_t n = 0;
  for (const ColumnSharing::Piece& x : stage.pieces) n += part_columns(x.width, part, parts).end - part_columns(x.width, part, parts).begin;
  return n;
}

}  // namespace ostinato
