// The Python module. The only file that knows Python, with tensors.h.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdlib>

#include "dispatch.h"
#include "executor.h"
#include "tensors.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ostinato {
namespace {

template <class T> using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using Integers = std::vector<int64_t>;

// (address, time stride, row stride) of each, in elements.
Addresses addresses_of(const Integers& numbers) {
  if (numbers.size() % 3) throw std::invalid_argument("wanted an address and two strides for each argument");
  Addresses found;
  for (size_t i = 0; i < numbers.size(); i += 3)
    found.list.push_back({reinterpret_cast<void*>(numbers[i]), numbers[i + 1], numbers[i + 2]});
  return found;
}

// How a program's arguments are found in lists of tensors.
class Sources {
 public:
  explicit Sources(const std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>>& list) {
    for (const auto& [number, at, how, p, q] : list) list_.push_back({number, at, How(how), p, q});
  }
  Addresses addresses(const nb::tuple& lists, int64_t n_steps, int64_t n_rows) const {
    Addresses found;
    found.list.reserve(list_.size());
    for (const Source& x : list_)
      found.list.push_back(argument_of(x, nb::object(lists[size_t(x.list)][x.at]), n_steps, n_rows, found));
    return found;
  }

 private:
  std::vector<Source> list_;
};

// Puts an object into a list when it is no longer held. Not by __del__ in Python: the interpreter runs
// signal handlers there, and drops what they raise; a Ctrl-C was lost.
class Lent {
 public:
  Lent(nb::list to, nb::object object) : to_(std::move(to)), object_(std::move(object)) {}
  Lent(const Lent&) = delete;
  ~Lent() {
    nb::error_scope pending;
    if (PyList_Append(to_.ptr(), object_.ptr()) != 0) PyErr_Clear();
  }

 private:
  nb::list to_;
  nb::object object_;
};

template <class T>
void play(Executor<T>& executor, const Addresses& arguments, int64_t n_steps, int64_t n_rows, const Integers& rows,
          const Integers& lengths, int threads, const std::string& isa) {
  if (int64_t(arguments.list.size()) != executor.n_arguments())
    throw std::invalid_argument("play: wanted " + std::to_string(executor.n_arguments()) + " arguments");
  if (n_steps < 1 || n_rows < 1) throw std::invalid_argument("play: wanted at least one step and one row");
  for (const Integers* list : {&rows, &lengths})
    if (!list->empty() && int64_t(list->size()) != n_rows)
      throw std::invalid_argument("play: rows and lengths need one number for each row");
  for (int64_t row : rows)
    if (row < 0 || row >= n_rows) throw std::invalid_argument("play: rows has a number out of range");
  for (int64_t length : lengths)
    if (length < 0 || length > n_steps) throw std::invalid_argument("play: lengths has a number out of range");
  Play p;
  p.T = n_steps, p.B = n_rows, p.arguments = arguments.list.data(), p.threads = threads, p.isa = isa;
  if (!rows.empty()) p.rows = rows.data();
  if (!lengths.empty()) p.lengths = lengths.data();
  nb::gil_scoped_release release;
  executor.play(p);
}

template <class T> void bind_program(nb::module_& m, const char* name) {
  nb::class_<Executor<T>>(m, name)
      .def("__init__", [](Executor<T>* self, const Integers& values, const std::vector<double>& scalars, Workspaces& workspaces) {
        new (self) Executor<T>(read_program(values, scalars), workspaces);
      }, "values"_a, "scalars"_a, "workspaces"_a, nb::keep_alive<1, 4>())
      .def("play", play<T>, "arguments"_a, "n_steps"_a, "n_rows"_a, "rows"_a, "lengths"_a, "threads"_a, "isa"_a)
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
  m.def("environment", [](const char* name) { return std::getenv(name); }, "name"_a);
  m.def("ops", [] {
    std::vector<std::pair<std::string, int>> rows;
    for (const OpRow& row : kOpRows) rows.emplace_back(row.name, row.arity);
    return rows;
  });
  m.def("elementwise", elementwise<float>, "isa"_a, "op"_a, "a"_a, "b"_a, "c"_a, "out"_a, "s"_a);
  m.def("elementwise", elementwise<double>, "isa"_a, "op"_a, "a"_a, "b"_a, "c"_a, "out"_a, "s"_a);
  m.def("watched", watched, "places"_a, "tensor"_a, "absent"_a, "equal"_a);
  m.def("described", described, "captured"_a, "init"_a, "xs"_a, "axis"_a);
  nb::class_<Addresses>(m, "Addresses").def("__init__", [](Addresses* self, const Integers& numbers) {
    new (self) Addresses(addresses_of(numbers));
  }, "numbers"_a);
  nb::class_<Sources>(m, "Sources")
      .def(nb::init<const std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>>&>(), "sources"_a)
      .def("addresses", &Sources::addresses, "lists"_a, "n_steps"_a, "n_rows"_a);
  nb::class_<Workspaces>(m, "Workspaces").def(nb::init<>()).def("kept_bytes", &Workspaces::kept_bytes);
  nb::class_<Lent>(m, "Lent").def(nb::init<nb::list, nb::object>(), "to"_a, "object"_a);
  bind_program<float>(m, "Program32");
  bind_program<double>(m, "Program64");
}
