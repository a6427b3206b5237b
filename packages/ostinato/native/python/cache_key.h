// What a recording depends on, as a key for the cache: modes of PyTorch, and a description of the tensors.
// The slow twins that name a reason are in ostinato/compiler/inputs.py.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "python/torch_names.h"
#include "python/views.h"

namespace ostinato {

// The modes that a recording depends on, as a number. None if a mode is active that must see every operation,
// or that says where new tensors go.
inline nanobind::object modes() {
  const TorchNames& names = torch_names();
  for (const nanobind::object& count : names.unusual_modes)
    if (PyObject_IsTrue(count().ptr())) return nanobind::none();
  if (nanobind::cast<int64_t>(names.forward_ad.attr(names.current_level)) >= 0) return nanobind::none();
  int64_t found =
      int64_t(reinterpret_cast<uintptr_t>(names.default_dtype().ptr()));  // dtypes are never freed
  for (const nanobind::object& mode : names.usual_modes) found = 2 * found + nanobind::cast<bool>(mode());
  return nanobind::cast(2 * found + nanobind::cast<bool>(names.autocast(names.cpu)));
}

// Describes tensors as integers, one after the other.
class TensorDescriber {
 public:
  TensorDescriber() { found_.reserve(64); }

  void add_number(int64_t n) { found_.push_back(n); }

  // Adds a tensor's dtype, class, whether it requires gradients, and its axes but for the first `skip`: the
  // last of these are its rows. False if it is unusual: no plain tensor of the CPU, or of another number of
  // rows than the tensors added before.
  bool add(nanobind::handle t, int64_t skip) {
    const TorchNames& names = torch_names();
    if (!names.is_plain(t) || nanobind::cast<bool>(t.attr(names.is_neg)())) return false;
    View v;
    if (!view(t, v)) return false;
    if (!v.on_cpu || v.n_axes < skip || v.hollow()) return false;
    if (skip && !has_our_rows(v.shape[skip - 1])) return false;
    const int64_t requires_grad = nanobind::cast<bool>(t.attr(names.requires_grad));
    const int64_t is_parameter = t.type().is(names.parameter);
    found_.insert(found_.end(), {v.dtype, 2 * is_parameter + requires_grad, v.n_axes});
    found_.insert(found_.end(), v.shape + skip, v.shape + v.n_axes);
    return true;
  }
  nanobind::object bytes() const { return nanobind::bytes(found_.data(), found_.size() * sizeof(int64_t)); }

 private:
  static bool view(nanobind::handle t, View& v) {
    try {
      v = view_of(t);
    } catch (nanobind::python_error& error) {  // a layout or a kind that has no memory of its own
      for (PyObject* kind : {PyExc_RuntimeError, PyExc_BufferError, PyExc_TypeError, PyExc_ValueError})
        if (error.matches(kind)) return false;
      throw;
    }
    return true;
  }
  bool has_our_rows(int64_t n) {
    if (n_rows_ == 0) n_rows_ = n;
    return n != 0 && n == n_rows_;
  }

  std::vector<int64_t> found_;
  int64_t n_rows_ = 0;
};

// The key of a call's tensors. Time and rows are left out: of init the axes up to `axis`, of xs the first
// two. Of captured tensors it also says which are one and the same. None if something is unusual.
inline nanobind::object described(const nanobind::list& captured, const nanobind::list& init,
                                  const nanobind::list& xs, int64_t axis) {
  TensorDescriber describer;
  describer.add_number(int64_t(captured.size()));
  describer.add_number(int64_t(init.size()));
  std::vector<PyObject*> seen;
  for (nanobind::handle t : captured) {
    if (!describer.add(t, 0)) return nanobind::none();
    seen.push_back(t.ptr());
    describer.add_number(std::find(seen.begin(), seen.end(), t.ptr()) - seen.begin());
  }
  for (nanobind::handle t : init)
    if (!describer.add(t, axis + 1)) return nanobind::none();
  for (nanobind::handle t : xs)
    if (!describer.add(t, 2)) return nanobind::none();
  return describer.bytes();
}

}  // namespace ostinato
