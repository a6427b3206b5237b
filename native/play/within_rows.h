// Operations within rows that are no blocks: reductions of an axis, elements by a table, small products.
#pragma once
#include <vector>

#include "kernels/kernels.h"
#include "program/program.h"
#include "program/stretches.h"

namespace ostinato {

// What these operations refer to.
struct WithinRows {
  std::vector<Table> tables;
  std::vector<SmallProduct> products;
  std::vector<std::vector<Stretch>> stretches;  // by product

  WithinRows() = default;
  explicit WithinRows(const Program& p)
      : tables(p.tables), products(p.products), stretches(stretches_of_products(p)) {}

  const Stretch* stretches_of(size_t product) const {  // null: b lies there
    return stretches[product].empty() ? nullptr : stretches[product].data();
  }
};

// b: of a small product.
template <class T>
void play_within_rows(const Kernels<T>& kernels, const WithinRows& within, const Instruction& x,
                      int64_t n_rows, Rows<const T> a, Rows<const T> b, Rows<T> d) {
  const size_t number = size_t(x.weight);
  switch (x.code) {
    case Code::kRowSum: return kernels.row_sum(n_rows, x.n, axis_of(x), a, d);
    case Code::kRowMax: return kernels.row_max(n_rows, x.n, axis_of(x), a, d);
    case Code::kTake: {
      const std::vector<Run>& runs = within.tables[number].runs;
      return kernels.take(n_rows, runs.data(), int64_t(runs.size()), a, d);
    }
    default:
      return kernels.small_product(n_rows, within.products[number], within.stretches_of(number), a, b, d);
  }
}

}  // namespace ostinato
