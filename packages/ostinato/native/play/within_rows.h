// Operations within rows that are no blocks: reductions of an axis, elements by a table, small products.
#pragma once
#include <vector>

#include "kernels/kernels.h"
#include "program/program.h"
#include "program/stretches.h"

namespace ostinato {

// The tables and products that operations within a row refer to by number.
struct WithinRows {
  std::vector<IndexTable> tables;
  std::vector<SmallProduct> products;
  std::vector<std::vector<Stretch>> stretches;  // by product

  WithinRows() = default;
  explicit WithinRows(const Program& p)
      : tables(p.tables), products(p.products), stretches(stretches_of_products(p)) {}

  const Stretch* stretches_of(size_t product) const {  // null: b lies there
    return stretches[product].empty() ? nullptr : stretches[product].data();
  }
};

// A part of a product: some of its groups, or some rows of a single one.
template <class T>
void play_part_of_product(const Kernels<T>& kernels, SmallProduct x, const Stretch* stretches, int64_t part,
                          int64_t n_parts, int64_t n_rows, Rows<const T> a, Rows<const T> b, Rows<T> d) {
  int32_t& shared = x.groups > 1 ? x.groups : x.M;
  const int64_t begin = shared * part / n_parts, end = shared * (part + 1) / n_parts;
  const int64_t rows_of_b = x.across ? x.N : x.K, columns_of_b = x.columns_of_b();
  if (x.groups > 1) {
    a.data += begin * x.M * x.K;
    d.data += begin * x.M * x.N;
    if (stretches) stretches += begin * rows_of_b * ((columns_of_b + kStretch - 1) / kStretch);
    else b.data += begin * rows_of_b * columns_of_b;
  } else {
    a.data += begin * x.K;
    d.data += begin * x.N;
  }
  shared = int32_t(end - begin);
  if (shared > 0) kernels.small_product(n_rows, x, stretches, a, b, d);
}

// b: of a small product, of which `part` of n_parts is played.
template <class T>
void play_within_rows(const Kernels<T>& kernels, const WithinRows& within, const Instruction& x,
                      int64_t n_rows, Rows<const T> a, Rows<const T> b, Rows<T> d, int64_t part = 0,
                      int64_t n_parts = 1) {
  const size_t number = size_t(x.weight);
  switch (x.code) {
    case Code::kRowSum: return kernels.row_sum(n_rows, x.n, axis_of(x), a, d);
    case Code::kRowMax: return kernels.row_max(n_rows, x.n, axis_of(x), a, d);
    case Code::kTake: {
      const std::vector<ElementRun>& runs = within.tables[number].runs;
      return kernels.take(n_rows, runs.data(), int64_t(runs.size()), a, d);
    }
    default:
      return play_part_of_product(kernels, within.products[number], within.stretches_of(number), part,
                                  n_parts, n_rows, a, b, d);
  }
}

}  // namespace ostinato
