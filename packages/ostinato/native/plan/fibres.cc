#include "plan/fibres.h"

#include <algorithm>
#include <numeric>

#include "kernels/kernels.h"

namespace ostinato {
namespace {

using Operation = BlockPlan::Operation;

class Fibred {
 public:
  Fibred(BlockPlan& plan, int64_t unit) : b_(plan), ops_(plan.operations) {
    if (plan.width < kStrip) return;  // several rows share a strip
    choose_fibre();
    if (!J_) return;
    strips_ = {plan.width, std::lcm(unit, J_)};
    for (const Operation& x : ops_)
      if (has_axis(x) && fits(x.axis) && !(x.kernel == BlockPlan::kFolds && x.axis.inner == 1))
        strips_.cycle = std::gcd(strips_.cycle, block(x.axis));
    const int64_t least = strips_.longest(std::max(kStrip, strips_.unit));
    if (least < kStrip / 2 || least > kLongestStripOfFibres) J_ = 0;
  }

  Strips join() {
    if (!J_) return {};
    for (size_t i = 0; i < ops_.size();)
      if (!sum_products(i)) i++;
    for (size_t i = 0; i < ops_.size(); i++) read_spread_operands(i);
    for (size_t i = ops_.size(); i-- > 0;)
      if (ops_[i].kernel == BlockPlan::kSpreads && is_register(ops_[i].which[3]) && readers(i) == 0)
        ops_.erase(ops_.begin() + int64_t(i));
    const bool any = std::any_of(ops_.begin(), ops_.end(), [](const Operation& x) { return x.fibre > 0; });
    return any ? strips_ : Strips{};
  }

 private:
  static bool has_axis(const Operation& x) {
    return (x.kernel == BlockPlan::kSpreads || x.kernel == BlockPlan::kFolds) && x.axis.times > 1;
  }
  static int64_t last_axis(const Axis& axis) { return axis.inner == 1 ? axis.times : axis.inner; }

  // A fibre is the shortest last axis of a multiple of sixteen columns: every instruction set reads it in
  // whole vectors, and its sums fill all lanes.
  void choose_fibre() {
    for (const Operation& x : ops_)
      if (has_axis(x) && last_axis(x.axis) % kSumLanes == 0)
        J_ = J_ ? std::min(J_, last_axis(x.axis)) : last_axis(x.axis);
  }
  bool fits(const Axis& axis) const {
    return axis.times > 1 && (axis.inner == 1 ? axis.times % J_ == 0 : axis.inner == J_);
  }
  // The columns after which a spread operand goes on to its next block. No strip may cross from one block to
  // the next. An operand with one number a fibre has no blocks: its strips divide the row.
  int64_t block(const Axis& axis) const {
    return axis.inner == 1 && axis.times == J_ ? b_.width : axis.times * axis.inner;
  }

  bool is_register(int16_t at) const { return at >= int16_t(b_.streams.size()); }
  // The operation whose result operation i reads from a register; −1: it is no register.
  int64_t writer(size_t i, int operand) const {
    const int16_t at = ops_[i].which[operand];
    if (!is_register(at)) return -1;
    int64_t w = int64_t(i) - 1;
    while (ops_[size_t(w)].which[3] != at) w--;
    return w;
  }
  int readers(size_t w) const {  // of a register
    int n = 0;
    for (size_t i = w + 1; i < ops_.size(); i++) {
      for (int operand = 0; operand < ops_[i].arity(); operand++)
        n += ops_[i].which[operand] == ops_[w].which[3];
      if (ops_[i].which[3] == ops_[w].which[3]) break;
    }
    return n;
  }

  // Makes of a product and the sum that alone reads it one operation, at the place of the product: nothing in
  // between reads the sum or writes to its place.
  bool sum_products(size_t i) {
    const Operation sum = ops_[i];
    if (sum.kernel != BlockPlan::kFolds || sum.fibre || !fits(sum.axis)) return false;
    const int64_t w = writer(i, 0);
    if (w < 0 || ops_[size_t(w)].kernel != kOp_mul || readers(size_t(w)) != 1) return false;
    Operation& both = ops_[size_t(w)];
    both.kernel = BlockPlan::kFolds;
    both.axis = sum.axis;
    both.which[3] = sum.which[3];
    be_on_fibres(both);
    ops_.erase(ops_.begin() + int64_t(i));
    return true;
  }
  void be_on_fibres(Operation& x) const {
    x.fibre = int32_t(J_);
    for (auto& operand : x.fibres) operand = {x.fibre};
  }

  void read_spread_operands(size_t i) {
    Operation& x = ops_[i];
    const bool sums = x.kernel == BlockPlan::kFolds;
    const int32_t* const found = std::find(kFibreKernels, kFibreKernels + kOnFibresCount, x.kernel);
    if (sums ? !x.fibre : found == kFibreKernels + kOnFibresCount) return;
    int64_t spread[3];  // the operations that spread a, b and c; −1: none
    for (int k = 0; k < 3; k++) {
      spread[k] = k < x.arity() ? writer(i, k) : -1;
      if (spread[k] < 0) continue;
      const Operation& w = ops_[size_t(spread[k])];
      if (w.kernel != BlockPlan::kSpreads || !fits(w.axis)) spread[k] = -1;
    }
    const auto is_scalar = [&](int k) { return spread[k] >= 0 && ops_[size_t(spread[k])].axis.inner == 1; };
    if (is_scalar(1) && !is_scalar(0)) {
      std::swap(x.which[0], x.which[1]);
      std::swap(spread[0], spread[1]);
    }
    // Kernels take one number a fibre for a and c alone; a sum along fibres takes none.
    if (is_scalar(1)) spread[1] = -1;
    if (sums && x.axis.inner == 1 && is_scalar(0)) spread[0] = -1;
    if (std::all_of(spread, spread + 3, [](int64_t w) { return w < 0; })) return;
    x.scalars = (is_scalar(0) ? kScalarOfA : 0) | (is_scalar(2) ? kScalarOfC : 0);
    if (!sums) {
      x.kernel = BlockPlan::kOnFibres;
      x.number = int32_t(found - kFibreKernels);
    }
    be_on_fibres(x);
    for (int k = 0; k < 3; k++) {
      if (spread[k] < 0) continue;
      const Operation& w = ops_[size_t(spread[k])];
      const bool one_each = w.axis.inner == 1 && w.axis.times == J_;
      x.which[k] = w.which[0];
      x.fibres[k] = {one_each, int32_t(w.axis.times * w.axis.inner), int32_t(w.axis.inner)};
    }
  }

  BlockPlan& b_;
  std::vector<Operation>& ops_;
  int64_t J_ = 0;
  Strips strips_;
};

}  // namespace

Strips play_on_fibres(BlockPlan& plan, int64_t unit) { return Fibred(plan, unit).join(); }

}  // namespace ostinato
