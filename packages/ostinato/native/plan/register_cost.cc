#include "plan/register_cost.h"

#include "kernels/kernels.h"

namespace ostinato {
namespace {

// An operation on one number, as register code.
double number_ns(int32_t op, bool is_double) {
  if (op == kOp_copy || op == kOp_fill) return 0;
  if (op == kOp_div || op == kOp_rdiv_s || op == kOp_sqrt) return 3;
  if (op == kOp_pow || op == kOp_pow_s || op == kOp_fmod || op == kOp_atan2) return 30;
  if (op >= kOp_exp && op <= kOp_softplus) return is_double ? 12 : 7;
  return 1.2;
}

class CostFinder {
 public:
  CostFinder(const Program& program, bool is_double)
      : p_(program), is_double_(is_double), lanes_(is_double ? 4 : 8) {}

  RegisterCost run() {
    for (const Section* s : {&p_.before, &p_.loop, &p_.after})
      for (int32_t i = s->begin; i < s->end; i++) {
        const Instruction& x = p_.instructions[size_t(i)];
        if (x.code == Code::kBlock) columns_ = x.n;
        instruction(x);
      }
    for (const Buffer& b : p_.buffers) {
      if (b.kind == Kind::kTime || b.kind == Kind::kTape) plain(b.width);
      else cost_.numbers += b.width;
    }
    for (const Gradient& g : p_.gradients) cost_.numbers += int64_t(g.K) * g.N;
    return cost_;
  }

 private:
  void plain(int64_t n) {
    registers(1.2, n);
    cost_.numbers += n;
  }
  // Machine code takes half a nanosecond where register code takes 1.2; a function costs the same.
  void registers(double ns, int64_t n) {
    cost_.registers_ns += ns * double(n);
    cost_.machine_code_ns += (ns > 2 ? ns : 0.4 * ns) * double(n);
  }
  void interpreter(double ns, double row_ns) {
    cost_.interpreter_ns += ns;
    cost_.interpreter_row_ns += row_ns;
  }
  double vectors(int64_t n) const { return double((n + lanes_ - 1) / lanes_); }
  void instruction(const Instruction& x) {
    switch (x.code) {
      case Code::kBlock: return interpreter(25, 0);
      case Code::kOp: {
        const double ns = number_ns(x.op, is_double_);
        const bool by_numbers = is_double_ && ns > 10;  // a function of libm
        registers(ns, columns_);
        cost_.numbers += columns_;
        return interpreter(8, by_numbers ? ns * double(columns_) : ns * vectors(columns_));
      }
      case Code::kBroadcast: cost_.numbers += columns_; return interpreter(8, vectors(columns_));
      case Code::kGemm: plain(int64_t(x.k) * x.n); return interpreter(30, double(x.k) * vectors(x.n));
      case Code::kRowSum:
      case Code::kRowMax: plain(x.n); return interpreter(15, 10 + vectors(x.n));
      case Code::kTake:
        cost_.numbers += x.n;
        return interpreter(15, 2 * double(p_.tables[size_t(x.weight)].runs.size()));
      case Code::kProduct: {
        const SmallProduct& s = p_.products[size_t(x.weight)];
        const double rows = double(s.groups) * s.M;
        plain(int64_t(s.groups) * s.M * s.K * s.N);
        return interpreter(20, rows * (10 + double(s.K) * vectors(s.N)));
      }
      case Code::kOuter: plain(int64_t(x.k) * x.n); return interpreter(5, 2 + double(x.k) * vectors(x.n));
      case Code::kColumnSum: plain(x.n); return interpreter(5, 2 + vectors(x.n));
      case Code::kProductSum: return;
    }
  }

  const Program& p_;
  const bool is_double_;
  const int64_t lanes_;
  int64_t columns_ = 0;  // of the block
  RegisterCost cost_;
};

}  // namespace

RegisterCost find_register_cost(const Program& program, bool is_double) {
  return CostFinder(program, is_double).run();
}

}  // namespace ostinato
