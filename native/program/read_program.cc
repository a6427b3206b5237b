// A program from rows of integers, as src/ostinato/engine/program.py writes them.
#include <stdexcept>

#include "program/program.h"

namespace ostinato {
namespace {

using Integers = std::vector<int64_t>;

class Reader {
 public:
  explicit Reader(const Integers& values) : values_(values) {}
  int32_t next() {
    if (at_ >= values_.size()) throw std::invalid_argument("invalid program: truncated");
    const int64_t v = values_[at_++];
    if (v < INT32_MIN || v > INT32_MAX) throw std::invalid_argument("invalid program: a number out of range");
    return int32_t(v);
  }
  int32_t count() {
    const int32_t n = next();
    if (n < 0 || size_t(n) > values_.size()) throw std::invalid_argument("invalid program: a count out of range");
    return n;
  }
  Operand operand() { Operand o; o.buffer = next(), o.column = next(), o.dt = next(); return o; }
  Section section() { Section s; s.begin = next(), s.end = next(); return s; }
  void end() const { if (at_ != values_.size()) throw std::invalid_argument("invalid program: numbers left over"); }

 private:
  const Integers& values_;
  size_t at_ = 0;
};

}  // namespace

Program read_program(const Integers& values, const std::vector<double>& scalars) {
  Reader in(values);
  Program p;
  p.n_arguments = in.next();
  p.descending = in.next() != 0;
  for (int32_t i = in.count(); i-- > 0;) {
    Buffer b{};
    b.kind = Kind(in.next()), b.width = in.next(), b.extra = in.next(), b.argument = in.next();
    p.buffers.push_back(b);
  }
  for (int32_t i = in.count(); i-- > 0;) {
    Weight w{};
    w.K = in.next(), w.N = in.next();
    for (int32_t j = in.count(); j-- > 0;) {
      WeightBlock b{};
      b.argument = in.next(), b.k0 = in.next(), b.nk = in.next(), b.n0 = in.next(), b.nn = in.next();
      b.row = in.next(), b.column = in.next();
      w.blocks.push_back(b);
    }
    p.weights.push_back(w);
  }
  for (int32_t i = in.count(); i-- > 0;) {
    Gradient g{};
    g.K = in.next(), g.N = in.next(), g.argument = in.next(), g.transposed = in.next() != 0;
    p.gradients.push_back(g);
  }
  for (int32_t i = in.count(); i-- > 0;) {
    Carry c{};
    c.buffer = in.next(), c.init = in.next(), c.final = in.next();
    p.carries.push_back(c);
  }
  const int32_t n = in.count();
  if (size_t(n) != scalars.size()) throw std::invalid_argument("invalid program: one scalar an instruction is wanted");
  for (int32_t i = 0; i < n; i++) {
    Instruction x{};
    x.code = Code(in.next()), x.op = in.next(), x.n = in.next(), x.k = in.next(), x.weight = in.next();
    x.count = in.next(), x.s = scalars[i];
    x.d = in.operand(), x.a = in.operand(), x.b = in.operand(), x.c = in.operand();
    p.instructions.push_back(x);
  }
  p.once = in.section(), p.before = in.section(), p.loop = in.section(), p.after = in.section();
  in.end();
  return p;
}

}  // namespace ostinato
