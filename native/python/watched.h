// Reads the places that a recording watches, and forgets them with Python's collector.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

#include "python/torch_names.h"

namespace ostinato {

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
    return nanobind::borrow(PyList_Check(container) ? PyList_GetItem(container, i)
                                                    : PyTuple_GetItem(container, i));
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
inline nanobind::object watched(const nanobind::list& places, nanobind::handle tensor,
                                nanobind::handle absent, nanobind::handle equal) {
  nanobind::list tensors;
  for (nanobind::handle place : places) {
    PyObject* const p = place.ptr();
    const At at = At(PyLong_AsLong(PyTuple_GetItem(p, 0)));
    nanobind::object now = now_at(at, PyTuple_GetItem(p, 1), PyTuple_GetItem(p, 2));
    const nanobind::handle was = PyTuple_GetItem(p, 3);
    if (!now.is_valid()) now = nanobind::borrow(absent);
    if (now.is(was)) continue;
    if (was.is(tensor)) {
      if (!torch_names().is_plain(now) && !nanobind::isinstance(now, torch_names().tensor))
        return nanobind::none();
      tensors.append(now);
    } else if (!nanobind::cast<bool>(equal(now, was))) {
      return nanobind::none();
    }
  }
  return tensors;
}

// One of gc.callbacks; see ostinato/engine/native.py.
inline void forget(const nanobind::dict& memory, const std::string& phase, const nanobind::dict& info) {
  if (phase == "start" && nanobind::cast<int>(info["generation"]) == 2) PyDict_Clear(memory.ptr());
}

}  // namespace ostinato
