// Streams and pools for Python. A row of float32 is read and written through Python's buffer protocol, and no
// array is made: see ostinato/runtime/stream.py and pool.py.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <optional>

#include "play/float_environment.h"
#include "python/arguments.h"
#include "stream/slot_states.h"
#include "stream/stream_state.h"

namespace ostinato {

// The dense array of a Python object, borrowed while this lives. If the object lends none, `is` says false.
class Lent {
 public:
  Lent(nanobind::handle object, bool writable) {
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) == 0) {
      held_ = true;
    } else {
      PyErr_Clear();
    }
  }
  Lent(const Lent&) = delete;
  ~Lent() {
    if (held_) PyBuffer_Release(&view_);
  }
  // True if the array has this shape, and elements of this format of Python's struct module.
  bool is(char format, std::initializer_list<int64_t> shape) const {
    if (!held_ || view_.ndim != int(shape.size()) || !view_.format) return false;
    const char* f = view_.format;
    if (*f == '<' || *f == '=' || *f == '@') f++;
    const bool alike = *f == format || (format == 'q' && *f == 'l' && view_.itemsize == 8);
    return alike && f[1] == 0 && std::equal(shape.begin(), shape.end(), view_.shape);
  }
  template <class T> T* data() const { return static_cast<T*>(view_.buf); }

 private:
  Py_buffer view_;
  bool held_ = false;
};

[[noreturn]] inline void refuse_array(const char* name, const char* wanted) {
  throw nanobind::type_error((std::string(name) + ": wanted a dense array, " + wanted).c_str());
}

// Lets other Python threads run, while this lives, if the call is a long one.
class MaybeReleased {
 public:
  explicit MaybeReleased(int64_t multiplies) {
    if (multiplies >= kLongMultiplies) released_.emplace();
  }

 private:
  std::optional<nanobind::gil_scoped_release> released_;
};

inline int64_t largest(const float* x, int64_t n) { return std::max_element(x, x + n) - x; }

inline BoundPlan bound_plan(const Integers& values, const std::vector<double>& scalars,
                            const Addresses& arguments, std::vector<int32_t> inputs,
                            std::vector<int32_t> outputs, const std::string& isa) {
  const Program program = read_program(values, scalars);
  if (int64_t(arguments.list.size()) != program.n_arguments)
    throw std::invalid_argument("wanted " + std::to_string(program.n_arguments) + " arguments");
  return {std::make_unique<StepPlan>(program, arguments.list.data(), isa), std::move(inputs),
          std::move(outputs)};
}

// `with state:` around several calls that belong together, during which another user is refused.
template <class States> void enter(States& self) {
  if (self.in_use().test_and_set(std::memory_order_acquire)) SoleUse::refuse();
}
template <class States> void leave(States& self, nanobind::args) {
  self.in_use().clear(std::memory_order_release);
}

// The reasons for which push refuses a row: returned instead of the place of the largest value.
enum Refused : int64_t { kNotARow = -1, kNotFinite = -2 };

inline int64_t push_row(StreamState& self, nanobind::handle x, nanobind::handle out, bool finite) {
  const StreamModel& model = self.model();
  const SoleUse use(self.in_use());
  const Lent row(x, false);
  if (!row.is('f', {model.input_floats()})) return kNotARow;
  if (out.is_none()) {
    const MaybeReleased released(model.multiplies());
    return self.step(row.data<float>(), nullptr, finite) ? 0 : int64_t(kNotFinite);
  }
  const Lent answer(out, true);
  if (!answer.is('f', {model.answer_floats()}))
    refuse_array("out", "of one float32 for each value of an answer");
  if (answer.data<float>() == row.data<float>())
    refuse_array("out", "that is not x: a step reads x after it has written parts of the answer");
  const MaybeReleased released(model.multiplies());
  if (!self.step(row.data<float>(), answer.data<float>(), finite)) return kNotFinite;
  return largest(answer.data<float>(), model.answer_floats());
}

// The answer to the carry as it is.
inline int64_t answer_now(StreamState& self, nanobind::handle out) {
  const SoleUse use(self.in_use());
  const Lent answer(out, true);
  if (!self.model().has_map() || !answer.is('f', {self.model().answer_floats()}))
    refuse_array("out", "of one float32 for each value of an answer");
  self.answer(answer.data<float>());
  return largest(answer.data<float>(), self.model().answer_floats());
}

inline void set_carry(StreamState& self, int64_t steps, nanobind::handle carry) {
  const Lent from(carry, false);
  if (!from.is('f', {self.model().carry_floats()})) refuse_array("carry", "of float32");
  self.set(steps, from.data<float>());
}
inline void get_carry(StreamState& self, nanobind::handle out) {
  const Lent to(out, true);
  if (!to.is('f', {self.model().carry_floats()})) refuse_array("out", "of float32");
  std::memcpy(to.data<float>(), self.carry(), size_t(self.model().carry_floats()) * sizeof(float));
}

// n steps of one stream. out: the answer to each step, [n, K], or to the last one, [1, K]. The caller has
// entered the stream, and has found that x is finite.
inline void push_rows(StreamState& self, int64_t n, nanobind::handle x, nanobind::handle out, bool each) {
  const int64_t F = self.model().input_floats(), K = self.model().answer_floats();
  const Lent rows(x, false), answers(out, true);
  if (!rows.is('f', {n, F})) refuse_array("x", "[n, F] of float32");
  if (!answers.is('f', {each ? n : 1, K})) refuse_array("out", "[n or 1, K] of float32");
  const MaybeReleased released(self.model().multiplies() * n);
  float* const answer = answers.data<float>();
  const FloatEnvironment environment;
  for (int64_t r = 0; r < n; r++)
    self.step(environment, rows.data<float>() + r * F, each ? answer + r * K : r == n - 1 ? answer : nullptr);
}

// Rows as the model's step reads them: x [n, F] into out [n, row_floats].
inline void prepare_rows(const StreamModel& self, int64_t n, nanobind::handle x, nanobind::handle out) {
  const int64_t F = self.input_floats();
  const Lent rows(x, false), prepared(out, true);
  if (!rows.is('f', {n, F})) refuse_array("x", "[n, F] of float32");
  if (!prepared.is('f', {n, self.row_floats()})) refuse_array("out", "[n, row_floats] of float32");
  const FloatEnvironment environment;
  for (int64_t r = 0; r < n; r++)
    self.preparation().apply(rows.data<float>() + r * F, prepared.data<float>() + r * self.row_floats());
}

// Plays n steps on the rows of x [m, F], over and over, and returns the nanoseconds of one. out: a place for
// the answers; None: no answer is computed.
inline double time_steps(StreamState& self, nanobind::handle x, int64_t m, nanobind::handle out,
                         int64_t n) {
  const SoleUse use(self.in_use());
  const Lent rows(x, false), answer(out, true);
  const bool answers = !out.is_none();
  const int64_t F = self.model().input_floats();
  if (m < 1 || n < 1 || !rows.is('f', {m, F})) refuse_array("x", "[m, F] of float32");
  if (answers && !answer.is('f', {self.model().answer_floats()})) refuse_array("out", "of float32");
  const nanobind::gil_scoped_release released;
  const FloatEnvironment environment;
  const auto begin = std::chrono::steady_clock::now();
  for (int64_t i = 0, r = 0; i < n; i++, r = r + 1 < m ? r + 1 : 0)
    self.step(environment, rows.data<float>() + r * F, answers ? answer.data<float>() : nullptr);
  const std::chrono::duration<double, std::nano> all = std::chrono::steady_clock::now() - begin;
  return all.count() / double(n);
}

// One step of n slots; largest_at and steps get the place of each answer's largest value, and how many steps
// its slot has had. Returns n, or the first row that is not finite: then no slot has moved. The caller has
// entered the pool.
inline int64_t push_slots(SlotStates& self, int64_t n, nanobind::handle slots, nanobind::handle x,
                          nanobind::handle out, nanobind::handle largest_at, nanobind::handle steps,
                          bool finite) {
  const int64_t F = self.model().input_floats(), K = self.model().answer_floats();
  const Lent of_slots(slots, false), rows(x, false), answers(out, true), places(largest_at, true),
      counts(steps, true);
  if (!of_slots.is('q', {n})) refuse_array("slots", "[n] of int64");
  if (!rows.is('f', {n, F})) refuse_array("x", "[n, F] of float32");
  if (!answers.is('f', {n, K})) refuse_array("out", "[n, K] of float32");
  if (!places.is('q', {n})) refuse_array("largest_at", "[n] of int64");
  if (!counts.is('q', {n})) refuse_array("steps", "[n] of int64");
  const MaybeReleased released(self.model().multiplies() * n);
  const int64_t played =
      self.push(n, of_slots.data<int64_t>(), {rows.data<float>(), F}, {answers.data<float>(), K}, finite);
  if (played < n) return played;
  for (int64_t r = 0; r < n; r++) {
    places.data<int64_t>()[r] = largest(answers.data<float>() + r * K, K);
    counts.data<int64_t>()[r] = self.steps(of_slots.data<int64_t>()[r]);
  }
  return n;
}

// The outcomes of read_items.
enum Met : int64_t { kAllRead, kNewKey, kOtherRow };

// From {key: row} to slots [n] and x [n, F]: index has the slot of each key. Stops at a key without a slot,
// and at a row that is no dense float32 row.
inline int64_t read_items(const nanobind::dict& items, const nanobind::dict& index, nanobind::handle slots,
                          nanobind::handle x, int64_t F) {
  const int64_t n = int64_t(items.size());
  const Lent to_slots(slots, true), to_x(x, true);
  if (!to_slots.is('q', {n})) refuse_array("slots", "[n] of int64");
  if (!to_x.is('f', {n, F})) refuse_array("x", "[n, F] of float32");
  Py_ssize_t at = 0;
  PyObject *key = nullptr, *row = nullptr;
  for (int64_t i = 0; PyDict_Next(items.ptr(), &at, &key, &row); i++) {
    PyObject* const slot = PyDict_GetItemWithError(index.ptr(), key);
    if (!slot) {
      if (PyErr_Occurred()) throw nanobind::python_error();
      return kNewKey;
    }
    to_slots.data<int64_t>()[i] = PyLong_AsLongLong(slot);
    const Lent from(row, false);
    if (!from.is('f', {F})) return kOtherRow;
    std::memcpy(to_x.data<float>() + i * F, from.data<float>(), size_t(F) * sizeof(float));
  }
  return kAllRead;
}

inline void bind_models(nanobind::module_& m) {
  namespace nb = nanobind;
  using namespace nb::literals;
  nb::class_<BoundPlan>(m, "BoundPlan")
      .def(
          "__init__",
          [](BoundPlan* self, const Integers& values, const std::vector<double>& scalars,
             const Addresses& arguments, std::vector<int32_t> inputs, std::vector<int32_t> outputs,
             const std::string& isa) {
            new (self)
                BoundPlan(bound_plan(values, scalars, arguments, std::move(inputs), std::move(outputs), isa));
          },
          "values"_a, "scalars"_a, "arguments"_a, "inputs"_a, "outputs"_a, "isa"_a);
  nb::class_<StreamModel>(m, "StreamModel")
      .def(nb::new_([](int64_t row_floats, BoundPlan& step, BoundPlan* map, std::vector<float> init,
                       std::vector<double> mean, std::vector<double> scale, std::vector<double> fill,
                       std::vector<int64_t> names, bool mask) {
             auto of_map = map ? std::make_unique<const BoundPlan>(std::move(*map)) : nullptr;
             RowPreparation preparation{std::move(mean), std::move(scale), std::move(fill), std::move(names),
                                        mask};
             return std::make_shared<StreamModel>(row_floats, std::move(step), std::move(of_map),
                                                  std::move(init), std::move(preparation));
           }),
           "row_floats"_a, "step"_a, "map"_a.none(), "init"_a, "mean"_a, "scale"_a, "fill"_a,
           "names"_a, "mask"_a)
      .def("prepare", prepare_rows, "n"_a, "x"_a, "out"_a)
      .def_prop_ro("row_floats", &StreamModel::row_floats)
      .def_prop_ro("prepares", &StreamModel::prepares)
      .def_prop_ro("input_floats", &StreamModel::input_floats)
      .def_prop_ro("answer_floats", &StreamModel::answer_floats)
      .def_prop_ro("carry_floats", &StreamModel::carry_floats)
      .def_prop_ro("multiplies", &StreamModel::multiplies)
      .def_prop_ro("weight_bytes", &StreamModel::weight_bytes);
}
inline void bind_states(nanobind::module_& m) {
  namespace nb = nanobind;
  using namespace nb::literals;
  nb::class_<StreamState>(m, "StreamState")
      .def(
          "__init__",
          [](StreamState* self, std::shared_ptr<StreamModel> model) {
            new (self) StreamState(std::move(model));
          },
          "model"_a)
      .def("push", push_row, "x"_a, "out"_a.none(), "finite"_a)
      .def("push_rows", push_rows, "n"_a, "x"_a, "out"_a, "each"_a)
      .def("answer", answer_now, "out"_a)
      .def(
          "fork", [](const StreamState& self) { return new StreamState(self); },
          nb::rv_policy::take_ownership)
      .def("set", set_carry, "steps"_a, "carry"_a)
      .def("get", get_carry, "out"_a)
      .def("__enter__", enter<StreamState>)
      .def("__exit__", leave<StreamState>)
      .def("reset", &StreamState::reset)
      .def("time_steps", time_steps, "x"_a, "m"_a, "out"_a.none(), "n"_a)
      .def_prop_ro("steps", &StreamState::steps)
      .def_prop_ro_static("bytes_beside_the_carry",
                          [](nb::handle) { return StreamState::bytes_beside_the_carry(); });
}
inline void bind_slots(nanobind::module_& m) {
  namespace nb = nanobind;
  using namespace nb::literals;
  nb::class_<SlotStates>(m, "SlotStates")
      .def(
          "__init__",
          [](SlotStates* self, std::shared_ptr<StreamModel> model, int64_t capacity) {
            new (self) SlotStates(std::move(model), capacity);
          },
          "model"_a, "capacity"_a)
      .def("push", push_slots, "n"_a, "slots"_a, "x"_a, "out"_a, "largest_at"_a, "steps"_a, "finite"_a)
      .def("__enter__", enter<SlotStates>)
      .def("__exit__", leave<SlotStates>)
      .def("steps_of",
           [](const SlotStates& self, int64_t slot) {
             self.check(slot);
             return self.steps(slot);
           })
      .def("reset", &SlotStates::reset, "slot"_a)
      .def("set",
           [](SlotStates& self, int64_t slot, int64_t steps, nb::handle carry) {
             const Lent from(carry, false);
             if (!from.is('f', {self.model().carry_floats()})) refuse_array("carry", "of float32");
             self.set(slot, steps, from.data<float>());
           })
      .def("get", [](SlotStates& self, int64_t slot, nb::handle out) {
        self.check(slot);
        const Lent to(out, true);
        if (!to.is('f', {self.model().carry_floats()})) refuse_array("out", "of float32");
        std::memcpy(to.data<float>(), self.carry(slot),
                    size_t(self.model().carry_floats()) * sizeof(float));
      });
}
inline void bind_streams(nanobind::module_& m) {
  namespace nb = nanobind;
  using namespace nb::literals;
  bind_models(m);
  bind_states(m);
  bind_slots(m);
  m.def(
      "all_finite",
      [](nb::handle x, int64_t n, int64_t F) {
        const Lent rows(x, false);
        if (!rows.is('f', {n, F})) refuse_array("x", "[n, F] of float32");
        return all_finite(rows.data<float>(), n * F);
      },
      "x"_a, "n"_a, "F"_a);
  m.def("read_items", read_items, "items"_a, "index"_a, "slots"_a, "x"_a, "F"_a);
}

}  // namespace ostinato
