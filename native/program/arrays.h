// A row as an array: the shapes that instructions within a row refer to.
#pragma once
#include <cstdint>

namespace ostinato {

// The middle one of three axes of a row, [outer, times, inner].
struct Axis {
  int64_t times, inner;
};

// Elements start, start + step, …, `count` of them; zeros if `start` is −1.
struct Run {
  int32_t start, count, step;
};

// d[g, m, n] = Σ_k a[g, m, k] · b[g, k, n], for matrices in rows, or for b[g, n, k] if `across`.
//
// The order of a sum follows from `across`, which is how the elements of b lie, alone:
//   !across   k ascending in one chain of fused multiply-adds
//   across    sixteen chains, of k, k + 16, …, that are folded 8, 4, 2, 1
struct SmallProduct {
  int32_t groups, M, K, N;
  bool across;
};

}  // namespace ostinato
