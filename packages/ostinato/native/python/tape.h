// What the backward pass needs of the forward pass.
#pragma once
#include <nanobind/nanobind.h>

#include <memory>
#include <stdexcept>
#include <vector>

#include "python/engine_call.h"
#include "python/torch_names.h"
#include "python/views.h"

namespace ostinato {

// Memory that tapes gave back, for later tapes: new pages cost a fault each.
using SpareMemory = Objects;

// Spare memory of carries that are no outputs, which may be hundreds of megabytes. All steps share one list,
// so that a process that trains many steps one after another keeps the memory of the last one alone. The list
// is never destroyed: when the process ends Python may be gone.
inline SpareMemory& spare_carries() {
  static SpareMemory* const all = new SpareMemory;
  return *all;
}

// Remembers where tensors lie: the data of one may be replaced before the backward pass.
class Whereabouts {
 public:
  explicit Whereabouts(const Objects& all = {}) {
    given_.reserve(all.size());
    for (const nanobind::object& t : all) {
      const View v = view_of(t);
      given_.push_back({t.ptr(), v.data, v.dtype, v.elements()});
    }
  }
  void check(const Objects& all) const {
    for (size_t i = 0; i < all.size(); i++) {
      const View v = view_of(all[i]);
      const Given& was = given_.at(i);
      const bool same_tensor = all[i].ptr() == was.tensor;  // hooks on saved tensors may give another one
      if (v.dtype != was.dtype || v.elements() != was.elements || (same_tensor && v.data != was.data))
        throw std::runtime_error(
            "scan: a tensor that the step takes from outside, or init or xs, was given other data "
            "(.data, .to(), .double()) between the forward and the backward pass");
    }
  }

 private:
  struct Given {
    PyObject* tensor;
    const char* data;
    int64_t dtype, elements;
  };
  std::vector<Given> given_;
};

// A tape does not hold the outputs: these hold the graph of autograd, which holds the tape.
struct Tape {
  Whereabouts given;
  Objects tensors;          // x…, init…, carry…: None for what is not kept
  size_t first_carry = 0;   // among these
  nanobind::object memory;  // of the saved values; None where there are none
  Objects hidden;           // those carries that are no outputs
  std::shared_ptr<SpareMemory> spare;
  CallShape shape{};
  bool ragged = false;
  int threads = 1;  // on which the order in `memory` depends

  Tape() = default;
  Tape(const Tape&) = delete;
  // Gives the memory back. Not done by __del__ in Python: there the interpreter runs signal handlers and
  // drops the exceptions that they raise, so that a Ctrl-C was lost.
  ~Tape() {
    if (!spare) return;
    if (!memory.is_none()) spare->push_back(std::move(memory));
    for (nanobind::object& carry : hidden) spare_carries().push_back(std::move(carry));
  }

  // True if nobody has changed the outputs: the backward pass reads the carries among them.
  bool holds() const {
    for (size_t i = first_carry; i < tensors.size(); i++)
      if (!tensors[i].is_none() && nanobind::cast<int64_t>(tensors[i].attr(torch_names().version)) != 0)
        return false;
    return true;
  }
};

}  // namespace ostinato
