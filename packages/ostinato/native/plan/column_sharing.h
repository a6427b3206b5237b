// How threads share the loop where there are too few rows to give each thread some: by columns. Each thread
// plays its own columns of every instruction. They meet at a barrier before an instruction that reads what
// another thread has written, or writes what another may still be reading. Buffers are taken to lie apart, as
// a caller's do.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "program/program.h"
#include "tuning.h"

namespace ostinato {

struct ColumnSharing {
  // Columns [begin, begin + width) of a product's result. Each thread has a share of each piece.
  struct Piece {
    int32_t gemm, begin, width;
  };
  // What is played at once: products of one factor, beside one another; or products that are added to one
  // another; or a block; or a product within rows; or a reduction, which the first thread plays alone.
  struct Stage {
    int32_t begin, end;   // instructions
    int32_t factors = 1;  // as many as instructions, if these are products that are added
    bool barrier_before = false;
    std::vector<Piece> pieces = {};  // of products
  };
  std::vector<Stage> stages;         // of a step; none if threads cannot share the program
  double weights = 0;                // that a step multiplies by
  double products = 0;               // multiplications of a row, in the products within rows that are shared
  int64_t barriers = 0;              // in a step
  std::vector<bool> loop_only = {};  // by weight: whether only the loop multiplies by it
};

ColumnSharing find_column_sharing(const Program& program);

// Whether a product only adds to the result of the one before: both in one pass have the same bits.
inline bool continues(const Instruction& x, const Instruction& next) {
  return next.code == Code::kGemm && next.n == x.n && same(next.d, x.d) && same(next.c, x.d) &&
         next.a.buffer != x.d.buffer && x.a.buffer != x.d.buffer;
}

inline double multiplications(const SmallProduct& x) { return double(x.groups) * x.M * x.K * x.N; }
// Threads share a large product within rows: its groups, or the rows of a single group.
inline bool is_shared(const Program& p, const Instruction& x) {
  return x.code == Code::kProduct && multiplications(p.products[size_t(x.weight)]) >= kLeastSharedProduct;
}

// A part's columns of `width`.
inline Range part_columns(int64_t width, int64_t part, int64_t n_parts) {
  const int64_t n = (width + kShareColumns - 1) / kShareColumns;
  const auto edge = [&](int64_t i) { return std::min(width, n * i / n_parts * kShareColumns); };
  return {edge(part), edge(part + 1)};
}
// A part's columns of all pieces of a stage.
inline int64_t part_width(const ColumnSharing::Stage& stage, int64_t part, int64_t n_parts) {
  int64_t n = 0;
  for (const ColumnSharing::Piece& piece : stage.pieces) {
    const Range mine = part_columns(piece.width, part, n_parts);
    n += mine.end - mine.begin;
  }
  return n;
}

}  // namespace ostinato
