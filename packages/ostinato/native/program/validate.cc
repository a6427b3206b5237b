#include "program/program.h"

#include <stdexcept>
#include <vector>

#include "kernels/kernels.h"
#include "program/stretches.h"

namespace ostinato {
namespace {

[[noreturn]] void fail(const std::string& what) { throw std::invalid_argument("invalid program: " + what); }
void require(bool holds, const std::string& what) {
  if (!holds) fail(what);
}

class Validator {
 public:
  explicit Validator(const Program& program) : p_(program) {}

  void run() {
    buffers();
    weights();
    gradients();
    carries();
    tables();
    products();
    section(p_.once, 0, "once");
    section(p_.before, p_.once.end, "before");
    section(p_.loop, p_.before.end, "loop");
    section(p_.after, p_.loop.end, "after");
    require(p_.after.end == int64_t(p_.instructions.size()), "the sections do not cover the instructions");
  }

 private:
  const Program& p_;
  std::string where_;
  bool in_loop_ = false, in_after_ = false;

  void argument(int32_t index) const {
    require(index >= 0 && index < p_.n_arguments,
            where_ + ": argument " + std::to_string(index) + " does not exist");
  }
  void buffers() {
    require(p_.n_arguments >= 0 && p_.n_arguments <= kMaxArguments,
            std::to_string(p_.n_arguments) + " arguments; 0 to " + std::to_string(kMaxArguments) +
                " are possible");
    for (size_t i = 0; i < p_.buffers.size(); i++) {
      const Buffer& b = p_.buffers[i];
      where_ = "buffer " + std::to_string(i);
      require(b.kind >= Kind{} && b.kind < Kind::kEnd, where_ + ": unknown kind");
      require(b.width > 0 && b.width <= kMaxWidth, where_ + ": width");
      require(b.extra == 0 || (b.extra == 1 && (b.kind == Kind::kTime || b.kind == Kind::kTape)),
              where_ + ": extra slots");
      if (b.kind == Kind::kTime || b.kind == Kind::kVector || b.kind == Kind::kTape) argument(b.argument);
    }
  }
  void weights() {
    for (size_t i = 0; i < p_.weights.size(); i++) {
      const Weight& w = p_.weights[i];
      where_ = "weight " + std::to_string(i);
      require(w.K > 0 && w.N > 0 && w.K <= kMaxWidth && w.N <= kMaxWidth, where_ + ": shape");
      for (size_t j = 0; j < w.blocks.size(); j++) {
        const WeightBlock& b = w.blocks[j];
        argument(b.argument);
        for (size_t k = 0; k < j; k++) {
          const WeightBlock& c = w.blocks[k];
          require(b.k0 >= c.k0 + c.nk || c.k0 >= b.k0 + b.nk || b.n0 >= c.n0 + c.nn || c.n0 >= b.n0 + b.nn,
                  where_ + ": blocks overlap");
        }
        require(b.k0 >= 0 && b.nk > 0 && b.nk <= w.K - b.k0 && b.n0 >= 0 && b.nn > 0 && b.nn <= w.N - b.n0 &&
                    b.row >= 0 && b.column >= 0 && b.row <= kMaxWidth && b.column <= kMaxWidth,
                where_ + ": a block lies outside");
      }
    }
  }
  void gradients() {
    for (size_t i = 0; i < p_.gradients.size(); i++) {
      const Gradient& g = p_.gradients[i];
      where_ = "gradient " + std::to_string(i);
      require(g.K > 0 && g.N > 0 && g.K <= kMaxWidth && g.N <= kMaxWidth, where_ + ": shape");
      argument(g.argument);
    }
  }
  void carries() {
    for (size_t i = 0; i < p_.carries.size(); i++) {
      const Carry& c = p_.carries[i];
      where_ = "carry " + std::to_string(i);
      require(c.buffer >= 0 && c.buffer < int64_t(p_.buffers.size()), where_ + ": buffer");
      const Buffer& b = p_.buffers[c.buffer];
      require(b.kind == Kind::kPair || b.extra == 1, where_ + ": its buffer has no slot beyond T");
      if (c.init != -1) argument(c.init);
      if (c.final != -1) argument(c.final);
    }
  }
  void tables() {
    for (size_t i = 0; i < p_.tables.size(); i++) {
      const IndexTable& t = p_.tables[i];
      where_ = "table " + std::to_string(i);
      require(t.width > 0 && t.width <= kMaxWidth, where_ + ": width");
      int64_t n = 0;
      for (const ElementRun& run : t.runs) {
        require(run.count > 0 && run.count <= kMaxWidth, where_ + ": count");
        const int64_t last = run.start + int64_t(run.count - 1) * run.step;
        require((run.start == -1 && run.step == 0) ||
                    (run.start >= 0 && run.start < t.width && last >= 0 && last < t.width),
                where_ + ": a run lies outside");
        n += run.count;
      }
      require(n > 0 && n <= kMaxWidth, where_ + ": elements");
    }
  }
  void products() {
    for (size_t i = 0; i < p_.products.size(); i++) {
      const SmallProduct& x = p_.products[i];
      where_ = "product " + std::to_string(i);
      const auto fits = [](int64_t g, int64_t rows, int64_t columns) {
        return g * rows <= kMaxWidth && g * rows * columns <= kMaxWidth;
      };
      for (int32_t n : {x.groups, x.M, x.K, x.N})
        require(n > 0 && n <= kMaxWidth, where_ + ": shape");
      require(fits(x.groups, x.M, x.K) && fits(x.groups, x.K, x.N) && fits(x.groups, x.M, x.N),
              where_ + ": shape");
      if (x.table != -1) table_of(x);
    }
  }
  void table_of(const SmallProduct& x) const {
    require(x.table >= 0 && x.table < int64_t(p_.tables.size()), where_ + ": table");
    const IndexTable& table = p_.tables[size_t(x.table)];
    require(columns(table) == x.groups * x.K * x.N, where_ + ": elements of the table");
    require(!find_stretches(table, x.columns_of_b()).empty(),
            where_ + ": sixteen elements of its table do not lie side by side");
  }
  static int32_t columns(const IndexTable& table) {
    int32_t n = 0;
    for (const ElementRun& run : table.runs) n += run.count;
    return n;
  }
  void section(const Section& s, int32_t begin, const char* name) {
    const bool once = &s == &p_.once;
    in_loop_ = &s == &p_.loop;
    in_after_ = &s == &p_.after;
    require(s.begin == begin && s.end >= s.begin && s.end <= int64_t(p_.instructions.size()),
            std::string("section ") + name + ": bounds");
    for (int32_t i = s.begin; i < s.end; i++) {
      where_ = std::string(name) + ", instruction " + std::to_string(i);
      const Instruction& x = p_.instructions[i];
      if (x.code == Code::kBlock) {
        require(x.n > 0 && x.count > 0 && x.count <= kMaxBlock && x.count <= s.end - i - 1,
                where_ + ": block");
        block(x, i, once);
        i += x.count;
      } else {
        instruction(x, once);
      }
    }
  }
  struct Use {  // of memory, in a block
    const Operand* o;
    int32_t n;
    bool result;
  };
  void block(const Instruction& head, int32_t at, bool once) {
    bool written[kMaxRegisters] = {};
    std::vector<Use> uses;
    for (int32_t j = 1; j <= head.count; j++) {
      const Instruction& x = p_.instructions[at + j];
      where_ = "instruction " + std::to_string(at + j);
      const int32_t n_read = x.code == Code::kBroadcast ? folded_columns(head.n, x) : head.n;  // columns of a
      const int n_operands = arity(x);
      const Operand* in[3] = {&x.a, &x.b, &x.c};
      // A broadcast reads any column of its operand, and a register holds a strip of columns alone.
      if (x.code == Code::kBroadcast) memory(x.a, n_read, once, false);
      else
        for (int i = 0; i < n_operands; i++) read(*in[i], n_read, once, written);
      for (int i = n_operands; i < 3; i++) require(in[i]->buffer == -1, where_ + ": too many operands");
      write(x.d, head.n, once, written);
      for (const Operand* o : {&x.a, &x.b, &x.c, &x.d})
        if (o->buffer >= 0) uses.push_back({o, o == &x.a ? n_read : head.n, o == &x.d});
    }
    // A strip of columns is played from the first operation to the last before the next strip is.
    for (const Use& x : uses)
      for (const Use& y : uses)
        if (x.result && !apart(*x.o, x.n, *y.o, y.n) && (x.o->column != y.o->column || x.n != y.n))
          fail("the block of instruction " + std::to_string(at) +
               ": a result and another operand overlap in part");
  }
  int32_t folded_columns(int32_t n, const Instruction& x) const {
    require(x.k > 0 && x.inner > 0 && n > 0 && int64_t(x.k) * x.inner <= n && n % (x.k * x.inner) == 0,
            where_ + ": the axis does not fit the row");
    return folded(n, x);
  }
  int arity(const Instruction& x) const {
    if (x.code != Code::kOp) {
      require(x.code == Code::kBroadcast, where_ + ": not allowed in a block");
      return 1;
    }
    require(x.op >= 0 && x.op < kOpCount, where_ + ": unknown operation");
    return kOpRows[x.op].arity;
  }
  void read(const Operand& o, int32_t n, bool once, const bool* written) const {
    if (o.buffer > -2) return memory(o, n, once, false);
    const int64_t r = -2 - int64_t(o.buffer);
    require(r < kMaxRegisters && written[r], where_ + ": reads a register that nothing has written");
  }
  void write(const Operand& o, int32_t n, bool once, bool* written) const {
    if (o.buffer > -2) return memory(o, n, once, true);
    const int64_t r = -2 - int64_t(o.buffer);
    require(r < kMaxRegisters, where_ + ": register");
    written[r] = true;
  }
  void instruction(const Instruction& x, bool once) const {  // outside a block
    require(!once, where_ + ": `once` holds elementwise blocks only");
    switch (x.code) {
      case Code::kGemm: return gemm(x);
      case Code::kRowSum:
      case Code::kRowMax: return reduction(x);
      case Code::kTake: return take(x);
      case Code::kProduct: return product(x);
      case Code::kOuter:
      case Code::kColumnSum: return sum_over_rows(x);
      case Code::kProductSum: return product_sum(x);
      default: fail(where_ + ": not allowed outside a block");
    }
  }
  void gemm(const Instruction& x) const {
    const Weight& w = named(p_.weights, x.weight, "weight");
    require(w.K == x.k && w.N == x.n, where_ + ": shape of the weight");
    read(x.a, x.k);
    write(x.d, x.n);
    none(x.b);
    if (x.c.buffer != -1) read(x.c, x.n);
    require(apart(x.a, x.k, x.d, x.n), where_ + ": the product overwrites its factor");
    require(x.c.buffer == -1 || same(x.c, x.d) || apart(x.c, x.n, x.d, x.n),
            where_ + ": init and result overlap in part");
  }
  void reduction(const Instruction& x) const {
    const int32_t n = folded_columns(x.n, x);
    read(x.a, x.n);
    write(x.d, n);
    none(x.b);
    none(x.c);
    check_apart(x.a, x.n, x.d, n);
  }
  void take(const Instruction& x) const {
    const IndexTable& table = named(p_.tables, x.weight, "table");
    require(x.n == columns(table), where_ + ": columns of the table");
    read(x.a, table.width);
    write(x.d, x.n);
    none(x.b);
    none(x.c);
    check_apart(x.a, table.width, x.d, x.n);
  }
  void product(const Instruction& x) const {
    const SmallProduct& p = named(p_.products, x.weight, "product");
    const int32_t n_a = columns_of_a(p), n_b = columns_of_b(p_, p), n_d = columns_of_d(p);
    read(x.a, n_a);
    read(x.b, n_b);
    write(x.d, n_d);
    none(x.c);
    check_apart(x.a, n_a, x.d, n_d);
    check_apart(x.b, n_b, x.d, n_d);
  }
  void sum_over_rows(const Instruction& x) const {
    const bool outer = x.code == Code::kOuter;
    require(in_after_ || (in_loop_ && !outer),
            where_ + ": sums over rows and steps belong into `after`, or of columns into `loop`");
    const Gradient& g = named(p_.gradients, x.weight, "gradient");
    require(g.K == (outer ? x.k : 1) && g.N == x.n, where_ + ": shape of the gradient");
    require(outer || !g.transposed, where_ + ": a sum of columns is not transposed");
    read(x.a, outer ? x.k : x.n);
    if (outer) read(x.b, x.n);
    else none(x.b);
    none(x.c);
    none(x.d);
  }
  void product_sum(const Instruction& x) const {
    require(in_after_, where_ + ": sums of products belong into `after`");
    const Gradient& g = named(p_.gradients, x.weight, "gradient");
    const SmallProduct& p = named(p_.products, x.count, "product");
    require(p.across, where_ + ": its product is not `across`");
    require(x.k == p.groups * p.M && x.n == p.N, where_ + ": shape of the product");
    require(g.K == x.k && g.N == x.n, where_ + ": shape of the gradient");
    require(!g.transposed, where_ + ": a sum of products is not transposed");
    read(x.a, columns_of_a(p));
    read(x.b, columns_of_b(p_, p));
    none(x.c);
    none(x.d);
  }

  // ---- Operands of instructions outside blocks

  template <class X> const X& named(const std::vector<X>& all, int32_t index, const char* what) const {
    require(index >= 0 && index < int64_t(all.size()), where_ + ": " + what);
    return all[size_t(index)];
  }
  void none(const Operand& o) const { require(o.buffer == -1, where_ + ": too many operands"); }
  void read(const Operand& o, int64_t n) const { memory(o, n, false, false); }
  void write(const Operand& o, int64_t n) const { memory(o, n, false, true); }
  void check_apart(const Operand& operand, int64_t n, const Operand& result, int64_t n_result) const {
    require(apart(operand, n, result, n_result), where_ + ": the result overwrites its operand");
  }

  void memory(const Operand& o, int64_t n, bool once, bool write) const {
    require(o.buffer >= 0 && o.buffer < int64_t(p_.buffers.size()), where_ + ": operand names no buffer");
    const Buffer& b = p_.buffers[o.buffer];
    require(o.column >= 0 && n > 0 && o.column + n <= b.width, where_ + ": columns outside the buffer");
    const bool constant = b.kind == Kind::kVector || b.kind == Kind::kLocal;
    require(o.dt == 0 || (o.dt == 1 && !constant && (b.kind == Kind::kPair || b.extra == 1)),
            where_ + ": time shift");
    require(!once || constant, where_ + ": `once` has no rows");
    // Outside the loop an instruction is played over many steps before the next one is.
    require(in_loop_ || (b.kind != Kind::kStep && b.kind != Kind::kPair),
            where_ + ": a value that lives within a step, outside the loop");
    require(!write || b.kind != Kind::kVector, where_ + ": writes an argument that is shared by all rows");
    require(!write || once || !constant, where_ + ": writes a vector outside `once`");
  }
};

}  // namespace

void validate(const Program& program) { Validator(program).run(); }

}  // namespace ostinato
