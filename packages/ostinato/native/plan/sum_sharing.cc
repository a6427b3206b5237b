#include "plan/sum_sharing.h"

#include <algorithm>

namespace ostinato {
namespace {

// Whether an operand's columns are some of another's.
bool within(const Operand& x, int32_t nx, const Operand& y, int32_t ny) {
  return x.buffer == y.buffer && x.dt == y.dt && y.column <= x.column && x.column + nx <= y.column + ny;
}

class SumFinder {
 public:
  explicit SumFinder(const Program& program) : p_(program), terms_(program.gradients.size()) {
    found_.scaled_with.resize(p_.instructions.size(), -1);
    found_.skipped.resize(p_.instructions.size());
    found_.copied.resize(p_.gradients.size());
    for (const Instruction& x : p_.instructions)
      if (is_sum(x)) terms_[size_t(x.weight)]++;
  }
  SumSharing run() {
    for (int32_t i = p_.after.begin; i < p_.after.end; i++) {
      // Consecutive sums, so that no instruction between them writes their operands; of gradients with a
      // single term.
      std::vector<int32_t> sums, products;
      for (; i < p_.after.end && is_sum(at(i)); i++)
        if (terms_[size_t(at(i).weight)] == 1 && at(i).code != Code::kProductSum)
          (at(i).code == Code::kColumnSum ? sums : products).push_back(i);
      std::sort(sums.begin(), sums.end(), [&](int32_t x, int32_t y) {  // the widest first: others may copy it
        return at(x).n != at(y).n ? at(x).n > at(y).n : x < y;
      });
      for (size_t j = 0; j < sums.size(); j++)
        if (!copy(sums[j], sums, j)) join(sums[j], products);
    }
    return std::move(found_);
  }

 private:
  const Instruction& at(int32_t i) const { return p_.instructions[size_t(i)]; }
  // Whether sum i is a part of one of the first `before` sums.
  bool copy(int32_t i, const std::vector<int32_t>& sums, size_t before) {
    for (size_t j = 0; j < before; j++) {
      const Instruction &x = at(i), &y = at(sums[j]);
      const Gradient &to = p_.gradients[size_t(x.weight)], &from = p_.gradients[size_t(y.weight)];
      const bool rows = to.argument != from.argument && !to.transposed && !from.transposed;
      if (found_.skipped[size_t(sums[j])] || !rows || !within(x.a, x.n, y.a, y.n)) continue;
      found_.copies.push_back({x.weight, y.weight, x.a.column - y.a.column});
      found_.copied[size_t(x.weight)] = found_.skipped[size_t(i)] = true;
      return true;
    }
    return false;
  }
  // Has sum i taken together with an outer product of one column, if there is one over the same rows.
  void join(int32_t i, const std::vector<int32_t>& products) {
    for (int32_t j : products) {
      if (found_.skipped[size_t(j)] || at(j).k != 1 || at(j).n != at(i).n || !same(at(j).b, at(i).a))
        continue;
      found_.scaled_with[size_t(i)] = j;
      found_.skipped[size_t(j)] = true;
      return;
    }
  }
  const Program& p_;
  std::vector<int> terms_;  // by gradient: how many instructions add to it
  SumSharing found_;
};

}  // namespace

SumSharing find_sum_sharing(const Program& program) { return SumFinder(program).run(); }

}  // namespace ostinato
