// Blocks: operations that make up an expression of kernels/fused.def become one. An expression is a tree of
// operations; its `root` is the operation that computes the whole.
#include <algorithm>
#include <functional>
#include <string_view>

#include "kernels/kernels.h"
#include "plan/blocks.h"

namespace ostinato {

struct Expression {
  int32_t op = -1;  // −1: an operand of the expression
  int name = 0;     // 0 for a, 1 for b, 2 for c
  std::vector<Expression> inputs = {};
};

namespace {

int32_t op_of(std::string_view name) {
  for (int32_t i = 0; i < kOpCount; i++)
    if (name == kOpRows[i].name) return i;
  return -1;
}

// Reads `name(input, …)` or an operand's name, and leaves the text behind it.
Expression parse(std::string_view& text) {
  const size_t end = std::min(text.find_first_of("(,)"), text.size());
  const std::string_view name = text.substr(0, end);
  text.remove_prefix(end);
  if (text.empty() || text[0] != '(') return {-1, name[0] - 'a'};
  Expression x{op_of(name)};
  while (text[0] != ')') {
    text.remove_prefix(text.find_first_not_of("(, "));
    x.inputs.push_back(parse(text));
  }
  text.remove_prefix(1);
  return x;
}

const std::vector<Expression>& expressions() {  // by row of fused.def
  static const std::vector<Expression> all = [] {
    std::vector<Expression> list;
    for (const FusedRow& row : kFusedRows) {
      std::string_view text = row.expression;
      list.push_back(parse(text));
    }
    return list;
  }();
  return all;
}

}  // namespace

struct BlockPlan::Match {
  struct Read {
    int name;
    int16_t which;
    size_t reader;  // the operation that reads it
  };
  std::vector<Read> reads;
  std::vector<size_t> inner;  // operations of the expression but the root
};

// True if the operation computes the expression. The operands of sums and products may be exchanged.
bool BlockPlan::computes(const Expression& x, size_t operation, Match& match) const {
  const Operation& y = operations[operation];
  if (y.kernel != x.op) return false;
  const int n = int(x.inputs.size());
  for (int turned = 0; turned <= int(n == 2 && (x.op == kOp_add || x.op == kOp_mul)); turned++) {
    Match found = match;
    bool all = true;
    for (int i = 0; i < n && all; i++)
      all = is_value_of(x.inputs[size_t(i)], y.which[turned ? 1 - i : i], operation, found);
    if (all) {
      match = std::move(found);
      return true;
    }
  }
  return false;
}

// True if `reader` finds the expression's value at an entry of the table, and nobody else reads it.
bool BlockPlan::is_value_of(const Expression& x, int16_t which, size_t reader, Match& match) const {
  if (x.op < 0) {
    match.reads.push_back({x.name, which, reader});
    return true;
  }
  if (which < int16_t(streams.size())) return false;
  for (size_t i = reader; i-- > 0;) {
    if (operations[i].which[3] != which) continue;
    if (readers(i) != 1 || !computes(x, i, match)) return false;
    match.inner.push_back(i);
    return true;
  }
  return false;
}

// True if the root finds every operand as its reader does, and one entry for each name.
bool BlockPlan::stays(const Match& match, size_t root) const {
  for (const Match::Read& x : match.reads) {
    for (size_t i = x.reader; i < root; i++)
      if (overlap(x.which, operations[i].which[3])) return false;
    for (const Match::Read& y : match.reads)
      if (x.name == y.name && x.which != y.which) return false;
  }
  return true;
}

// Fuses the expression of which operation `root` is the root, if it is one, and moves the root.
bool BlockPlan::fuse(size_t& root) {
  for (int32_t row = 0; row < kFusedCount; row++) {
    Match match;
    if (!computes(expressions()[size_t(row)], root, match) || !stays(match, root)) continue;
    Operation fused{kFirstFused + row, 0, {0, 0, 0, operations[root].which[3]}};
    for (const Match::Read& x : match.reads) fused.which[x.name] = x.which;
    operations[root] = fused;
    std::sort(match.inner.begin(), match.inner.end(), std::greater<>());
    for (size_t i : match.inner) operations.erase(operations.begin() + int64_t(i));
    root -= match.inner.size();
    return true;
  }
  return false;
}

}  // namespace ostinato
