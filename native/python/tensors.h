// PyTorch's tensors, without linking against PyTorch: where they lie in memory, what a recording depends
// on of them, and those that a step reaches.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "play/executor.h"

namespace ostinato {

struct View {
  char* data = nullptr;
  int64_t item = 0;  // bytes of an element
  int64_t dtype = 0;  // a number for each
  bool on_cpu = false;
  int64_t n_axes = 0;
  const int64_t *shape = nullptr, *strides = nullptr;  // in elements
  std::vector<int64_t> own_shape, own_strides;  // where PyTorch does not lend its own
  int64_t elements() const {
    int64_t n = 1;
    for (int64_t i = 0; i < n_axes; i++) n *= shape[i];
    return n;
  }
  bool hollow() const { return !data && elements() > 0; }  // zeros that PyTorch does not store
};

// DLPack's table of functions, which later versions of PyTorch lend: no method call, no Python number.
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
  static bool looked = false;  // under the GIL, which Python code may give up: no guard of C++
  static const DLPackExchange* exchange = nullptr;
  if (!looked) exchange = exchange_of(tensor.type()), looked = true;
  View v;
  if (exchange) {
    nanobind::dlpack::dltensor t;
    if (exchange->view(tensor.ptr(), &t) != 0) throw nanobind::python_error();
    v.data = static_cast<char*>(t.data) + t.byte_offset;
    v.on_cpu = t.device.device_type == nanobind::device::cpu::value;
    v.item = t.dtype.bits / 8, v.dtype = t.dtype.code << 8 | t.dtype.bits;
    v.n_axes = t.ndim, v.shape = t.shape, v.strides = t.strides;
  } else {
    v.on_cpu = nanobind::cast<bool>(tensor.attr("is_cpu"));
    v.own_shape = nanobind::cast<std::vector<int64_t>>(tensor.attr("shape"));
    v.own_strides = nanobind::cast<std::vector<int64_t>>(tensor.attr("stride")());
    v.data = reinterpret_cast<char*>(nanobind::cast<uintptr_t>(tensor.attr("data_ptr")()));
    v.item = nanobind::cast<int64_t>(tensor.attr("element_size")());
    v.dtype = int64_t(reinterpret_cast<uintptr_t>(tensor.attr("dtype").ptr()));
    v.n_axes = int64_t(v.own_shape.size()), v.shape = v.own_shape.data(), v.strides = v.own_strides.data();
  }
  return v;
}

struct Torch {  // of what is asked for with every call; names as Python strings, which are made once
  nanobind::object tensor, parameter, forward_ad;
  // Functions: how many modes there are that must see every operation, or say where new tensors go; and
  // whether one is on that a recording depends on.
  std::vector<nanobind::object> unusual_modes, usual_modes;
  nanobind::object default_dtype, autocast, cpu = nanobind::str("cpu"), current_level = nanobind::str("_current_level");
  nanobind::object detach = nanobind::str("detach"), dtype = nanobind::str("dtype"), is_neg = nanobind::str("is_neg"),
                   new_empty = nanobind::str("new_empty"), new_zeros = nanobind::str("new_zeros"),
                   requires_grad = nanobind::str("requires_grad"), resolve_neg = nanobind::str("resolve_neg"),
                   shape = nanobind::str("shape"), version = nanobind::str("_version");
  Torch() {
    const auto torch = nanobind::module_::import_("torch");
    tensor = torch.attr("Tensor"), parameter = torch.attr("nn").attr("Parameter");
    forward_ad = torch.attr("autograd").attr("forward_ad"), default_dtype = torch.attr("get_default_dtype");
    for (const char* name : {"_are_functorch_transforms_active", "_len_torch_dispatch_stack", "_is_tracing",
                             "_len_torch_function_stack"})
      unusual_modes.push_back(torch.attr("_C").attr(name));
    for (const char* name : {"is_grad_enabled", "is_inference_mode_enabled"}) usual_modes.push_back(torch.attr(name));
    usual_modes.push_back(torch.attr("_C").attr("_get_deterministic_algorithms"));
    autocast = torch.attr("is_autocast_enabled");
  }
  bool is_plain(nanobind::handle object) const {
    const nanobind::handle type = object.type();
    return type.is(tensor) || type.is(parameter);
  }
};
inline const Torch& torch() {
  static const Torch* made = nullptr;  // for ever: at exit Python is gone first
  if (!made) made = new Torch();
  return *made;
}

// The modes that a recording depends on, as a number; None where one is active that must see every
// operation, or that says where new tensors go: see `_modes` in ostinato/compiler/cache.py.
inline nanobind::object modes() {
  const Torch& names = torch();
  for (const nanobind::object& count : names.unusual_modes)
    if (PyObject_IsTrue(count().ptr())) return nanobind::none();
  if (nanobind::cast<int64_t>(names.forward_ad.attr(names.current_level)) >= 0) return nanobind::none();
  int64_t found = int64_t(reinterpret_cast<uintptr_t>(names.default_dtype().ptr()));  // an object for ever
  for (const nanobind::object& mode : names.usual_modes) found = 2 * found + nanobind::cast<bool>(mode());
  return nanobind::cast(2 * found + nanobind::cast<bool>(names.autocast(names.cpu)));
}

// What a recording depends on, as bytes: of each tensor its dtype, its class, whether it wants gradients, and its
// axes, but for time and rows (of init the axes to `axis`, of xs the first two); of captured ones also
// which are one and the same. None where something is unusual: a tensor that is not a plain one, or
// leaves whose rows do not fit; see `_unplayable` in ostinato/compiler/cache.py.
inline nanobind::object described(const nanobind::list& captured, const nanobind::list& init, const nanobind::list& xs,
                                  int64_t axis) {
  const Torch& names = torch();
  std::vector<int64_t> found{int64_t(captured.size()), int64_t(init.size())};
  found.reserve(64);
  int64_t n_rows = 0;
  auto add = [&](nanobind::handle t, int64_t skip) {
    if (!names.is_plain(t) || nanobind::cast<bool>(t.attr(names.is_neg)())) return false;
    View v;
    try {
      v = view_of(t);
    } catch (nanobind::python_error& error) {  // a layout or a kind that has no memory of its own
      for (PyObject* kind : {PyExc_RuntimeError, PyExc_BufferError, PyExc_TypeError, PyExc_ValueError})
        if (error.matches(kind)) return false;
      throw;
    }
    if (!v.on_cpu || v.n_axes < skip || v.hollow()) return false;
    if (skip) {
      if (n_rows == 0) n_rows = v.shape[skip - 1];
      if (n_rows == 0 || v.shape[skip - 1] != n_rows) return false;
    }
    const int64_t wants_gradients = nanobind::cast<bool>(t.attr(names.requires_grad)), is_parameter = t.type().is(names.parameter);
    found.insert(found.end(), {v.dtype, 2 * is_parameter + wants_gradients, v.n_axes});
    found.insert(found.end(), v.shape + skip, v.shape + v.n_axes);
    return true;
  };
  std::vector<PyObject*> seen;
  for (nanobind::handle t : captured) {
    if (!add(t, 0)) return nanobind::none();
    seen.push_back(t.ptr());
    found.push_back(std::find(seen.begin(), seen.end(), t.ptr()) - seen.begin());
  }
  for (nanobind::handle t : init) if (!add(t, axis + 1)) return nanobind::none();
  for (nanobind::handle t : xs) if (!add(t, 2)) return nanobind::none();
  return nanobind::bytes(found.data(), found.size() * sizeof(int64_t));
}

// How a watched place is read; ostinato/compiler/capture/walk.py has the same list.
enum class At : int64_t { kItem, kAttribute, kField, kOwn, kLength };

// What is there now; invalid where there is nothing.
inline nanobind::object now_at(At at, PyObject* container, PyObject* key) {
  if (at == At::kItem && PyDict_Check(container)) {  // past what a subclass makes of it
    PyObject* const item = PyDict_GetItemWithError(container, key);
    if (!item && PyErr_Occurred()) throw nanobind::python_error();
    return nanobind::borrow(item);
  }
  if (at == At::kItem && (PyList_Check(container) || PyTuple_Check(container))) {
    const Py_ssize_t i = PyLong_AsSsize_t(key);
    if (i < 0 || i >= Py_SIZE(container)) return nanobind::object();
    return nanobind::borrow(PyList_Check(container) ? PyList_GetItem(container, i) : PyTuple_GetItem(container, i));
  }
  PyObject* found = nullptr;
  switch (at) {
    case At::kItem: found = PyObject_GetItem(container, key); break;
    case At::kAttribute: found = PyObject_GetAttr(container, key); break;
    case At::kField: {
      const auto object = nanobind::steal(PyObject_CallNoArgs(container));  // a weak reference
      if (object.is_valid()) found = PyObject_GetAttr(object.ptr(), key);
      break;
    }
    case At::kOwn: {
      const auto object = nanobind::steal(PyObject_CallNoArgs(container));
      const auto own = nanobind::steal(PyObject_GenericGetDict(object.ptr(), nullptr));
      if (own.is_valid()) found = Py_XNewRef(PyDict_GetItemWithError(own.ptr(), key));
      if (own.is_valid() && !found && !PyErr_Occurred()) return nanobind::object();
      break;
    }
    case At::kLength: {
      const Py_ssize_t n = PyObject_Size(container);
      if (n >= 0) found = PyLong_FromSsize_t(n);
    }
  }
  if (!found) {
    if (!PyErr_ExceptionMatches(PyExc_LookupError) && !PyErr_ExceptionMatches(PyExc_ValueError) &&
        !PyErr_ExceptionMatches(PyExc_AttributeError))
      throw nanobind::python_error();
    PyErr_Clear();
  }
  return nanobind::steal(found);
}

// The tensors at watched places (how, container, key, what was there), if all else is as it was; else
// None. `tensor` marks the places of tensors, `absent` those where nothing was. See Reach in
// ostinato/compiler/captures.py.
inline nanobind::object watched(const nanobind::list& places, nanobind::handle tensor, nanobind::handle absent,
                                nanobind::handle equal) {
  nanobind::list tensors;
  for (nanobind::handle place : places) {
    PyObject* const p = place.ptr();
    const At at = At(PyLong_AsLong(PyTuple_GetItem(p, 0)));
    nanobind::object now = now_at(at, PyTuple_GetItem(p, 1), PyTuple_GetItem(p, 2));
    const nanobind::handle was = PyTuple_GetItem(p, 3);
    if (!now.is_valid()) now = nanobind::borrow(absent);
    if (now.is(was)) continue;
    if (was.is(tensor)) {
      if (!torch().is_plain(now) && !nanobind::isinstance(now, torch().tensor)) return nanobind::none();
      tensors.append(now);
    } else if (!nanobind::cast<bool>(equal(now, was))) {
      return nanobind::none();
    }
  }
  return tensors;
}

// How an argument lies in a tensor; ostinato/compiler/play/bindings.py has the same list.
enum class How : int64_t {
  kStrided,     // [slots, B, …] or a matrix: by its first two strides; a dense vector
  kVector,      // a vector, of any stride
  kTransposed,  // a matrix, with its axes exchanged
  kRows,        // dense [B, …] or [1, B, …], or None: the first and last value of a carry
  kTape,        // one tape of several in the memory of all: p elements wide, after others of q
  kPart,        // of a dense sum: from element p on, q columns
};
struct Source {
  int64_t list, at;  // the list that the tensor is in, and where in it
  How how;
  int64_t p, q;
};

// Tapes begin at a page: what a thread reads of one at a step lies on two pages instead of three, say, and to
// find each takes some 13 ns (1 … 2 % of training on long sequences).
constexpr int64_t kPage = 4096;
inline char* next_page(char* data) {
  return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage);
}

struct Addresses {
  std::vector<Argument> list;
  std::vector<std::vector<char>> copies;  // of vectors that were not dense
  Addresses() = default;
  Addresses(Addresses&&) = default;  // a copy would point into the other's
};

inline Argument argument_of(const Source& source, nanobind::handle tensor, int64_t n_steps, int64_t n_rows,
                            Addresses& all) {
  if (tensor.is_none()) {
    if (source.how != How::kRows) throw std::invalid_argument("a tensor is missing");
    return {nullptr, 0, 0};
  }
  const View v = view_of(tensor);
  switch (source.how) {
    case How::kStrided: return v.n_axes < 2 ? Argument{v.data, 0, 0} : Argument{v.data, v.strides[0], v.strides[1]};
    case How::kVector: {
      if (v.n_axes == 0 || v.shape[0] < 2 || v.strides[0] == 1) return {v.data, 0, 0};
      std::vector<char>& copy = all.copies.emplace_back(v.shape[0] * v.item);
      for (int64_t i = 0; i < v.shape[0]; i++)
        std::memcpy(copy.data() + i * v.item, v.data + i * v.strides[0] * v.item, v.item);
      return {copy.data(), 0, 0};
    }
    case How::kTransposed: return {v.data, v.strides[1], v.strides[0]};
    case How::kRows: return {v.data, 0, v.elements() / n_rows};
    case How::kTape: return {next_page(v.data) + source.q * n_steps * n_rows * v.item, 0, source.p};
    case How::kPart: return {v.data + source.p * v.item, source.q, 1};
  }
  throw std::invalid_argument("no such source");
}

}  // namespace ostinato
