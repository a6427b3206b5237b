// The Python module. Only the files of this folder know Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdlib>

#include "kernels/dispatch.h"
#include "play/executor.h"
#include "play/float_environment.h"
#include "play/threads.h"
#include "python/cache_key.h"
#include "python/call_watch.h"
#include "python/passes.h"
#include "python/streams.h"
#include "python/tables.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ostinato {
namespace {

template <class T> using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

template <class T> void make_program(Executor<T>* self, const Integers& values,
                                     const std::vector<double>& scalars, Workspaces& workspaces) {
  new (self) Executor<T>(read_program(values, scalars), workspaces);
}
template <class T>
void play_program(Executor<T>& self, const Addresses& arguments, int64_t n_steps, int64_t n_rows,
                  Integers rows, Integers lengths, int threads, const std::string& isa,
                  int64_t work_per_thread, const std::string& tier) {
  const CallShape shape{n_steps, n_rows, std::move(rows), std::move(lengths)};
  call_engine(self, arguments.list, shape, threads, isa, work_per_thread, nullptr,
              tier.empty() ? tier_of_process() : tier_of(tier.c_str()));
}
template <class T>
int64_t needed_bytes(const Executor<T>& self, int64_t n_steps, int64_t n_rows, int threads,
                     const std::string& isa) {
  if (n_steps < 1 || n_rows < 1) throw std::invalid_argument("wanted at least one step and one row");
  PlayRequest request;
  request.T = n_steps;
  request.B = n_rows;
  request.threads = threads;
  request.isa = isa;
  request.tier = tier_of_process();
  return self.needed_bytes(request);
}
template <class T>
std::string played_as(const Executor<T>& self, int64_t n_steps, int64_t n_rows, const std::string& isa) {
  PlayRequest request;
  request.T = n_steps;
  request.B = n_rows;
  request.isa = isa;
  request.tier = tier_of_process();
  return self.played_as(request);
}
nb::bytes bytes_of_code(const RegisterCode::Instructions& code) {
  return nb::bytes(code.data(), code.size() * sizeof(code[0]));
}
// None, or: the step; each late term, the instructions as numbers of 16 bits (op, d, a, b, c); the registers
// of carries.
template <class T> nb::object register_code(const Executor<T>& self) {
  const RegisterCode* const code = self.register_code();
  if (!code) return nb::none();
  nb::list late_terms, carries;
  for (const RegisterCode::Instructions& term : code->late_terms) late_terms.append(bytes_of_code(term));
  for (const RegisterCode::CarryColumn& x : code->carries) carries.append(x.d);
  return nb::make_tuple(bytes_of_code(code->step), late_terms, carries);
}
template <class T> void use_machine_code(Executor<T>& self, const Integers& addresses) {
  MachineCode<T> code;
  for (int64_t address : addresses) {
    if (!address) throw std::invalid_argument("machine code: a function has no address");
    code.late_terms.push_back(reinterpret_cast<RegisterFunction<T>>(address));
  }
  if (addresses.empty()) throw std::invalid_argument("machine code: wanted the function of a step first");
  code.step = code.late_terms.front();
  code.late_terms.erase(code.late_terms.begin());
  self.use_machine_code(std::move(code));
}
// The addresses of the operations on numbers, in the order of ops().
template <class T> Integers addresses_of_operations(const Executor<T>&, const std::string& isa) {
  Integers found;
  for (const auto& function : kernels<T>(isa).on_numbers)
    found.push_back(int64_t(reinterpret_cast<intptr_t>(function)));
  return found;
}
template <class T> void bind_program(nb::module_& m, const char* name) {
  nb::class_<Executor<T>>(m, name, nb::dynamic_attr())  // for what is known of its machine code
      .def("__init__", make_program<T>, "values"_a, "scalars"_a, "workspaces"_a, nb::keep_alive<1, 4>())
      .def("play", play_program<T>, "arguments"_a, "n_steps"_a, "n_rows"_a, "rows"_a, "lengths"_a,
           "threads"_a, "isa"_a, "work_per_thread"_a = 0, "tier"_a = "")
      .def("register_code", register_code<T>)
      .def("addresses_of_operations", addresses_of_operations<T>, "isa"_a)
      .def("use_machine_code", use_machine_code<T>, "addresses"_a)
      .def("played_as", played_as<T>, "n_steps"_a, "n_rows"_a, "isa"_a)
      .def("needed_bytes", needed_bytes<T>, "n_steps"_a, "n_rows"_a, "threads"_a, "isa"_a);
}

// One elementwise operation over whole arrays, in the engine's environment, for tests.
template <class T>
void elementwise(const std::string& isa, int op, Array<const T> a, Array<const T> b, Array<const T> c,
                 Array<T> out, double s) {
  if (op < 0 || op >= kOpCount) throw std::invalid_argument("no such operation");
  const int64_t n = int64_t(out.size());
  if (int64_t(a.size()) != n || int64_t(b.size()) != n || int64_t(c.size()) != n)
    throw std::invalid_argument("operands of one size are wanted");
  const Rows<T> table[4] = {{const_cast<T*>(a.data()), n},
                            {const_cast<T*>(b.data()), n},
                            {const_cast<T*>(c.data()), n},
                            {out.data(), n}};
  const int16_t which[4] = {0, 1, 2, 3};
  const FloatEnvironment environment;
  kernels<T>(isa).elementwise[op](1, n, table, which, T(s));
}

void bind_passes(nb::module_& m) {
  nb::class_<Whereabouts>(m, "Whereabouts")
      .def(nb::init<const Objects&>(), "given"_a)
      .def("check", &Whereabouts::check, "given"_a);
  nb::class_<Tape>(m, "Tape").def("holds", &Tape::holds);
  nb::class_<RunningSums>(m, "RunningSums").def(nb::init<int64_t>(), "run_steps"_a);
  nb::class_<ForwardPass>(m, "ForwardPass")
      .def(nb::init<nb::object, const SourceTuples&, nb::handle, int64_t, std::vector<Integers>,
                    std::vector<bool>, std::vector<Integers>, Integers, bool, int64_t>(),
           "program"_a, "sources"_a, "dtype"_a, "n_captured"_a, "state_shapes"_a, "keeps"_a, "y_shapes"_a,
           "y_is_carry"_a, "reverse"_a, "tape_width"_a)
      .def("play", &ForwardPass::play, "given"_a, "once"_a, "order"_a, "lengths"_a, "threads"_a, "isa"_a,
           "room_steps"_a = 0, "unit_rows"_a = 1)
      .def("needed_bytes", &ForwardPass::needed_bytes, "n_steps"_a, "run_steps"_a, "n_rows"_a, "threads"_a,
           "isa"_a);
  nb::class_<BackwardPass>(m, "BackwardPass")
      .def(nb::init<nb::object, const SourceTuples&, nb::handle, int64_t, std::vector<bool>,
                    std::vector<bool>, const std::vector<std::pair<Integers, bool>>&>(),
           "program"_a, "sources"_a, "dtype"_a, "n_ys"_a, "init_wanted"_a, "x_wanted"_a, "sums"_a)
      .def("play", &BackwardPass::play, "tape"_a, "given"_a, "once"_a, "grads"_a, "isa"_a,
           "run"_a = nb::none(), "last"_a = true, "d_xs"_a = Objects(), "by_unit"_a = false)
      .def("chunk_steps", &BackwardPass::chunk_steps, "run_steps"_a, "n_rows"_a, "isa"_a)
      .def("needed_bytes", &BackwardPass::needed_bytes, "n_steps"_a, "run_steps"_a, "n_rows"_a, "threads"_a,
           "isa"_a);
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
  m.def("set_compiler", [](nb::object f) { compiler() = std::move(f); }, "f"_a);
  m.def("engine_ns", [] { return engine_ns.load(); });
  m.def("environment", [](const char* name) { return std::getenv(name); }, "name"_a);

  // Tables, for tests.
  m.def("ops", ops);
  m.def("tables", tables);
  m.def("numbers_by_path", numbers_by_path, "values"_a, "scalars"_a);
  m.def("elementwise", elementwise<float>, "isa"_a, "op"_a, "a"_a, "b"_a, "c"_a, "out"_a, "s"_a);
  m.def("elementwise", elementwise<double>, "isa"_a, "op"_a, "a"_a, "b"_a, "c"_a, "out"_a, "s"_a);

  // The cache's key.
  m.def("modes", modes);
  m.def("described", described, "captured"_a, "init"_a, "xs"_a, "axis"_a);

  // Guards.
  nb::class_<CallWatch>(m, "CallWatch")
      .def(nb::init<nb::object, nb::object, nb::iterable, nb::iterable, nb::handle, nb::object, uintptr_t>(),
           "began"_a, "called"_a, "users"_a, "watched"_a, "importing"_a, "before"_a.none(), "set_profile"_a)
      .def("enable", &CallWatch::enable)
      .def("__call__", &CallWatch::call, "frame"_a, "event"_a, "argument"_a.none());

  nb::class_<Addresses>(m, "Addresses")
      .def(
          "__init__",
          [](Addresses* self, const Integers& numbers) { new (self) Addresses(addresses_of(numbers)); },
          "numbers"_a);
  nb::class_<Workspaces>(m, "Workspaces").def(nb::init<>()).def("kept_bytes", &Workspaces::kept_bytes);
  bind_program<float>(m, "Program32");
  bind_program<double>(m, "Program64");
  bind_passes(m);
  bind_streams(m);
}
