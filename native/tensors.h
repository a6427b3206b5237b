// PyTorch's tensors, without linking against PyTorch: where they lie in memory.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "executor.h"

namespace ostinato {

struct View {
  char* data = nullptr;
  int64_t item = 0;             // bytes of an element
  int64_t n_axes = 0, s0 = 0, s1 = 0;  // strides of the first two axes, in elements
};

// DLPack's table of functions, which PyTorch has from 2.10 on: a tenth of the time of a method call.
struct DLPackExchange {
  uint32_t major, minor;
  DLPackExchange* older;
  void *allocate, *from_object, *to_object;
  int (*view)(void* object, nanobind::dlpack::dltensor* out);
  void* stream;
};

inline const DLPackExchange* exchange_of(nanobind::handle type) {
  const nanobind::object capsule = nanobind::getattr(type, "__dlpack_c_exchange_api__", nanobind::none());
  if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
  const auto* api = static_cast<const DLPackExchange*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  return api->major == 1 && api->view ? api : nullptr;
}

inline View view_of(nanobind::handle tensor) {
  static const DLPackExchange* const exchange = exchange_of(tensor.type());
  View v;
  if (exchange) {
    nanobind::dlpack::dltensor t;
    if (exchange->view(tensor.ptr(), &t) != 0) throw nanobind::python_error();
    v = {static_cast<char*>(t.data) + t.byte_offset, t.dtype.bits / 8, t.ndim, 0, 0};
    if (t.ndim > 0) v.s0 = t.strides[0];
    if (t.ndim > 1) v.s1 = t.strides[1];
  } else {
    const nanobind::tuple strides = nanobind::cast<nanobind::tuple>(tensor.attr("stride")());
    v.data = reinterpret_cast<char*>(nanobind::cast<uintptr_t>(tensor.attr("data_ptr")()));
    v.item = nanobind::cast<int64_t>(tensor.attr("element_size")());
    v.n_axes = int64_t(strides.size());
    if (v.n_axes > 0) v.s0 = nanobind::cast<int64_t>(strides[0]);
    if (v.n_axes > 1) v.s1 = nanobind::cast<int64_t>(strides[1]);
  }
  return v;
}

// How an argument lies in a tensor; ostinato/compiler/bind.py has the same list.
enum class How : int64_t {
  kStrided,     // [slots, B, …] or a matrix: by its first two strides; a vector
  kTransposed,  // a matrix, with its axes exchanged
  kRows,        // [B, …], or None: the first and last value of a carry
  kTape,        // one tape of several in the memory of all: p elements wide, after others of q
  kPart,        // of a dense sum: from element p on, q columns
};
struct Source { How how; int64_t p, q; };

inline Argument argument_of(const Source& source, nanobind::handle tensor, int64_t n_steps, int64_t n_rows) {
  if (tensor.is_none()) {
    if (source.how != How::kRows) throw std::invalid_argument("a tensor is missing");
    return {nullptr, 0, 0};
  }
  const View v = view_of(tensor);
  switch (source.how) {
    case How::kStrided: return v.n_axes < 2 ? Argument{v.data, 0, 0} : Argument{v.data, v.s0, v.s1};
    case How::kTransposed: return {v.data, v.s1, v.s0};
    case How::kRows: return {v.data, 0, v.s0};
    case How::kTape: return {v.data + source.q * n_steps * n_rows * v.item, n_rows * source.p, source.p};
    case How::kPart: return {v.data + source.p * v.item, source.q, 1};
  }
  throw std::invalid_argument("no such source");
}

}  // namespace ostinato
