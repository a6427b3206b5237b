// One step of one row as a list of kernel calls. A step of few units takes little longer than its kernels, so
// the arguments of the calls are computed once, and each step only adds the addresses of its bases.
//
//   base      memory whose address may move from step to step
//   operand   elements of a base, from one on
#pragma once
#include <cstdint>
#include <type_traits>
#include <vector>

#include "kernels/kernels.h"
#include "play/within_rows.h"
#include "program/program.h"

namespace ostinato {

struct RowOperand {
  enum Base : int32_t { kConstants, kScratch, kCarry, kInput, kAnswer, kBases };
  Base base;
  int32_t start;
  RowOperand from(int64_t column) const { return {base, int32_t(start + column)}; }
};

struct RowBases {
  float* at[RowOperand::kBases];
  float* operator[](const RowOperand& o) const { return at[o.base] + o.start; }
};

class RowStep {
 public:
  struct Product {
    int32_t n = 0;
    int n_factors = 0;
    struct {
      int32_t k;
      RowOperand a;
      const float* w;
    } factors[kMaxFactors];
    bool from_zero = false;
    RowOperand init{}, d{};
  };
  struct Within {  // see play/within_rows.h
    Instruction x;
    RowOperand a, b, d;
  };

  // rows: the tables of a plan that outlives this step.
  RowStep(const Kernels<float>& kernels, const WithinRows& rows) : kernels_(&kernels), rows_(&rows) {}

  // Add calls. kernel: of one operation or of a pair.
  void operation(int32_t kernel, int32_t n, float s, RowOperand a, RowOperand b, RowOperand c, RowOperand d);
  void copy(int32_t n, RowOperand from, RowOperand to) { operation(kOp_copy, n, 0, from, from, from, to); }
  void product(const Product& x);
  void spread(int32_t n, RowOperand a, RowOperand d, int32_t column, Axis axis);  // columns from `column` on
  void within(const Within& x);

  // Makes all calls. bases: where the row's values lie this time.
  void compute(const RowBases& bases) const noexcept;

 private:
  struct Call {
    enum { kOperation, kProduct, kSpread, kWithin } kind;
    int32_t n;
    std::remove_extent_t<decltype(Kernels<float>::row_elementwise)> kernel;
    RowOperand a, b, c, d;
    float s;
    int32_t at;  // of a product or of `within`: its place in the list; of a spread: the column
    Axis axis;
  };
  void play_product(const Product& x, const RowBases& bases) const;
  void play_within(const Within& x, const RowBases& bases) const;

  const Kernels<float>* kernels_;
  const WithinRows* rows_;
  std::vector<Call> calls_;
  std::vector<Product> products_;
  std::vector<Within> within_;
};

}  // namespace ostinato
