// A row as an array: the shapes that instructions within a row refer to.
#pragma once
#include <cstdint>

namespace ostinato {

struct Range {
  int64_t begin, end;  // rows, columns, steps or groups
};

// The middle one of three axes of a row, [outer, times, inner].
struct Axis {
  int64_t times, inner;
};

// Elements start, start + step, …, `count` of them; zeros if `start` is −1.
struct ElementRun {
  int32_t start, count, step;
};

// A sum of neighbours is taken in sixteen lanes, which are then folded 8, 4, 2, 1: the lanes of the widest
// vector, and on every instruction set the same order. Another number would change the bits of results.
constexpr int64_t kSumLanes = 16;

// Sixteen elements that lie side by side: element start + i where bit i of `lanes` is set, zeros elsewhere.
struct Stretch {
  int32_t start;
  uint16_t lanes;
};
constexpr int64_t kStretch = kSumLanes;

// d[g, m, n] = Σ_k a[g, m, k] · b[g, k, n], for matrices in rows, or for b[g, n, k] if `across`. With a
// table, b is a row of which the table names the elements: a product finds them where they lie, as stretches.
//
// The order of a sum follows from `across`, which is how the elements of b lie, alone:
//   !across   k ascending in one chain of fused multiply-adds
//   across    sixteen chains, of k, k + 16, …, that are folded 8, 4, 2, 1
struct SmallProduct {
  int32_t groups, M, K, N;
  bool across;
  int32_t table = -1;

  int64_t columns_of_b() const { return across ? K : N; }
};

}  // namespace ostinato
