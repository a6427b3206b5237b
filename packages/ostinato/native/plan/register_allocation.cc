#include "plan/register_allocation.h"

#include <algorithm>
#include <unordered_set>

namespace ostinato {
namespace {

bool is_temporary(int32_t value) { return value >= kFirstTemporary; }
bool has_result(const ValueInstruction& x) { return x.op <= kLoad; }

// f(a reference to the value), for each value that the instruction reads
template <class X, class F> void for_reads(X& x, F f) {
  const bool a = x.op < kOpCount || x.op == kAddTo || x.op == kMultiplyTo;
  const bool b = x.op < kOpCount || x.op == kMultiplyTo, c = x.op < kOpCount || x.op == kStore;
  if (a && x.a >= 0) f(x.a);
  if (b && x.b >= 0) f(x.b);
  if (c && x.c >= 0) f(x.c);
}

class Allocation {
 public:
  explicit Allocation(ValueCode& code) : code_(code) {}

  bool run(RegisterCode& made) {
    remove_dead();
    end_carries();
    code_.once.push_back(kEndOfStep);
    made.once = numbered(code_.once);
    made.step = numbered(code_.step);
    for (ValueInstructions& term : code_.late_terms) made.late_terms.push_back(numbered(term));
    made.n_registers = n_registers_;
    return n_registers_ <= UINT16_MAX;
  }

 private:
  size_t index(int32_t temporary) const { return size_t(temporary - kFirstTemporary); }

  void remove_dead() {
    std::vector<bool> needed(size_t(code_.n_temporaries));
    const auto need = [&](int32_t value) {
      if (is_temporary(value)) needed[index(value)] = true;
    };
    for (const CarriedValue& c : code_.carried) need(c.next);
    std::unordered_set<int64_t> stored;  // of several stores to one place the last one counts
    ValueInstructions kept;
    for (size_t i = code_.step.size(); i-- > 0;) {
      const ValueInstruction& x = code_.step[i];
      if (has_result(x) && !needed[index(x.d)]) continue;
      if (x.op == kStore && !stored.insert(int64_t(x.a) << 32 | x.b).second) continue;
      for_reads(x, need);
      kept.push_back(x);
    }
    std::reverse(kept.begin(), kept.end());
    code_.step = std::move(kept);
  }

  // Has the step write each next state to the carry's register: at once, or by a copy at the end.
  void end_carries() {
    const int32_t end = int32_t(code_.step.size());
    std::vector<int32_t> last_read(size_t(code_.n_fixed), -1), made_at(size_t(code_.n_temporaries), -1);
    for (int32_t i = 0; i < end; i++) {
      ValueInstruction& x = code_.step[size_t(i)];
      for_reads(x, [&](int32_t value) {
        if (!is_temporary(value)) last_read[size_t(value)] = i;
      });
      if (has_result(x)) made_at[index(x.d)] = i;
    }
    std::vector<bool> is_carry(size_t(code_.n_fixed));
    for (const CarriedValue& c : code_.carried) is_carry[size_t(c.now)] = true;
    const auto is_old_state = [&](int32_t value) { return !is_temporary(value) && is_carry[size_t(value)]; };
    for (const CarriedValue& c : code_.carried)
      if (c.next != c.now && is_old_state(c.next)) last_read[size_t(c.next)] = end;

    std::vector<int32_t> renamed(size_t(code_.n_temporaries), -1);
    std::vector<CarriedValue> copies;
    for (const CarriedValue& c : code_.carried) {
      if (c.next == c.now) continue;
      const bool direct = is_temporary(c.next) && renamed[index(c.next)] < 0 &&
                          last_read[size_t(c.now)] <= made_at[index(c.next)];
      if (direct) renamed[index(c.next)] = c.now;
      else copies.push_back(c);
    }
    const auto rename = [&](int32_t& value) {
      if (is_temporary(value) && renamed[index(value)] >= 0) value = renamed[index(value)];
    };
    for (ValueInstruction& x : code_.step) {
      for_reads(x, rename);
      if (has_result(x)) rename(x.d);
    }
    const auto copy = [&](int32_t to, int32_t from) { code_.step.push_back({kOp_copy, to, from, -1, -1}); };
    for (CarriedValue& c : copies) {
      if (is_old_state(c.next)) {
        const int32_t saved = kFirstTemporary + code_.n_temporaries++;
        copy(saved, c.next);
        c.next = saved;
      } else {
        rename(c.next);
      }
    }
    for (const CarriedValue& c : copies) copy(c.now, c.next);
    code_.step.push_back(kEndOfStep);
  }

  RegisterCode::Instructions numbered(const ValueInstructions& list) {
    std::vector<int32_t> last_read(size_t(code_.n_temporaries), -1), number(size_t(code_.n_temporaries), -1);
    for (size_t i = 0; i < list.size(); i++)
      for_reads(list[i], [&](int32_t value) {
        if (is_temporary(value)) last_read[index(value)] = int32_t(i);
      });
    std::vector<int32_t> free;
    int32_t n = code_.n_fixed;
    RegisterCode::Instructions made;
    for (size_t i = 0; i < list.size(); i++) {
      ValueInstruction x = list[i];
      for_reads(list[i], [&](int32_t value) {
        if (!is_temporary(value) || last_read[index(value)] != int32_t(i)) return;
        free.push_back(number[index(value)]);
        last_read[index(value)] = -1;  // an operand that is read twice is freed once
      });
      for_reads(x, [&](int32_t& value) {
        if (is_temporary(value)) value = number[index(value)];
      });
      if (is_temporary(x.d)) {
        int32_t& d = number[index(x.d)];
        d = free.empty() ? n++ : free.back();
        if (!free.empty()) free.pop_back();
        x.d = d;
      }
      const auto u = [](int32_t field) { return uint16_t(std::max(field, 0)); };
      made.push_back({u(x.op), u(x.d), u(x.a), u(x.b), u(x.c)});
    }
    n_registers_ = std::max(n_registers_, n);
    return made;
  }

  ValueCode& code_;
  int32_t n_registers_ = 1;
};

}  // namespace

bool allocate_registers(ValueCode code, RegisterCode& made) { return Allocation(code).run(made); }

}  // namespace ostinato
