// Operations within rows that are no blocks: reductions of an axis, elements by a table, small products.
#pragma once
#include <vector>

#include "kernels/kernels.h"
#include "program/program.h"

namespace ostinato {

// tables, products: of the program. b: of a small product.
template <class T>
void play_within_rows(const Kernels<T>& kernels, const std::vector<Table>& tables,
                      const std::vector<SmallProduct>& products, const Instruction& x, int64_t n_rows,
                      Rows<const T> a, Rows<const T> b, Rows<T> d) {
  switch (x.code) {
    case Code::kRowSum: return kernels.row_sum(n_rows, x.n, axis_of(x), a, d);
    case Code::kRowMax: return kernels.row_max(n_rows, x.n, axis_of(x), a, d);
    case Code::kTake: {
      const std::vector<Run>& runs = tables[size_t(x.weight)].runs;
      return kernels.take(n_rows, runs.data(), int64_t(runs.size()), a, d);
    }
    default: return kernels.small_product(n_rows, products[size_t(x.weight)], a, b, d);
  }
}

}  // namespace ostinato
