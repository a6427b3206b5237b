// How threads share the loop where there are too few rows for all of them: by columns. Each plays its
// own columns of every instruction, and they meet where one reads what another has written, or writes
// what another may still be reading. Buffers are taken to lie apart, as callers' do.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "program/program.h"

namespace ostinato {

struct Columns {
  struct Piece { int32_t gemm, begin, width; };  // columns of an instruction's result, each thread has a share
  // Products of one factor, beside one another; or products that are added to one another; either is played
  // as one. Or a block; or a reduction, of the first thread alone.
  struct Task {
    int32_t begin, end;   // instructions
    int32_t factors = 1;  // as many as instructions where products are added
    bool meet = false;    // before it
    std::vector<Piece> pieces = {};  // of products: the result's
  };
  std::vector<Task> tasks;  // of a step; none where threads cannot share a program
  double weights = 0;       // that a step multiplies by
  int64_t meetings = 0;     // in a step
  std::vector<bool> of_loop = {};  // of each weight: whether only the loop multiplies by it
};

Columns columns_of(const Program& program);

constexpr int kMostFactors = 3;  // products that are summed in one pass over their result

// Whether a product only adds to the result of the one before: both in one pass have the same bits.
inline bool continues(const Instruction& x, const Instruction& next) {
  return next.code == Code::kGemm && next.n == x.n && same(next.d, x.d) && same(next.c, x.d) &&
         next.a.buffer != x.d.buffer && x.a.buffer != x.d.buffer;
}

struct Range { int64_t begin, end; };
constexpr int64_t kShareColumns = 16;  // a line of the caches, of float32
inline Range share(int64_t width, int64_t part, int64_t parts) {
  const int64_t n = (width + kShareColumns - 1) / kShareColumns;
  const auto edge = [&](int64_t i) { return std::min(width, n * i / parts * kShareColumns); };
  return {edge(part), edge(part + 1)};
}
inline int64_t shared_width(const Columns::Task& task, int64_t part, int64_t parts) {  // of all pieces
  int64_t n = 0;
  for (const Columns::Piece& x : task.pieces) n += share(x.width, part, parts).end - share(x.width, part, parts).begin;
  return n;
}

}  // namespace ostinato
