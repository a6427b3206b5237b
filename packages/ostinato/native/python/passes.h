// A pass of a recorded step on PyTorch's tensors, called by the autograd function of `scan`.
// ostinato/compiler/play/step.py plans passes. Here their tensors are made and given to a program:
//   forward    given tensors → x…, init… as the engine reads them → carries and outputs, made → play → Tape
//   backward   Tape and gradients of outputs → gradients, made → play
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "python/engine_call.h"
#include "python/tape.h"

namespace ostinato {

using SourceTuples =
    std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>>;  // see ArgumentSource

// ---- Tensors in the form that a pass reads

// The tensor if it is dense from an axis on, whatever its strides are before; else a copy.
inline nanobind::object dense_from(int64_t axis, nanobind::object tensor) {
  const View v = view_of(tensor);
  if (v.hollow()) return tensor.attr("clone")();
  int64_t expected = 1;
  for (int64_t i = v.n_axes; i-- > axis; expected *= v.shape[i])
    if (v.shape[i] != 1 && v.strides[i] != expected) return tensor.attr("contiguous")();
  return tensor;
}
inline nanobind::object without_lazy_sign(nanobind::handle tensor) {
  return tensor.attr(torch_names().resolve_neg)();
}
inline nanobind::tuple shape_of(std::initializer_list<int64_t> first, const Integers& rest) {
  const auto shape = nanobind::steal<nanobind::tuple>(PyTuple_New(Py_ssize_t(first.size() + rest.size())));
  Py_ssize_t i = 0;
  for (int64_t n : first) PyTuple_SetItem(shape.ptr(), i++, PyLong_FromLongLong(n));
  for (int64_t n : rest) PyTuple_SetItem(shape.ptr(), i++, PyLong_FromLongLong(n));
  return shape;
}
inline nanobind::tuple shape_of(nanobind::handle tensor) {
  return nanobind::tuple(tensor.attr(torch_names().shape));
}
inline void append(Objects& list, nanobind::handle more) {
  for (nanobind::handle x : more) list.push_back(nanobind::borrow(x));
}

// A program, and where its arguments come from.
class PassBase {
 public:
  // program: Program32 or Program64; or, for tests, a function of (lists, n_steps, n_rows, rows, lengths).
  // dtype: of all tensors that are made.
  PassBase(nanobind::object program, const SourceTuples& sources, nanobind::handle dtype)
      : program_(std::move(program)), dtype_(nanobind::borrow(dtype)) {
    for (const auto& [list, at, how, p, q] : sources) sources_.push_back({list, at, How(how), p, q});
    using namespace nanobind::literals;
    empty_ = nanobind::module_::import_("torch").attr("empty")(0, "dtype"_a = dtype, "device"_a = "cpu");
  }

  // The bytes of workspace of a play of these steps, of a run of run_steps; see Executor::needed_bytes.
  int64_t needed_bytes(int64_t n_steps, int64_t run_steps, int64_t n_rows, int threads,
                       const std::string& isa) const {
    Segment segment;
    segment.run_steps = run_steps;
    PlayRequest request = request_of(n_steps, n_rows, threads, isa);
    request.segment = &segment;
    return on_executor(
        [&](auto& program) { return program.needed_bytes(request) + program.accumulator_bytes(request); });
  }
  // Steps of a run that are whole chunks, whichever outputs are used.
  int64_t chunk_steps(int64_t run_steps, int64_t n_rows, const std::string& isa) const {
    const PlayRequest request = request_of(run_steps, n_rows, 1, isa);
    return on_executor([&](auto& program) { return program.chunk_steps(request); });
  }

 protected:
  void run_program(const TensorLists& lists, const CallShape& shape, int threads, const std::string& isa,
                   const Segment* segment = nullptr) const {
    if (auto* program = program_as<float>())
      return call_engine(*program, find(lists, shape).list, shape, threads, isa, 0, segment);
    if (auto* program = program_as<double>())
      return call_engine(*program, find(lists, shape).list, shape, threads, isa, 0, segment);
    nanobind::list shown;
    for (const Objects& list : lists) shown.append(nanobind::cast(list));
    program_(shown, shape.n_steps, shape.n_rows, shape.order, shape.lengths, !segment || segment->first);
  }
  // f(the native program), a number; 0 if there is none.
  template <class F> int64_t on_executor(F f) const {
    if (auto* program = program_as<float>()) return f(*program);
    if (auto* program = program_as<double>()) return f(*program);
    return 0;
  }
  static PlayRequest request_of(int64_t n_steps, int64_t n_rows, int threads, const std::string& isa) {
    PlayRequest request;
    request.T = n_steps;
    request.B = n_rows;
    request.threads = threads;
    request.isa = isa;
    return request;
  }
  // A new dense tensor. The sizes are given one by one: PyTorch looks for them first, and a tuple costs it an
  // exception.
  nanobind::object make(const nanobind::tuple& shape, bool zeros = false) const {
    const auto method = empty_.attr(zeros ? torch_names().new_zeros : torch_names().new_empty);
    return shape.size() ? method(*shape) : method(shape);
  }
  nanobind::object empty_;  // of that type

  bool is_of_our_dtype(nanobind::handle tensor) const { return tensor.attr(torch_names().dtype).is(dtype_); }
  nanobind::object of_our_dtype(nanobind::handle tensor) const {
    if (is_of_our_dtype(tensor)) return nanobind::borrow(tensor);
    return tensor.attr("to")(dtype_);
  }

 private:
  template <class T> Executor<T>* program_as() const {
    return nanobind::isinstance<Executor<T>>(program_) ? nanobind::inst_ptr<Executor<T>>(program_) : nullptr;
  }
  Addresses find(const TensorLists& lists, const CallShape& shape) const {
    Addresses found;
    found.list.reserve(sources_.size());
    for (const ArgumentSource& x : sources_)
      found.list.push_back(
          argument_of(x, lists[x.list].at(size_t(x.at)), shape.n_steps, shape.n_rows, found));
    return found;
  }

  nanobind::object program_, dtype_;
  std::vector<ArgumentSource> sources_;
};

class ForwardPass : public PassBase {
 public:
  // A recorded step in one direction. Shapes are those of a row.
  //   n_captured      tensors that the step takes from outside
  //   keeps           whether each leaf of the carry is kept at every step
  //   y_is_carry      the leaf of the carry that each output is, or −1
  //   tape_width      elements of all tapes, for one row and step
  ForwardPass(nanobind::object program, const SourceTuples& sources, nanobind::handle dtype,
              int64_t n_captured, std::vector<Integers> state_shapes, std::vector<bool> keeps,
              std::vector<Integers> y_shapes, Integers y_is_carry, bool reverse, int64_t tape_width)
      : PassBase(std::move(program), sources, dtype), first_init_(size_t(n_captured)),
        first_x_(first_init_ + state_shapes.size()), state_shapes_(std::move(state_shapes)),
        keeps_(std::move(keeps)), y_shapes_(std::move(y_shapes)), y_is_carry_(std::move(y_is_carry)),
        tape_width_(tape_width), spare_(std::make_shared<SpareMemory>()) {
    PyObject *const one = PyLong_FromLong(reverse ? -1 : 1), *const none = Py_None;
    output_slots_ = nanobind::steal(reverse ? PySlice_New(none, one, none) : PySlice_New(one, none, none));
    Py_DECREF(one);
  }

  // Returns the outputs [T, B, …] and the last carry, shaped as init, in one list; and the tape.
  //   given             captured tensors; init, [B, …] or [1, B, …]; xs, [T, B, …]
  //   once              tensors that were computed from captured tensors alone
  //   order, lengths    of a ragged batch, else empty
  //   room_steps        the tape's memory has room for so many steps, if there are fewer: plays of a run in
  //                     segments, of which one is shorter, can then use the same memory one after the other
  //   unit_rows         the rows of a unit, if the backward pass may want a sum for each: see PlayRequest
  nanobind::tuple play(nanobind::iterable given, nanobind::iterable once, Integers order, Integers lengths,
                       int threads, const std::string& isa, int64_t room_steps, int64_t unit_rows) const {
    TensorLists lists;
    append(lists[kGiven], given);
    auto tape = std::make_unique<Tape>();
    tape->given = Whereabouts(lists[kGiven]);
    tape->ragged = !lengths.empty();
    tape->threads = threads;
    read_xs(*tape, lists[kGiven], std::move(order), std::move(lengths));
    tape->shape.unit_rows = unit_rows;
    room_steps = std::max(room_steps, tape->shape.n_steps);
    const Objects finals = read_init_and_make_carries(*tape, lists[kGiven], room_steps);
    nanobind::list outs = make_outputs(*tape);
    warn_if_too_large(*tape);
    tape->memory = tape_memory(tape_width_ * room_steps * tape->shape.n_rows);
    tape->spare = spare_;
    for (const nanobind::object& leaf : finals) outs.append(leaf);
    lists[kTensors] = tape->tensors;
    append(lists[kTensors], outs);
    append(lists[kOnce], once);
    lists[kMemory] = {tape->memory};
    run_program(lists, tape->shape, threads, isa);
    return nanobind::make_tuple(outs, nanobind::cast(std::move(tape)));
  }

 private:
  void read_xs(Tape& tape, const Objects& given, Integers order, Integers lengths) const {
    for (size_t i = first_x_; i < given.size(); i++)
      tape.tensors.push_back(dense_from(2, of_our_dtype(given[i])));
    const View x = view_of(tape.tensors.at(0));
    const int64_t T = x.shape[0], B = x.shape[1];
    const bool all_whole = order.empty() && tape.ragged && lengths[0] == T;
    if (all_whole) lengths.clear();
    tape.shape = {T, B, std::move(order), std::move(lengths)};
  }

  // Adds init… and carry… to the tape. Returns tensors for the last carry.
  Objects read_init_and_make_carries(Tape& tape, const Objects& given, int64_t room_steps) const {
    Objects carries, finals;
    for (size_t i = 0; i < state_shapes_.size(); i++) {
      const nanobind::object& leaf = given[first_init_ + i];
      tape.tensors.push_back(dense_from(0, of_our_dtype(leaf)));
      const bool shown = std::find(y_is_carry_.begin(), y_is_carry_.end(), int64_t(i)) != y_is_carry_.end();
      const bool zeros = tape.ragged && shown;  // outputs beyond a row's length
      if (keeps_.at(i) && !shown) {
        const nanobind::tuple shape = shape_of({room_steps + 1, tape.shape.n_rows}, state_shapes_[i]);
        tape.hidden.push_back(spare_or_made(spare_carries(), shape));
        carries.push_back(tape.hidden.back());
      } else {
        carries.push_back(keeps_[i] ? make(per_step(tape, 1, state_shapes_[i]), zeros) : nanobind::none());
      }
      finals.push_back(make(shape_of(leaf)));
    }
    tape.first_carry = tape.tensors.size();
    tape.tensors.insert(tape.tensors.end(), carries.begin(), carries.end());
    return finals;
  }

  // An output that is a leaf of the carry is a part of its memory, but not a view to autograd: that would tie
  // its base to the graph. A change in place shows in the version of the base. All outputs are made before
  // the engine plays: afterwards Python's code is no longer in the processor's caches.
  nanobind::list make_outputs(const Tape& tape) const {
    nanobind::list outs;
    for (size_t i = 0; i < y_is_carry_.size(); i++) {
      const int64_t leaf = y_is_carry_[i];
      if (leaf < 0) {
        outs.append(make(per_step(tape, 0, y_shapes_[i]), tape.ragged));
        continue;
      }
      nanobind::object y = tape.tensors[tape.first_carry + size_t(leaf)][output_slots_];
      if (y_shapes_[i] != state_shapes_[size_t(leaf)]) y = y.attr("view")(per_step(tape, 0, y_shapes_[i]));
      outs.append(y.attr(torch_names().detach)());
    }
    return outs;
  }
  static nanobind::tuple per_step(const Tape& tape, int64_t extra_slots, const Integers& row_shape) {
    return shape_of({tape.shape.n_steps + extra_slots, tape.shape.n_rows}, row_shape);
  }

  // Warns if the machine has too little memory for what the run keeps. To ask how much there is takes 50 µs;
  // a run that keeps kAskForMemoryBytes takes a thousand times as long.
  void warn_if_too_large(const Tape& tape) const {
    int64_t width = tape_width_;
    for (size_t i = 0; i < keeps_.size(); i++) {
      const bool shown = std::find(y_is_carry_.begin(), y_is_carry_.end(), int64_t(i)) != y_is_carry_.end();
      const Integers& shape = state_shapes_[i];
      if (keeps_[i] && !shown)
        width += std::accumulate(shape.begin(), shape.end(), int64_t(1), std::multiplies<int64_t>());
    }
    const int64_t bytes = width * tape.shape.n_steps * tape.shape.n_rows * view_of(empty_).item;
    if (bytes >= kAskForMemoryBytes)
      nanobind::module_::import_("ostinato.compiler.steps").attr("warn_too_large")(bytes);
  }

  nanobind::object tape_memory(int64_t size) const {
    if (size == 0) return nanobind::none();
    size += kPageBytes / int64_t(sizeof(float));  // next_page skips less than that
    return spare_or_made(*spare_, shape_of({size}, {}));
  }
  // Memory that an earlier tape gave back, if a piece fits. If none does, all spare memory is of calls of
  // another size: it is freed, so that never more is kept than was in use at once.
  nanobind::object spare_or_made(SpareMemory& spare, const nanobind::tuple& shape) const {
    for (auto piece = spare.begin(); piece != spare.end(); ++piece) {
      if (!shape_of(*piece).equal(shape) || !is_of_our_dtype(*piece)) continue;
      nanobind::object found = std::move(*piece);
      spare.erase(piece);
      return found;
    }
    SpareMemory().swap(spare);
    return make(shape);
  }

  size_t first_init_, first_x_;  // among the tensors given
  std::vector<Integers> state_shapes_;
  std::vector<bool> keeps_;
  std::vector<Integers> y_shapes_;
  Integers y_is_carry_;
  int64_t tape_width_;
  nanobind::object output_slots_;
  std::shared_ptr<SpareMemory> spare_;
};

// The sums of a run that is played in segments, while it is played.
struct RunningSums {
  const int64_t run_steps;
  int threads = 0;          // of all segments
  Objects sums;             // none before the first segment
  nanobind::object memory;  // of the engine's accumulators
  explicit RunningSums(int64_t n_steps) : run_steps(n_steps) {}
};

class BackwardPass : public PassBase {
 public:
  //   n_ys                     outputs
  //   init_wanted, x_wanted    whether the gradient of each leaf is computed
  //   sums                     the shape of each sum, and whether it must begin as zeros
  BackwardPass(nanobind::object program, const SourceTuples& sources, nanobind::handle dtype, int64_t n_ys,
               std::vector<bool> init_wanted, std::vector<bool> x_wanted,
               const std::vector<std::pair<Integers, bool>>& sums)
      : PassBase(std::move(program), sources, dtype), n_ys_(size_t(n_ys)),
        init_wanted_(std::move(init_wanted)), x_wanted_(std::move(x_wanted)) {
    for (const auto& [shape, zeros] : sums) sums_.emplace_back(nanobind::tuple(nanobind::cast(shape)), zeros);
  }

  // Returns the sums; and the gradients of init and of xs, None for those not wanted.
  //   given    as to the forward pass
  //   grads    of outputs, then of the last carry; each a tensor or None
  //   run      of a run that is played in segments; then the sums are those so far
  //   last     whether this is the segment played last
  //   d_xs     dense places for the gradients of leaves of xs; where there is none, or None, one is made
  //   by_unit  whether there is a sum for each unit of the tape: then sums have an axis of units in front
  nanobind::tuple play(const Tape& tape, nanobind::iterable given, nanobind::iterable once,
                       nanobind::iterable grads, const std::string& isa, RunningSums* run, bool last,
                       const Objects& d_xs, bool by_unit) const {
    TensorLists lists;
    Segment segment;
    if (run) segment = begin_segment(*run, tape, last, isa);
    lists[kTensors] = tape.tensors;
    append_grads(lists[kTensors], grads);
    nanobind::list found = make_gradients(tape, d_xs);
    append(lists[kTensors], found);
    CallShape shape = tape.shape;
    shape.sums_by_unit = by_unit;
    lists[kSums] = run ? run->sums : make_sums(by_unit ? shape.n_rows / shape.unit_rows : 0);
    append(lists[kGiven], given);
    append(lists[kOnce], once);
    tape.given.check(lists[kGiven]);
    lists[kMemory] = {tape.memory};
    run_program(lists, shape, tape.threads, isa, run ? &segment : nullptr);
    return nanobind::make_tuple(nanobind::cast(lists[kSums]), found);
  }

 private:
  Objects make_sums(int64_t n_units = 0) const {  // 0: over the batch
    Objects made;
    for (const auto& [shape, zeros] : sums_)
      made.push_back(make(n_units ? shape_of({n_units}, nanobind::cast<Integers>(shape)) : shape, zeros));
    return made;
  }
  Segment begin_segment(RunningSums& run, const Tape& tape, bool last, const std::string& isa) const {
    Segment segment;
    segment.run_steps = run.run_steps;
    segment.first = !run.memory.is_valid();
    segment.last = last;
    if (!segment.first && run.threads != tape.threads)
      throw std::invalid_argument("segments of one run were played by different numbers of threads");
    if (segment.first) {
      run.threads = tape.threads;
      run.sums = make_sums();
      PlayRequest request = request_of(tape.shape.n_steps, tape.shape.n_rows, tape.threads, isa);
      request.segment = &segment;
      const int64_t bytes = on_executor([&](auto& program) { return program.accumulator_bytes(request); });
      run.memory = make(shape_of({bytes / int64_t(sizeof(float))}, {}));
    }
    segment.accumulators = view_of(run.memory).data;
    return segment;
  }
  void append_grads(Objects& list, nanobind::iterable grads) const {
    size_t i = 0;
    for (nanobind::handle d : grads) {
      const int64_t axis = i++ < n_ys_ ? 2 : 0;  // after time and rows; a last carry is dense
      list.push_back(d.is_none() ? nanobind::none() : dense_from(axis, without_lazy_sign(d)));
    }
  }
  nanobind::list make_gradients(const Tape& tape, const Objects& d_xs) const {
    const size_t n_xs = x_wanted_.size();
    nanobind::list found;
    for (size_t i = 0; i < init_wanted_.size(); i++)
      found.append(init_wanted_[i] ? make(shape_of(tape.tensors.at(n_xs + i))) : nanobind::none());
    for (size_t i = 0; i < n_xs; i++) {
      const bool has_place = i < d_xs.size() && !d_xs[i].is_none();
      if (!x_wanted_[i]) found.append(nanobind::none());
      else if (has_place) found.append(d_xs[i]);
      else found.append(make(shape_of(tape.tensors.at(i)), tape.ragged));
    }
    return found;
  }

  size_t n_ys_;
  std::vector<bool> init_wanted_, x_wanted_;
  std::vector<std::pair<nanobind::tuple, bool>> sums_;
};

}  // namespace ostinato
