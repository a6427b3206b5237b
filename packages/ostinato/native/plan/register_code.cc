#include "plan/register_code.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>
#include <unordered_map>

#include "plan/register_allocation.h"
#include "plan/step_order.h"

namespace ostinato {
namespace {

using Values = std::vector<int32_t>;  // registers, in single assignment: see register_allocation.h

// A lane of a sum or maximum of neighbours; see kSumLanes. A sum in a lane begins as 0 + x, and lanes without
// elements are added as zeros: this makes 0 of −0 and of numbers that count as zero. It is left out where it
// changes nothing.
struct Lane {
  int32_t value = -1;  // −1: no element
  bool begun = false;  // else 0 + x is still to be computed
  bool clean = false;  // neither −0 nor a number that counts as zero
};

class Flattener {
 public:
  Flattener(const Program& program, const StepOrder& order, bool is_double)
      : p_(program), order_(order), is_double_(is_double) {
    for (const Buffer& b : p_.buffers) {
      first_place_.push_back(int32_t(known_.size()));
      known_.resize(known_.size() + 2 * size_t(b.width), -1);
    }
    for (const Gradient& g : p_.gradients) {
      made_.first_sum.push_back(made_.n_sums);
      made_.n_sums += g.K * g.N;
    }
    n_terms_.resize(p_.gradients.size());
    for (const Section* s : {&p_.loop, &p_.after})
      for_sums(*s, [&](const Instruction& x) { n_terms_[size_t(x.weight)]++; });
  }

  // None if the program is not covered.
  std::optional<RegisterCode> run() {
    section(p_.once);
    begin_carries();
    to_ = &code_.step;
    section(p_.before);
    section(p_.loop);
    in_after_ = true;
    section(p_.after);
    end_carries();
    made_.n_kept = int32_t(kept_.size());
    if (!covered_ || made_.n_kept > UINT16_MAX || !allocate_registers(std::move(code_), made_))
      return std::nullopt;
    return std::move(made_);
  }

 private:
  // ---- Values

  int32_t fixed() { return code_.n_fixed++; }
  int32_t put(int32_t op, int32_t a = -1, int32_t b = -1, int32_t c = -1) {
    const int32_t d = to_ == &code_.once ? fixed() : kFirstTemporary + code_.n_temporaries++;
    to_->push_back({op, d, a, b, c});
    return d;
  }
  int32_t constant(double x) {
    if (!is_double_) x = double(float(x));
    int64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const auto [at, is_new] = constants_.emplace(bits, code_.n_fixed);
    if (is_new) made_.constants.push_back({fixed(), x});
    return at->second;
  }
  int32_t element(int32_t argument, int32_t row, int32_t column) {
    made_.elements.push_back({fixed(), argument, row, column});
    return made_.elements.back().d;
  }
  int32_t not_covered() {
    covered_ = false;
    return constant(0);
  }

  size_t place(const Operand& o, int32_t column) const {
    const size_t buffer = size_t(o.buffer);
    return size_t(first_place_[buffer] + o.dt * p_.buffers[buffer].width + o.column + column);
  }
  int32_t stream(const Operand& o) {
    const auto found = std::find_if(made_.streams.begin(), made_.streams.end(),
                                    [&](const auto& s) { return s.buffer == o.buffer && s.dt == o.dt; });
    if (found != made_.streams.end()) return int32_t(found - made_.streams.begin());
    made_.streams.push_back({o.buffer, o.dt});
    return int32_t(made_.streams.size()) - 1;
  }
  int32_t read(const Operand& o, int32_t column) {
    if (o.buffer < -1) return registers_[size_t(-2 - o.buffer)][size_t(column)];
    int32_t& value = known_[place(o, column)];
    if (value >= 0) return value;
    const Buffer& b = p_.buffers[size_t(o.buffer)];
    if (b.kind == Kind::kVector) return value = element(b.argument, -1, o.column + column);
    if (order_.writes(o.buffer) || (b.kind != Kind::kTime && b.kind != Kind::kTape)) return not_covered();
    return value = put(kLoad, stream(o), o.column + column);
  }
  Values read_all(const Operand& o, int32_t n) {
    Values values;
    for (int32_t i = 0; i < n; i++) values.push_back(read(o, i));
    return values;
  }
  void write(const Operand& o, const Values& values) {
    if (o.buffer < -1) {
      registers_[size_t(-2 - o.buffer)] = values;
      return;
    }
    const Kind kind = p_.buffers[size_t(o.buffer)].kind;
    for (int32_t i = 0; i < int32_t(values.size()); i++) {
      known_[place(o, i)] = values[size_t(i)];
      if (kind == Kind::kTime || kind == Kind::kTape)
        to_->push_back({kStore, -1, stream(o), o.column + i, values[size_t(i)]});
    }
  }
  int32_t weight(const Weight& w, int32_t k, int32_t n) {
    for (const WeightBlock& b : w.blocks)
      if (b.k0 <= k && k < b.k0 + b.nk && b.n0 <= n && n < b.n0 + b.nn)
        return element(b.argument, k - b.k0 + b.row, n - b.n0 + b.column);
    return constant(0);
  }
  const Values& elements_of_weight(int32_t number) {  // [K, N]
    Values& all = weights_[number];
    const Weight& w = p_.weights[size_t(number)];
    for (int32_t i = int32_t(all.size()); i < w.K * w.N; i++) all.push_back(weight(w, i / w.N, i % w.N));
    return all;
  }

  // ---- Instructions

  template <class F> void for_sums(const Section& s, F f) const {
    for (int32_t i = s.begin; i < s.end; i++) {
      const Instruction& x = p_.instructions[size_t(i)];
      if (x.code == Code::kOuter || x.code == Code::kColumnSum) f(x);
    }
  }
  void section(const Section& s) {
    int32_t columns = 0;
    for (int32_t i = s.begin; i < s.end; i++) {
      const Instruction& x = p_.instructions[size_t(i)];
      if (x.code == Code::kBlock) columns = x.n;
      instruction(x, columns);
    }
  }
  void instruction(const Instruction& x, int32_t columns) {
    switch (x.code) {
      case Code::kBlock: registers_.assign(kMaxRegisters, {}); return;
      case Code::kOp: return operation(x, columns);
      case Code::kBroadcast: return broadcast(x, columns);
      case Code::kGemm: return gemm(x);
      case Code::kRowSum:
      case Code::kRowMax: return reduction(x);
      case Code::kTake: return write(x.d, taken(x.a, p_.tables[size_t(x.weight)]));
      case Code::kProduct: return product(x);
      case Code::kOuter:
      case Code::kColumnSum:
        return in_after_ && n_terms_[size_t(x.weight)] > 1 ? late_term(x) : sum_over_rows(x);
      case Code::kProductSum: covered_ = false;
    }
  }
  void operation(const Instruction& x, int32_t columns) {
    const int arity = kOpRows[x.op].arity;
    const std::string_view name = kOpRows[x.op].name;
    const bool scalar = x.op == kOp_fill || (name.size() > 2 && name.substr(name.size() - 2) == "_s");
    Values d;
    for (int32_t i = 0; i < columns; i++) {
      const int32_t a = arity > 0 ? read(x.a, i) : -1, b = arity > 1 ? read(x.b, i) : -1;
      const int32_t c = arity > 2 ? read(x.c, i) : scalar ? constant(x.s) : -1;
      d.push_back(x.op == kOp_copy ? a : x.op == kOp_fill ? c : put(x.op, a, b, c));
    }
    write(x.d, d);
  }
  void broadcast(const Instruction& x, int32_t columns) {  // d[o, j, i] = a[o, i]
    const Values a = read_all(x.a, folded(columns, x));
    Values d;
    for (int32_t at = 0; at < columns; at++)
      d.push_back(a[size_t(at / (x.k * x.inner) * x.inner + at % x.inner)]);
    write(x.d, d);
  }
  void gemm(const Instruction& x) {
    const Values& w = elements_of_weight(x.weight);
    const Values a = read_all(x.a, x.k);
    Values d;
    for (int32_t n = 0; n < x.n; n++) {
      int32_t sum = x.c.buffer == -1 ? constant(0) : read(x.c, n);
      for (int32_t k = 0; k < x.k; k++) sum = put(kOp_fma, a[size_t(k)], w[size_t(k * x.n + n)], sum);
      d.push_back(sum);
    }
    write(x.d, d);
  }
  Values taken(const Operand& o, const IndexTable& table) {
    Values d;
    for (const ElementRun& run : table.runs)
      for (int32_t i = 0; i < run.count; i++)
        d.push_back(run.start < 0 ? constant(0)
                                  : read({o.buffer, o.column + run.start + i * run.step, o.dt}, 0));
    return d;
  }
  void reduction(const Instruction& x) {  // d[o, i] over j of a[o, j, i]
    const Op op = x.code == Code::kRowSum ? kOp_add : kOp_max;
    const Values a = read_all(x.a, x.n);
    Values d;
    for (int32_t o = 0; o < x.n / (x.k * x.inner); o++)
      for (int32_t i = 0; i < x.inner; i++) {
        Values along;
        for (int32_t j = 0; j < x.k; j++) along.push_back(a[size_t((o * x.k + j) * x.inner + i)]);
        d.push_back(x.inner == 1 ? in_lanes(op, along) : in_order(op, along));
      }
    write(x.d, d);
  }
  int32_t neutral(Op op) { return constant(op == kOp_add ? 0 : -std::numeric_limits<double>::infinity()); }
  int32_t in_order(Op op, const Values& along) {
    int32_t result = neutral(op);
    for (int32_t value : along) result = put(op, result, value);
    return result;
  }
  int32_t in_lanes(Op op, const Values& along) {
    Lane lanes[kSumLanes];
    for (size_t j = 0; j < along.size(); j++) {
      Lane& lane = lanes[j % kSumLanes];
      if (lane.value < 0) lane = {along[j]};
      else lane = {put(op, begun(op, lane), along[j]), true};
    }
    return folded_lanes(op, lanes);
  }
  int32_t begun(Op op, Lane& lane) {
    if (!lane.begun) lane = {put(op, neutral(op), lane.value), true, true};
    return lane.value;
  }
  int32_t folded_lanes(Op op, Lane* lanes) {
    for (int32_t width = kSumLanes / 2; width > 0; width /= 2)
      for (int32_t j = 0; j < width && lanes[j].value >= 0; j++) {
        Lane &left = lanes[j], &right = lanes[width + j];
        begun(op, left);
        if (right.value < 0) {
          if (op == kOp_add && !left.clean) left = {put(op, left.value, neutral(op)), true, true};
          continue;
        }
        if (!left.clean) begun(op, right);
        left = {put(op, left.value, right.value), true};
      }
    return lanes[0].value;
  }
  void product(const Instruction& x) {
    const SmallProduct& s = p_.products[size_t(x.weight)];
    const Values a = read_all(x.a, columns_of_a(s));
    const Values b =
        s.table < 0 ? read_all(x.b, columns_of_b(p_, s)) : taken(x.b, p_.tables[size_t(s.table)]);
    Values d;
    for (int32_t g = 0; g < s.groups; g++)
      for (int32_t m = 0; m < s.M; m++)
        for (int32_t n = 0; n < s.N; n++) {
          const int32_t* const of_a = &a[size_t((g * s.M + m) * s.K)];
          if (s.across) d.push_back(product_in_lanes(of_a, &b[size_t((g * s.N + n) * s.K)], s.K));
          else d.push_back(product_in_order(of_a, &b[size_t(g * s.K * s.N + n)], s.K, s.N));
        }
    write(x.d, d);
  }
  int32_t product_in_order(const int32_t* a, const int32_t* b, int32_t K, int32_t step) {
    int32_t sum = constant(0);
    for (int32_t k = 0; k < K; k++) sum = put(kOp_fma, a[k], b[k * step], sum);
    return sum;
  }
  int32_t product_in_lanes(const int32_t* a, const int32_t* b, int32_t K) {
    Lane lanes[kSumLanes];
    for (int32_t k = 0; k < K; k++) {
      Lane& lane = lanes[k % kSumLanes];
      lane = {put(kOp_fma, a[k], b[k], lane.value < 0 ? constant(0) : lane.value), true};
    }
    return folded_lanes(kOp_add, lanes);
  }

  // ---- Sums over rows and steps

  void sum_over_rows(const Instruction& x) {
    const int32_t first = made_.first_sum[size_t(x.weight)];
    const bool outer = x.code == Code::kOuter;
    const Values a = read_all(x.a, outer ? x.k : x.n), b = outer ? read_all(x.b, x.n) : a;
    add_to_sums(x, first, a, b);
  }
  void add_to_sums(const Instruction& x, int32_t first, const Values& a, const Values& b) {
    if (x.code == Code::kColumnSum) {
      for (int32_t n = 0; n < x.n; n++) to_->push_back({kAddTo, first + n, a[size_t(n)], -1, -1});
      return;
    }
    for (int32_t k = 0; k < x.k; k++)
      for (int32_t n = 0; n < x.n; n++)
        to_->push_back({kMultiplyTo, first + k * x.n + n, a[size_t(k)], b[size_t(n)], -1});
  }
  void late_term(const Instruction& x) {
    const bool outer = x.code == Code::kOuter;
    Values a = read_all(x.a, outer ? x.k : x.n), b = outer ? read_all(x.b, x.n) : Values();
    for (Values* operand : {&a, &b})
      for (int32_t& value : *operand) value = keep(value);
    to_ = &code_.late_terms.emplace_back();
    for (Values* operand : {&a, &b})
      for (int32_t& value : *operand) value = put(kLoad, 0, value);
    add_to_sums(x, made_.first_sum[size_t(x.weight)], a, b);
    to_->push_back(kEndOfStep);
    to_ = &code_.step;
  }
  int32_t keep(int32_t value) {  // returns its place among the operands that are kept until the chunk ends
    const auto [at, is_new] = kept_.emplace(value, int32_t(kept_.size()));
    if (is_new) to_->push_back({kStore, -1, stream({-1, 0, 0}), at->second, value});
    return at->second;
  }

  // ---- Carries

  void begin_carries() {
    for (size_t i = 0; i < p_.carries.size(); i++)
      for (int32_t column = 0; column < p_.buffers[size_t(p_.carries[i].buffer)].width; column++) {
        const int32_t now = known_[carry_place(i, column, p_.descending)] = fixed();
        made_.carries.push_back({now, int32_t(i), column});
      }
  }
  void end_carries() {
    for (const RegisterCode::CarryColumn& x : made_.carries) {
      const int32_t next = known_[carry_place(size_t(x.carry), x.column, !p_.descending)];
      if (next < 0) covered_ = false;
      code_.carried.push_back({x.d, next});
    }
  }
  size_t carry_place(size_t carry, int32_t column, bool dt) const {
    return place({p_.carries[carry].buffer, 0, dt}, column);
  }

  const Program& p_;
  const StepOrder& order_;
  const bool is_double_;
  RegisterCode made_;
  ValueCode code_{};
  ValueInstructions* to_ = &code_.once;
  std::vector<int32_t> first_place_;  // by buffer
  Values known_;                      // by place: the value there, or −1
  std::vector<Values> registers_;     // of a block
  std::vector<int> n_terms_;          // by gradient
  std::unordered_map<int32_t, Values> weights_;
  std::unordered_map<int64_t, int32_t> constants_;
  std::unordered_map<int32_t, int32_t> kept_;
  bool in_after_ = false, covered_ = true;
};

}  // namespace

std::optional<RegisterCode> find_register_code(const Program& program, bool is_double) {
  const RegisterCost cost = find_register_cost(program, is_double);
  if (cost.numbers > kMostNumbersOfAStep) return std::nullopt;
  const StepOrder order(program);
  if (!order.holds()) return std::nullopt;
  std::optional<RegisterCode> made = Flattener(program, order, is_double).run();
  if (made) made->cost = cost;
  return made;
}

}  // namespace ostinato
