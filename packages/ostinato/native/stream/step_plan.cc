#include "stream/step_plan.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "kernels/dispatch.h"
#include "play/float_environment.h"
#include "play/pack.h"
#include "play/within_rows.h"
#include "plan/column_sharing.h"

namespace ostinato {
namespace {

[[noreturn]] void refuse(const std::string& why) {
  throw std::invalid_argument("not a program of one step: " + why);
}

// A step goes forward, keeps nothing for a backward pass, and has no memory but its carries.
void check_is_step(const Program& p) {
  if (p.descending) refuse("it plays from the last step to the first");
  if (!p.gradients.empty()) refuse("it has gradients");
  for (size_t i = 0; i < p.buffers.size(); i++) {
    const Buffer& b = p.buffers[i];
    const std::string name = "buffer " + std::to_string(i);
    if (b.kind == Kind::kTape) refuse(name + " is a tape");
    const auto is_its = [&](const Carry& c) { return c.buffer == int32_t(i); };
    const auto n = std::count_if(p.carries.begin(), p.carries.end(), is_its);
    if (n > 1) refuse(name + " is two carries");
    if (n == 0 && (b.kind == Kind::kPair || b.extra)) refuse(name + " has two slots and is no carry");
  }
}

bool overlap(const Operand& x, int64_t nx, const Operand& y, int64_t ny) {
  return x.buffer >= 0 && y.buffer >= 0 && !apart(x, nx, y, ny);
}

// Products that may be played as one: the same factor, and results side by side.
struct Joined {
  Instruction x;
  std::vector<Instruction> parts;  // by column, if there are several
};

}  // namespace

// Makes a plan from a valid program.
class StepPlan::Maker {
 public:
  Maker(StepPlan& plan, const Program& program, const Argument* arguments)
      : plan_(plan), p_(program), instructions_(program.instructions), arguments_(arguments) {}

  void run() {
    plan_.rows_ = WithinRows(p_);
    place_buffers();
    for (size_t i = 0; i < p_.carries.size(); i++)
      if (!write_in_place(p_.carries[i].buffer))
        plan_.copied_.push_back({begins_[size_t(p_.carries[i].buffer)].start, plan_.carry_widths_[i]});
    std::vector<Action> once;
    add_section(p_.once, once);
    for (const Section* s : {&p_.before, &p_.loop, &p_.after}) add_section(*s, plan_.actions_);
    plan_.scratch_floats_ = scratch_;
    fill_constants();
    play_once(once);
  }

 private:
  StepPlan& plan_;
  const Program& p_;
  std::vector<Instruction> instructions_;
  const Argument* const arguments_;
  std::vector<StepOperand> begins_;  // by buffer; of a carry the old slot
  int64_t constants_ = 0, scratch_ = 0;
  struct Packed {
    size_t product;
    int factor;
    Weight weight;
    int64_t at;
  };
  std::vector<Packed> packed_;

  // ---- Where buffers lie

  bool is_carry(size_t buffer) const {
    for (const Carry& c : p_.carries)
      if (c.buffer == int32_t(buffer)) return true;
    return false;
  }
  static int32_t claim(int64_t& total, int64_t n) {
    const int64_t at = total;
    total += n;
    if (total > INT32_MAX) throw std::length_error("a step of more than 2^31 values");
    return int32_t(at);
  }
  void place_buffers() {
    begins_.resize(p_.buffers.size());
    for (const Carry& c : p_.carries) {
      const int32_t width = p_.buffers[size_t(c.buffer)].width;
      begins_[size_t(c.buffer)] = {kCarry, claim(plan_.carry_floats_, width), 0, width};
      plan_.carry_widths_.push_back(width);
    }
    for (size_t i = 0; i < p_.buffers.size(); i++) {
      const Buffer& b = p_.buffers[i];
      const int32_t row = int32_t(padded(b.width));
      if (is_carry(i)) continue;
      switch (b.kind) {
        case Kind::kTime:
          begins_[i] = {int32_t(kFirstPort + plan_.ports_.size()), 0, 0, 0};
          plan_.ports_.push_back(b.argument);
          plan_.widths_.push_back(b.width);
          break;
        case Kind::kVector:
        case Kind::kLocal: begins_[i] = {kConstants, claim(constants_, row), 0, 0}; break;
        default: begins_[i] = {kScratch, claim(scratch_, row), 0, row};
      }
    }
  }
  StepOperand operand(const Operand& o) const {
    if (o.buffer < 0) return {};
    StepOperand found = begins_[size_t(o.buffer)];
    found.column = o.column;
    if (found.place == kCarry && o.dt == 1) found.place = kNewCarry;
    return found;
  }

  // The last operation that writes a new carry writes it where the old one lies, if nothing reads the old
  // one behind it: then nothing is copied at the end of the step. In its block, which is played strip by
  // strip, elementwise operations may read the old one: they read the columns of their strip. Returns whether
  // it may be so.
  bool write_in_place(int32_t carry) {
    const int32_t begin = p_.before.begin, end = p_.after.end;
    int32_t last = -1, block = -1;  // the last one that writes it, and the head of its block
    for (int32_t i = begin, head = begin; i < end; i++) {
      const Instruction& x = instructions_[size_t(i)];
      if (x.code == Code::kBlock) head = i;
      if (x.d.buffer == carry && x.d.dt == 1) last = i, block = head;
    }
    if (last < 0) return false;
    const Instruction& writer = instructions_[size_t(last)];
    const int32_t width = p_.buffers[size_t(carry)].width;
    if (writer.code != Code::kOp || instructions_[size_t(block)].n != width) return false;
    for (int32_t i = block; i < end; i++) {
      const Instruction& x = instructions_[size_t(i)];
      for (const Operand* o : {&x.a, &x.b, &x.c}) {
        const bool reads_old = o->buffer == carry && o->dt == 0;
        if (reads_old && (i > last || x.code != Code::kOp)) return false;
      }
    }
    const auto move = [&](Operand& o) {
      if (o.buffer == carry && o.dt == 1) o.dt = 0;
    };
    move(instructions_[size_t(last)].d);
    for (int32_t i = last + 1; i < end; i++) {
      Instruction& x = instructions_[size_t(i)];
      move(x.a), move(x.b), move(x.c);
    }
    return true;
  }

  // ---- Actions

  void add_section(const Section& section, std::vector<Action>& actions) {
    for (int32_t i = section.begin; i < section.end;) {
      const Instruction& x = instructions_[size_t(i)];
      if (x.code == Code::kGemm) {
        int32_t end = i;
        while (end < section.end && instructions_[size_t(end)].code == Code::kGemm) end++;
        add_products(i, end, actions);
        i = end;
      } else if (x.code == Code::kBlock) {
        BlockPlan plan(&x, sizeof(float));
        std::vector<Stream> streams;
        for (const BlockPlan::Stream& s : plan.streams) streams.push_back({operand(s.operand), s.whole});
        const int64_t registers = plan.n_registers * padded(plan.strip);
        plan_.register_floats_ = std::max(plan_.register_floats_, registers);
        actions.push_back({Action::kBlock, int32_t(plan_.blocks_.size())});
        plan_.blocks_.emplace_back(std::move(plan), std::move(streams));
        i += 1 + x.count;
      } else {
        actions.push_back({Action::kWithin, int32_t(plan_.within_.size())});
        plan_.within_.push_back({x, operand(x.a), operand(x.b), operand(x.d)});
        i++;
      }
    }
  }

  // Products in a row. Those of one factor whose results lie side by side become one: alone each has too few
  // chains of additions to hide their latency.
  void add_products(int32_t begin, int32_t end, std::vector<Action>& actions) {
    std::vector<Joined> list;
    for (int32_t i = begin; i < end; i++) {
      const Instruction& x = instructions_[size_t(i)];
      if (!join(list, x)) list.push_back({x, {x}});
    }
    for (size_t i = 0; i < list.size();) {
      size_t n = 1;
      if (list[i].parts.size() == 1)
        while (n < kMaxFactors && i + n < list.size() && list[i + n].parts.size() == 1 &&
               continues(list[i].x, list[i + n].x))
          n++;
      add_product(&list[i], n, actions);
      i += n;
    }
  }
  // Joins x with an earlier product if that may move to its place, behind the products between them. Returns
  // whether there is one.
  bool join(std::vector<Joined>& list, const Instruction& x) const {
    for (size_t i = list.size(); i-- > 0;) {
      Joined& other = list[i];
      if (!beside(other.x, x)) continue;
      const bool moves = std::none_of(list.begin() + int64_t(i) + 1, list.end(), [&](const Joined& y) {
        return depends(y.x, other.x) || depends(other.x, y.x);
      });
      if (!moves || depends(x, other.x) || depends(other.x, x)) continue;
      Joined both = std::move(other);
      list.erase(list.begin() + int64_t(i));
      both.parts.insert(x.d.column < both.x.d.column ? both.parts.begin() : both.parts.end(), x);
      both.x.d.column = std::min(both.x.d.column, x.d.column);
      both.x.n += x.n;
      both.x.c = both.x.d;  // where the starts of the parts are laid
      list.push_back(std::move(both));
      return true;
    }
    return false;
  }
  static bool beside(const Instruction& x, const Instruction& y) {
    return x.k == y.k && same(x.a, y.a) && x.d.buffer == y.d.buffer && x.d.dt == y.d.dt &&
           (x.d.column + x.n == y.d.column || y.d.column + y.n == x.d.column);
  }
  // True if y reads or writes a place that x writes.
  static bool depends(const Instruction& y, const Instruction& x) {
    return overlap(x.d, x.n, y.a, y.k) || overlap(x.d, x.n, y.d, y.n) ||
           overlap(x.d, x.n, y.c, y.n);
  }

  void add_product(const Joined* joined, size_t n_factors, std::vector<Action>& actions) {
    const Instruction& x = joined->x;
    Product product;
    product.n = x.n;
    product.d = operand(x.d);
    product.init = operand(x.c);
    product.n_factors = int(n_factors);
    if (joined->parts.size() > 1)
      for (const Instruction& part : joined->parts)
        if (!same(part.c, part.d)) product.starts.push_back({operand(part.c), operand(part.d), part.n});
    for (size_t f = 0; f < n_factors; f++) {
      const Instruction& y = joined[f].x;
      product.factors[f] = {y.k, operand(y.a), nullptr};
      Weight weight{y.k, y.n, {}};
      int32_t n = 0;
      for (const Instruction& part : joined[f].parts) {
        for (WeightBlock b : p_.weights[size_t(part.weight)].blocks) {
          b.n0 += n;
          weight.blocks.push_back(b);
        }
        n += part.n;
      }
      packed_.push_back({plan_.products_.size(), int(f), std::move(weight), 0});
      plan_.multiplies_ += int64_t(y.k) * y.n;
      plan_.weight_bytes_ += int64_t(y.k) * y.n * int64_t(sizeof(float));
    }
    actions.push_back({Action::kProduct, int32_t(plan_.products_.size())});
    plan_.products_.push_back(std::move(product));
  }

  // ---- Constants

  void fill_constants() {
    const Kernels<float>& kernels = plan_.kernels_;
    for (Packed& x : packed_) {
      x.at = round_up(constants_, kRowPadding);
      constants_ = x.at + x.weight.K * round_up(x.weight.N, kernels.lanes);
    }
    const int64_t bytes = round_up(std::max<int64_t>(1, constants_) * int64_t(sizeof(float)), kLineBytes);
    float* const data = plan_.data_ = reinterpret_cast<float*>(plan_.constants_.reserve(bytes));
    for (size_t i = 0; i < p_.buffers.size(); i++) {
      const Buffer& b = p_.buffers[i];
      if (b.kind == Kind::kVector)
        std::memcpy(data + begins_[i].start, arguments_[b.argument].data, size_t(b.width) * sizeof(float));
    }
    PlayRequest request;
    request.arguments = arguments_;
    for (const Packed& x : packed_) {
      for (int64_t n0 = 0; n0 < x.weight.N; n0 += kernels.panel) {
        const int64_t n1 = std::min<int64_t>(x.weight.N, n0 + kernels.panel);
        const int64_t width = panel_width(kernels, n1 - n0);
        float* const panel = data + x.at + n0 * x.weight.K;
        if (n1 - n0 < width) std::fill(panel, panel + x.weight.K * width, 0.f);
        pack_columns(request, x.weight, n0, n1, panel, width);
      }
      plan_.products_[x.product].factors[x.factor].w = data + x.at;
    }
  }
  void play_once(const std::vector<Action>& once) {
    FloatEnvironment environment;
    StepPlace places[kFirstPort];
    places[kConstants] = {plan_.data_, 1, 0};
    std::vector<float> registers(size_t(plan_.register_floats_));
    for (const Action& x : once)
      plan_.play_block(plan_.blocks_[size_t(x.index)], 1, places, registers.data());
  }
};

StepPlan::StepPlan(const Program& program, const Argument* arguments, const std::string& isa)
    : kernels_(ostinato::kernels<float>(isa)) {
  validate(program);
  check_is_step(program);
  Maker(*this, program, arguments).run();
}

void StepPlan::compute(int64_t n_rows, StepPlace* places, float* scratch) const noexcept {
  places[kConstants] = {data_, 1, 0};
  places[kScratch] = {scratch, n_rows, 0};
  float* const registers = scratch + scratch_floats_ * n_rows;
  for (const Action& x : actions_) {
    const size_t i = size_t(x.index);
    switch (x.kind) {
      case Action::kProduct: play_product(products_[i], n_rows, places); break;
      case Action::kBlock: play_block(blocks_[i], n_rows, places, registers); break;
      case Action::kWithin: play_within(within_[i], n_rows, places); break;
    }
  }
  for (const CarryPart& x : copied_)
    std::memcpy(places[kCarry].data + x.start * n_rows, places[kNewCarry].data + x.start * n_rows,
                size_t(x.width * n_rows) * sizeof(float));
}

void StepPlan::play_product(const Product& x, int64_t n_rows, const StepPlace* places) const {
  float* rows[kMaxFactors + 2][kStepRows];
  const auto list = [&](int at, const StepOperand& o) {
    float* row = address(places, o);
    const int64_t step = stride(places, o);
    for (int64_t r = 0; r < n_rows; r++, row += step) rows[at][r] = row;
    return RowList<float>{rows[at]};
  };
  for (const Product::Start& start : x.starts) {
    const size_t bytes = size_t(start.n) * sizeof(float);
    float* to = address(places, start.to);
    const float* from = start.from.place < 0 ? nullptr : address(places, start.from);
    for (int64_t r = 0; r < n_rows; r++, to += stride(places, start.to)) {
      if (from) std::memcpy(to, from + r * stride(places, start.from), bytes);
      else std::memset(to, 0, bytes);
    }
  }
  Factor<float> factors[kMaxFactors];
  for (int f = 0; f < x.n_factors; f++)
    factors[f] = {x.factors[f].k, list(f, x.factors[f].a), x.factors[f].w};
  const RowList<float> out = list(kMaxFactors, x.d);
  const RowList<float> init = x.init.place < 0 ? RowList<float>{} : list(kMaxFactors + 1, x.init);
  kernels_.gemm(n_rows, x.n, factors, x.n_factors, init, out, nullptr);
}

// All operations on one strip, while it is in L1, then on the next.
void StepPlan::play_block(const Block& x, int64_t n_rows, const StepPlace* places, float* registers) const {
  const BlockPlan& b = x.plan;
  const int n_streams = int(x.streams.size());
  Rows<float> table[kMaxBlock * 4 + kMaxRegisters];
  for (int i = 0; i < b.n_registers; i++)
    table[n_streams + i] = {registers + i * padded(b.strip), x.columns};
  for (int64_t r = 0; r < n_rows; r += x.rows)
    for (int64_t c = 0; c < b.width; c += x.columns) {
      for (int i = 0; i < n_streams; i++) {
        const Stream& stream = x.streams[size_t(i)];
        const int64_t step = stride(places, stream.operand);
        table[i] = {address(places, stream.operand) + r * step + (stream.whole ? 0 : c), step};
      }
      const int64_t rows = std::min(x.rows, n_rows - r), n = std::min(x.columns, b.width - c);
      for (const BlockPlan::Operation& op : b.operations) {
        if (op.kernel == BlockPlan::kSpreads) {
          const Rows<float>& a = table[op.which[0]];
          kernels_.spread(rows, n, {a.data, a.stride}, table[op.which[3]], c, op.axis);
        } else {
          kernels_.elementwise[op.kernel](rows, n, table, op.which, float(op.s));
        }
      }
    }
}

void StepPlan::play_within(const Within& x, int64_t n_rows, const StepPlace* places) const {
  const auto read = [&](const StepOperand& o) {
    return Rows<const float>{address(places, o), stride(places, o)};
  };
  const Rows<float> d{address(places, x.d), stride(places, x.d)};
  const Rows<const float> a = read(x.a), b = x.b.place < 0 ? a : read(x.b);
  play_within_rows(kernels_, rows_, x.x, n_rows, a, b, d);
}

}  // namespace ostinato
