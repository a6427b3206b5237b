#include "program/stretches.h"

#include <algorithm>

namespace ostinato {
namespace {

// Finds the stretch of n elements by their places (−1: no element); false if they do not lie side by side.
bool find_stretch(const int32_t* places, int64_t n, Stretch& found) {
  found = {0, 0};
  for (int64_t i = 0; i < n; i++) {
    if (places[i] < 0) continue;
    const int32_t start = places[i] - int32_t(i);
    if (found.lanes && start != found.start) return false;
    found.start = start;
    found.lanes = uint16_t(found.lanes | 1u << i);
  }
  return true;
}

std::vector<int32_t> places_of(const IndexTable& table) {
  std::vector<int32_t> places;
  for (const ElementRun& run : table.runs)
    for (int32_t i = 0; i < run.count; i++) places.push_back(run.start < 0 ? -1 : run.start + i * run.step);
  return places;
}

}  // namespace

std::vector<Stretch> find_stretches(const IndexTable& table, int64_t n) {
  const std::vector<int32_t> places = places_of(table);
  const int64_t total = int64_t(places.size());
  if (total % n) return {};
  std::vector<Stretch> found;
  for (int64_t row = 0; row < total; row += n)
    for (int64_t i = 0; i < n; i += kStretch) {
      found.emplace_back();
      if (!find_stretch(places.data() + row + i, std::min(kStretch, n - i), found.back())) return {};
    }
  return found;
}

std::vector<std::vector<Stretch>> stretches_of_products(const Program& program) {
  std::vector<std::vector<Stretch>> found;
  for (const SmallProduct& x : program.products) {
    found.emplace_back();
    if (x.table >= 0) found.back() = find_stretches(program.tables[size_t(x.table)], x.columns_of_b());
  }
  return found;
}

}  // namespace ostinato
