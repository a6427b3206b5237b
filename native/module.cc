// The Python module. The only file that knows Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "dispatch.h"
#include "executor.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ostinato {
namespace {

template <class T> using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using Integers = std::vector<int64_t>;

// Programs arrive as rows of integers: see src/ostinato/engine/native.py, which writes them.
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

// `arguments`: (address, time stride, row stride) of each, in elements.
template <class T>
void play(Executor<T>& executor, const Integers& arguments, int64_t n_steps, int64_t n_rows, const Integers& rows,
          const Integers& lengths, int threads, const std::string& isa) {
  if (int64_t(arguments.size()) != 3 * executor.n_arguments())
    throw std::invalid_argument("play: wanted an address and two strides for each of " +
                                std::to_string(executor.n_arguments()) + " arguments");
  if (n_steps < 1 || n_rows < 1) throw std::invalid_argument("play: wanted at least one step and one row");
  for (const Integers* list : {&rows, &lengths})
    if (!list->empty() && int64_t(list->size()) != n_rows)
      throw std::invalid_argument("play: rows and lengths need one number for each row");
  for (int64_t row : rows)
    if (row < 0 || row >= n_rows) throw std::invalid_argument("play: rows has a number out of range");
  for (int64_t length : lengths)
    if (length < 0 || length > n_steps) throw std::invalid_argument("play: lengths has a number out of range");
  std::vector<Argument> bound;
  for (size_t i = 0; i + 2 < arguments.size(); i += 3)
    bound.push_back({reinterpret_cast<void*>(arguments[i]), arguments[i + 1], arguments[i + 2]});
  Play p;
  p.T = n_steps, p.B = n_rows, p.arguments = bound.data(), p.threads = threads, p.isa = isa;
  if (!rows.empty()) p.rows = rows.data();
  if (!lengths.empty()) p.lengths = lengths.data();
  nb::gil_scoped_release release;
  executor.play(p);
}

template <class T> void bind_program(nb::module_& m, const char* name) {
  nb::class_<Executor<T>>(m, name)
      .def("__init__", [](Executor<T>* self, const Integers& values, const std::vector<double>& scalars) {
        new (self) Executor<T>(read_program(values, scalars));
      }, "values"_a, "scalars"_a)
      .def("play", play<T>, "arguments"_a, "n_steps"_a, "n_rows"_a, "rows"_a, "lengths"_a, "threads"_a, "isa"_a)
      .def("kept_bytes", &Executor<T>::kept_bytes)
      .def("needed_bytes", [](const Executor<T>& self, int64_t n_steps, int64_t n_rows, int threads,
                              const std::string& isa) {
        if (n_steps < 1 || n_rows < 1) throw std::invalid_argument("wanted at least one step and one row");
        Play p;
        p.T = n_steps, p.B = n_rows, p.threads = threads, p.isa = isa;
        return self.needed_bytes(p);
      }, "n_steps"_a, "n_rows"_a, "threads"_a, "isa"_a);
}

// One elementwise operation over whole arrays, for tests and for the runtime's small needs.
template <class T>
void elementwise(const std::string& isa, int op, Array<const T> a, Array<const T> b, Array<const T> c, Array<T> out, double s) {
  if (op < 0 || op >= kOpCount) throw std::invalid_argument("no such operation");
  const int64_t n = int64_t(out.size());
  if (int64_t(a.size()) != n || int64_t(b.size()) != n || int64_t(c.size()) != n)
    throw std::invalid_argument("operands of one size are wanted");
  const Rows<T> table[4] = {
      {const_cast<T*>(a.data()), n}, {const_cast<T*>(b.data()), n}, {const_cast<T*>(c.data()), n}, {out.data(), n}};
  const int16_t which[4] = {0, 1, 2, 3};
  kernels<T>(isa).op[op](1, n, table, which, T(s));
}

}  // namespace
}  // namespace ostinato

NB_MODULE(_native, m) {
  using namespace ostinato;
  m.doc() = "ostinato's engine";
  nb::set_leak_warnings(false);  // programs live in caches until the interpreter ends
  m.def("available_isas", available_isas);
  m.def("threading_runtime", threading_runtime);
  m.def("n_groups", n_groups);
  m.def("ops", [] {
    std::vector<std::pair<std::string, int>> rows;
    for (const OpRow& row : kOpRows) rows.emplace_back(row.name, row.arity);
    return rows;
  });
  m.def("elementwise", elementwise<float>, "isa"_a, "op"_a, "a"_a, "b"_a, "c"_a, "out"_a, "s"_a);
  m.def("elementwise", elementwise<double>, "isa"_a, "op"_a, "a"_a, "b"_a, "c"_a, "out"_a, "s"_a);
  bind_program<float>(m, "Program32");
  bind_program<double>(m, "Program64");
}
