// Tables as stretches, which kernels read with one masked load for each sixteen elements.
#pragma once
#include <vector>

#include "program/program.h"

namespace ostinato {

// The elements of a table, as rows of n: [rows][⌈n / 16⌉]. Empty if some sixteen of a row do not lie side by
// side, or if the table has no whole number of rows.
std::vector<Stretch> find_stretches(const IndexTable& table, int64_t n);

// The stretches of each product of a program; none where b is read as it lies.
std::vector<std::vector<Stretch>> stretches_of_products(const Program& program);

}  // namespace ostinato
