// A pass of a recorded step on PyTorch's tensors: what `scan`'s autograd function calls each time.
// ostinato/compiler/play/step.py plans passes; here is how their tensors are made and given to a program.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "play/executor.h"
#include "python/tensors.h"

namespace ostinato {

using Integers = std::vector<int64_t>;
using Objects = std::vector<nanobind::object>;
using SourceList = std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>>;  // see Source

inline std::atomic<int64_t> engine_ns{0};  // in which the engine has played, since the start

// A call's size, and the order and lengths of its rows in the engine; empty: the caller's, and all whole.
struct Size {
  int64_t n_steps, n_rows;
  Integers order, lengths;
};

template <class T>
void play(Executor<T>& executor, const std::vector<Argument>& arguments, const Size& size, int threads,
          const std::string& isa, int64_t work_per_thread = PlayRequest().work_per_thread) {
  if (int64_t(arguments.size()) != executor.n_arguments())
    throw std::invalid_argument("play: wanted " + std::to_string(executor.n_arguments()) + " arguments");
  if (size.n_steps < 1 || size.n_rows < 1) throw std::invalid_argument("play: wanted at least one step and one row");
  if (work_per_thread < 0) throw std::invalid_argument("play: work_per_thread is 1 or more, or 0: as measured");
  for (const Integers* list : {&size.order, &size.lengths})
    if (!list->empty() && int64_t(list->size()) != size.n_rows)
      throw std::invalid_argument("play: rows and lengths need one number for each row");
  for (int64_t row : size.order)
    if (row < 0 || row >= size.n_rows) throw std::invalid_argument("play: rows has a number out of range");
  for (int64_t length : size.lengths)
    if (length < 0 || length > size.n_steps) throw std::invalid_argument("play: lengths has a number out of range");
  PlayRequest p;
  p.T = size.n_steps, p.B = size.n_rows, p.arguments = arguments.data(), p.threads = threads, p.work_per_thread = work_per_thread, p.isa = isa;
  if (!size.order.empty()) p.rows = size.order.data();
  if (!size.lengths.empty()) p.lengths = size.lengths.data();
  nanobind::gil_scoped_release release;
  const auto begin = std::chrono::steady_clock::now();
  executor.play(p);
  engine_ns += std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
}

// Workspace for saved values that tapes gave back, for the next: new pages cost.
using Spare = Objects;

// What the backward pass needs of the forward pass. Outputs stay out of it: they hold the graph, and the
// graph holds the tape.
struct Tape {
  Objects tensors;  // x…, init…, carry…: None for what is not kept
  size_t first_carry = 0;
  nanobind::object memory;  // of the saved values; None where there are none
  std::shared_ptr<Spare> spare;
  Size size{};
  bool ragged = false;
  struct Given {  // a tensor as it was: whose data is replaced before the backward pass must be noticed
    PyObject* tensor;
    const char* data;
    int64_t dtype, elements;
  };
  std::vector<Given> given;
  int threads = 1;  // which the order in `memory` depends on

  Tape() = default;
  Tape(const Tape&) = delete;
  // Not by __del__ in Python: the interpreter runs signal handlers there, and drops what they raise; a
  // Ctrl-C was lost.
  ~Tape() {
    if (spare && !memory.is_none()) spare->push_back(std::move(memory));
  }
  void remember(const Objects& all) {
    given.reserve(all.size());
    for (const nanobind::object& t : all) {
      const View v = view_of(t);
      given.push_back({t.ptr(), v.data, v.dtype, v.elements()});
    }
  }
  void check(const Objects& all) const {
    for (size_t i = 0; i < all.size(); i++) {
      const View v = view_of(all[i]);
      const Given& was = given.at(i);
      // Hooks on saved tensors may give others for them.
      if (v.dtype != was.dtype || v.elements() != was.elements || (all[i].ptr() == was.tensor && v.data != was.data))
        throw std::runtime_error("scan: a tensor that the step takes from outside, or init or xs, was given other data "
                                 "(.data, .to(), .double()) between the forward and the backward pass");
    }
  }
  // Whether all is as it was played: outputs are the carries that the backward pass reads.
  bool holds() const {
    for (size_t i = first_carry; i < tensors.size(); i++)
      if (!tensors[i].is_none() && nanobind::cast<int64_t>(tensors[i].attr(torch().version)) != 0) return false;
    return true;
  }
};

class Pass {
 public:
  // program: Program32 or Program64; or for tests a function of (lists, n_steps, n_rows, rows, lengths).
  // sources: see Source. dtype: of all that is made.
  Pass(nanobind::object program, const SourceList& sources, nanobind::handle dtype)
      : program_(std::move(program)), dtype_(nanobind::borrow(dtype)) {
    for (const auto& [list, at, how, p, q] : sources) sources_.push_back({list, at, How(how), p, q});
    const auto torch = nanobind::module_::import_("torch");
    using namespace nanobind::literals;
    empty_ = torch.attr("empty")(0, "dtype"_a = dtype, "device"_a = "cpu");
  }

 protected:
  // Captured tensors come first among those given: a source's place in the one is that in the other.
  enum { kTensors, kGiven, kSums, kOnce, kMemory, kLists };
  using Lists = Objects[kLists];

  void play(const Lists& lists, const Size& size, int threads, const std::string& isa) const {
    if (auto* program = as<float>()) return ostinato::play(*program, addresses(lists, size).list, size, threads, isa);
    if (auto* program = as<double>()) return ostinato::play(*program, addresses(lists, size).list, size, threads, isa);
    nanobind::list shown;
    for (const Objects& list : lists) shown.append(nanobind::cast(list));
    program_(shown, size.n_steps, size.n_rows, size.order, size.lengths);
  }
  // New, dense. The sizes one by one: PyTorch looks for them first, and a tuple costs it an exception.
  nanobind::object made(const nanobind::tuple& shape, bool zeros = false) const {
    const auto make = empty_.attr(zeros ? torch().new_zeros : torch().new_empty);
    return shape.size() ? make(*shape) : make(shape);
  }
  nanobind::object made(std::initializer_list<int64_t> first, const Integers& rest, bool zeros) const {
    return made(shape_of(first, rest), zeros);
  }
  static nanobind::tuple shape_of(std::initializer_list<int64_t> first, const Integers& rest) {
    const auto shape = nanobind::steal<nanobind::tuple>(PyTuple_New(Py_ssize_t(first.size() + rest.size())));
    Py_ssize_t i = 0;
    for (int64_t n : first) PyTuple_SetItem(shape.ptr(), i++, PyLong_FromLongLong(n));
    for (int64_t n : rest) PyTuple_SetItem(shape.ptr(), i++, PyLong_FromLongLong(n));
    return shape;
  }
  nanobind::object of_our_type(nanobind::handle tensor) const {
    if (tensor.attr(torch().dtype).is(dtype_)) return nanobind::borrow(tensor);
    return tensor.attr("to")(dtype_);
  }
  // The tensor if it is dense from an axis on, whatever its strides are before; else a copy.
  static nanobind::object dense_from(int64_t axis, nanobind::object tensor) {
    const View v = view_of(tensor);
    if (v.hollow()) return tensor.attr("clone")();
    int64_t expected = 1;
    for (int64_t i = v.n_axes; i-- > axis; expected *= v.shape[i])
      if (v.shape[i] != 1 && v.strides[i] != expected) return tensor.attr("contiguous")();
    return tensor;
  }
  static void add(Objects& list, nanobind::handle more) {
    for (nanobind::handle x : more) list.push_back(nanobind::borrow(x));
  }

 private:
  template <class T> Executor<T>* as() const {
    return nanobind::isinstance<Executor<T>>(program_) ? nanobind::inst_ptr<Executor<T>>(program_) : nullptr;
  }
  Addresses addresses(const Lists& lists, const Size& size) const {
    Addresses found;
    found.list.reserve(sources_.size());
    for (const Source& x : sources_)
      found.list.push_back(argument_of(x, lists[x.list].at(size_t(x.at)), size.n_steps, size.n_rows, found));
    return found;
  }
  nanobind::object program_, dtype_, empty_;
  std::vector<Source> sources_;
};

class ForwardPass : public Pass {
 public:
  // What is known of a recorded step in one direction. Shapes are those of a row; keeps: whether each leaf of
  // the carry lies there at every step; y_is_carry: the leaf that an output is, or −1.
  ForwardPass(nanobind::object program, const SourceList& sources, nanobind::handle dtype, int64_t n_captured,
              std::vector<Integers> state_shapes, std::vector<bool> keeps, std::vector<Integers> y_shapes,
              Integers y_is_carry, bool reverse, int64_t tape_width)
      : Pass(std::move(program), sources, dtype), first_x_(size_t(n_captured) + state_shapes.size()),
        state_shapes_(std::move(state_shapes)), keeps_(std::move(keeps)), y_shapes_(std::move(y_shapes)),
        y_is_carry_(std::move(y_is_carry)), tape_width_(tape_width), spare_(std::make_shared<Spare>()) {
    PyObject *const one = PyLong_FromLong(reverse ? -1 : 1), *const none = Py_None;
    output_slots_ = nanobind::steal(reverse ? PySlice_New(none, one, none) : PySlice_New(one, none, none));
    Py_DECREF(one);
  }

  // Outputs [T, B, …] and last carry (shaped as init), in one list; and the tape.
  // given: captured tensors; init, [B, …] or [1, B, …]; xs, [T, B, …]. once: what was computed of captured tensors
  // alone. order, lengths: of a ragged batch.
  nanobind::tuple play(nanobind::iterable given, nanobind::iterable once, Integers order, Integers lengths, int threads,
                       const std::string& isa) const {
    Lists lists;
    Objects& all = lists[kGiven];
    add(all, given);
    const size_t first_init = first_x_ - state_shapes_.size();
    auto tape = std::make_unique<Tape>();
    tape->remember(all);
    Objects& tensors = tape->tensors;
    for (size_t i = first_x_; i < all.size(); i++) tensors.push_back(dense_from(2, of_our_type(all[i])));
    const View first = view_of(tensors.at(0));
    const int64_t T = first.shape[0], B = first.shape[1];
    tape->ragged = !lengths.empty();
    if (order.empty() && tape->ragged && lengths[0] == T) lengths.clear();  // all rows are whole
    tape->size = {T, B, std::move(order), std::move(lengths)}, tape->threads = threads;
    Objects carries, finals;
    for (size_t i = 0; i < state_shapes_.size(); i++) {
      const nanobind::object& leaf = all[first_init + i];
      tensors.push_back(dense_from(0, of_our_type(leaf)));
      // Beyond a row's length what is shown is zero.
      const bool shown = tape->ragged && std::find(y_is_carry_.begin(), y_is_carry_.end(), int64_t(i)) != y_is_carry_.end();
      carries.push_back(keeps_.at(i) ? made({T + 1, B}, state_shapes_[i], shown) : nanobind::none());
      finals.push_back(made(nanobind::tuple(leaf.attr(torch().shape))));
    }
    tape->first_carry = tensors.size();
    tensors.insert(tensors.end(), carries.begin(), carries.end());
    nanobind::list outs;
    for (size_t i = 0; i < y_is_carry_.size(); i++) {
      // Not a view to autograd, which would tie the base to the graph; a change in place shows in the
      // base's version. Before the engine drives this code from the caches.
      const int64_t leaf = y_is_carry_[i];
      if (leaf >= 0) {
        nanobind::object y = carries[size_t(leaf)][output_slots_];
        if (y_shapes_[i] != state_shapes_[size_t(leaf)]) y = y.attr("view")(shape_of({T, B}, y_shapes_[i]));
        outs.append(y.attr(torch().detach)());
      } else outs.append(made({T, B}, y_shapes_[i], tape->ragged));
    }
    tape->memory = tape_memory(tape_width_ * T * B);
    tape->spare = spare_;
    for (const nanobind::object& leaf : finals) outs.append(leaf);
    lists[kTensors] = tensors;
    add(lists[kTensors], outs), add(lists[kOnce], once);
    lists[kMemory] = {tape->memory};
    Pass::play(lists, tape->size, threads, isa);
    return nanobind::make_tuple(outs, nanobind::cast(std::move(tape)));
  }

 private:
  // What an earlier call gave back, if it fits.
  nanobind::object tape_memory(int64_t size) const {
    if (size == 0) return nanobind::none();
    size += kPage / int64_t(sizeof(float));  // as much as is skipped at its beginning
    if (!spare_->empty()) {
      const nanobind::object memory = std::move(spare_->back());
      spare_->pop_back();
      if (view_of(memory).shape[0] == size) return memory;
      Spare().swap(*spare_);  // of calls of another size: never more is kept than was in use at once
    }
    return made({size}, {}, false);
  }
  size_t first_x_;  // among the tensors of a call
  std::vector<Integers> state_shapes_;
  std::vector<bool> keeps_;
  std::vector<Integers> y_shapes_;
  Integers y_is_carry_;
  int64_t tape_width_;
  nanobind::object output_slots_;
  std::shared_ptr<Spare> spare_;
};

class BackwardPass : public Pass {
 public:
  // n_ys: so many outputs. init_wanted, x_wanted: whose gradients are computed. sums: (shape, whether it must
  // begin as zeros) of each.
  BackwardPass(nanobind::object program, const SourceList& sources, nanobind::handle dtype, int64_t n_ys,
               std::vector<bool> init_wanted, std::vector<bool> x_wanted,
               const std::vector<std::pair<Integers, bool>>& sums)
      : Pass(std::move(program), sources, dtype), n_ys_(size_t(n_ys)), init_wanted_(std::move(init_wanted)),
        x_wanted_(std::move(x_wanted)) {
    for (const auto& [shape, zeros] : sums)
      sums_.emplace_back(nanobind::tuple(nanobind::cast(shape)), zeros);
  }

  // The sums; and the gradients of init and of xs, None for those not wanted.
  // given: as to the forward pass. grads: of outputs and of the last carry, or None.
  nanobind::tuple play(const Tape& tape, nanobind::iterable given, nanobind::iterable once, nanobind::iterable grads,
                       const std::string& isa) const {
    Lists lists;
    Objects& tensors = lists[kTensors];
    tensors = tape.tensors;
    size_t place = 0;
    for (nanobind::handle d : grads) {
      const int64_t axis = place++ < n_ys_ ? 2 : 0;  // time first, or rows
      tensors.push_back(d.is_none() ? nanobind::none() : dense_from(axis, resolved(d)));
    }
    nanobind::list found;
    for (size_t i = 0; i < init_wanted_.size(); i++) add_gradient(found, init_wanted_[i], tape.tensors.at(x_wanted_.size() + i), false);
    for (size_t i = 0; i < x_wanted_.size(); i++) add_gradient(found, x_wanted_[i], tape.tensors.at(i), tape.ragged);
    add(tensors, found);
    for (const auto& [shape, zeros] : sums_) lists[kSums].push_back(made(shape, zeros));
    add(lists[kGiven], given), add(lists[kOnce], once);
    tape.check(lists[kGiven]);
    lists[kMemory] = {tape.memory};
    Pass::play(lists, tape.size, tape.threads, isa);
    return nanobind::make_tuple(nanobind::cast(lists[kSums]), found);
  }

 private:
  // Without a lazy sign.
  static nanobind::object resolved(nanobind::handle d) { return d.attr(torch().resolve_neg)(); }
  void add_gradient(nanobind::list& found, bool wanted, nanobind::handle of, bool zeros) const {
    if (wanted) found.append(made(nanobind::tuple(of.attr(torch().shape)), zeros));
    else found.append(nanobind::none());
  }
  size_t n_ys_;
  std::vector<bool> init_wanted_, x_wanted_;
  std::vector<std::pair<nanobind::tuple, bool>> sums_;
};

}  // namespace ostinato
