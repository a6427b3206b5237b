#include "stream/row_step.h"

#include "play/memory_plan.h"
#include "stream/step_plan.h"

namespace ostinato {

void RowStep::operation(int32_t kernel, int32_t n, float s, RowOperand a, RowOperand b, RowOperand c,
                        RowOperand d) {
  calls_.push_back({Call::kOperation, n, kernels_->row_elementwise[kernel], a, b, c, d, s, 0, {}});
}
void RowStep::product(const Product& x) {
  calls_.push_back({Call::kProduct, x.n, nullptr, {}, {}, {}, {}, 0, int32_t(products_.size()), {}});
  products_.push_back(x);
}
void RowStep::spread(int32_t n, RowOperand a, RowOperand d, int32_t column, Axis axis) {
  calls_.push_back({Call::kSpread, n, nullptr, a, a, a, d, 0, column, axis});
}
void RowStep::within(const Within& x) {
  calls_.push_back({Call::kWithin, x.x.n, nullptr, {}, {}, {}, {}, 0, int32_t(within_.size()), {}});
  within_.push_back(x);
}

void RowStep::compute(const RowBases& bases) const noexcept {
  for (const Call& x : calls_) {
    switch (x.kind) {
      case Call::kOperation: x.kernel(x.n, bases[x.a], bases[x.b], bases[x.c], bases[x.d], x.s); break;
      case Call::kProduct: play_product(products_[size_t(x.at)], bases); break;
      case Call::kSpread: kernels_->spread(1, x.n, {bases[x.a], 0}, {bases[x.d], 0}, x.at, x.axis); break;
      case Call::kWithin: play_within(within_[size_t(x.at)], bases); break;
    }
  }
}

inline void RowStep::play_product(const Product& x, const RowBases& bases) const {
  RowProduct<float> product;
  product.n_factors = x.n_factors;
  for (int f = 0; f < x.n_factors; f++)
    product.factors[f] = {x.factors[f].k, bases[x.factors[f].a], x.factors[f].w};
  product.init = x.from_zero ? nullptr : bases[x.init];
  product.out = bases[x.d];
  kernels_->row_gemm(x.n, product);
}
void RowStep::play_within(const Within& x, const RowBases& bases) const {
  play_within_rows<float>(*kernels_, *rows_, x.x, 1, {bases[x.a], 0}, {bases[x.b], 0}, {bases[x.d], 0});
}

// Makes the calls from a plan's actions.
class StepPlan::RowMaker {
 public:
  RowMaker(const StepPlan& plan, int32_t new_carry, const std::vector<RowOperand>& ports)
      : plan_(plan), new_carry_(new_carry), ports_(ports), step_(plan.kernels_, plan.rows_) {}

  RowStep run() {
    for (const Action& x : plan_.actions_) {
      const size_t i = size_t(x.index);
      switch (x.kind) {
        case Action::kProduct: add(plan_.products_[i]); break;
        case Action::kBlock: add(plan_.blocks_[i]); break;
        case Action::kWithin: add(plan_.within_[i]); break;
      }
    }
    for (const CarryPart& x : plan_.copied_)
      step_.copy(x.width, {RowOperand::kScratch, new_carry_ + x.start}, {RowOperand::kCarry, x.start});
    return std::move(step_);
  }

 private:
  const StepPlan& plan_;
  const int32_t new_carry_;
  const std::vector<RowOperand>& ports_;
  RowStep step_;

  RowOperand operand(const StepOperand& o) const {
    const int32_t start = o.start + o.column;
    switch (o.place) {
      case -1: return {RowOperand::kScratch, 0};  // not looked at
      case kConstants: return {RowOperand::kConstants, start};
      case kCarry: return {RowOperand::kCarry, start};
      case kNewCarry: return {RowOperand::kScratch, new_carry_ + start};
      case kScratch: return {RowOperand::kScratch, start};
      default: return ports_[size_t(o.place - kFirstPort)].from(start);
    }
  }

  void add(const Product& x) {
    for (const Product::Start& start : x.starts) {
      const RowOperand to = operand(start.to);
      if (start.from.place < 0) step_.operation(kOp_fill, start.n, 0, to, to, to, to);
      else step_.copy(start.n, operand(start.from), to);
    }
    RowStep::Product product;
    product.n = x.n;
    product.n_factors = x.n_factors;
    for (int f = 0; f < x.n_factors; f++)
      product.factors[f] = {x.factors[f].k, operand(x.factors[f].a), x.factors[f].w};
    product.from_zero = x.init.place < 0;
    product.init = operand(x.init);
    product.d = operand(x.d);
    step_.product(product);
  }
  void add(const Block& x) {
    for (int64_t c = 0; c < x.plan.width; c += x.columns) {
      const int32_t n = int32_t(std::min(x.columns, x.plan.width - c));
      for (const BlockPlan::Operation& op : x.plan.operations) {
        RowOperand o[4];
        for (int i = 0; i < 4; i++) o[i] = operand(x, op.which[i], c);
        if (op.kernel == BlockPlan::kSpreads) step_.spread(n, o[0], o[3], int32_t(c), op.axis);
        else step_.operation(op.kernel, n, float(op.s), o[0], o[1], o[2], o[3]);
      }
    }
  }
  void add(const Within& x) { step_.within({x.x, operand(x.a), operand(x.b), operand(x.d)}); }
  // Entry `which` of a block's table, in the strip that begins at column c.
  RowOperand operand(const Block& x, int16_t which, int64_t c) const {
    const int64_t of_registers = which - int64_t(x.streams.size());
    if (of_registers >= 0)
      return {RowOperand::kScratch, int32_t(plan_.scratch_floats_ + of_registers * padded(x.plan.strip))};
    const Stream& stream = x.streams[size_t(which)];
    return operand(stream.operand).from(stream.whole ? 0 : c);
  }
};

RowStep StepPlan::row_step(int32_t new_carry, const std::vector<RowOperand>& ports) const {
  return RowMaker(*this, new_carry, ports).run();
}

}  // namespace ostinato
