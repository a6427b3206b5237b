// Where a PyTorch tensor lies in memory, without linking against PyTorch.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <vector>

namespace ostinato {

struct View {
  char* data = nullptr;
  int64_t item = 0;   // bytes of an element
  int64_t dtype = 0;  // a number for each
  bool on_cpu = false;
  int64_t n_axes = 0;
  const int64_t *shape = nullptr, *strides = nullptr;  // [n_axes]; strides in elements
  std::vector<int64_t> own_shape, own_strides;         // where PyTorch does not lend its own

  int64_t elements() const {
    int64_t n = 1;
    for (int64_t i = 0; i < n_axes; i++) n *= shape[i];
    return n;
  }
  bool hollow() const { return !data && elements() > 0; }  // zeros that PyTorch does not store
};

// DLPack's table of functions, which recent versions of PyTorch lend. Through it a view costs no method call
// and no Python number.
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
  const auto* api =
      static_cast<const DLPackExchange*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  return api->major == 1 && api->view ? api : nullptr;
}

inline View view_by_exchange(const DLPackExchange& exchange, nanobind::handle tensor) {
  nanobind::dlpack::dltensor t;
  if (exchange.view(tensor.ptr(), &t) != 0) throw nanobind::python_error();
  View v;
  v.data = static_cast<char*>(t.data) + t.byte_offset;
  v.on_cpu = t.device.device_type == nanobind::device::cpu::value;
  v.item = t.dtype.bits / 8;
  v.dtype = t.dtype.code << 8 | t.dtype.bits;
  v.n_axes = t.ndim;
  v.shape = t.shape;
  v.strides = t.strides;
  return v;
}
inline View view_by_methods(nanobind::handle tensor) {
  View v;
  v.on_cpu = nanobind::cast<bool>(tensor.attr("is_cpu"));
  v.own_shape = nanobind::cast<std::vector<int64_t>>(tensor.attr("shape"));
  v.own_strides = nanobind::cast<std::vector<int64_t>>(tensor.attr("stride")());
  v.data = reinterpret_cast<char*>(nanobind::cast<uintptr_t>(tensor.attr("data_ptr")()));
  v.item = nanobind::cast<int64_t>(tensor.attr("element_size")());
  v.dtype = int64_t(reinterpret_cast<uintptr_t>(tensor.attr("dtype").ptr()));
  v.n_axes = int64_t(v.own_shape.size());
  v.shape = v.own_shape.data();
  v.strides = v.own_strides.data();
  return v;
}

inline View view_of(nanobind::handle tensor) {
  // Guarded by the GIL. A C++ static with an initializer would hold a lock of its own while Python code runs,
  // which may give up the GIL to a thread that waits for that lock.
  static bool looked = false;
  static const DLPackExchange* exchange = nullptr;
  if (!looked) {
    exchange = exchange_of(tensor.type());
    looked = true;
  }
  return exchange ? view_by_exchange(*exchange, tensor) : view_by_methods(tensor);
}

}  // namespace ostinato
