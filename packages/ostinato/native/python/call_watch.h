// Tells Python which code begins to run, and which C functions it calls: what the observation of a step
// (ostinato/compiler/capture/guards/observation.py) needs of all that runs while the step is recorded. A
// profile function in Python sees each call and each return, which takes as long as all else in a recording.
#pragma once
#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <iterator>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace ostinato {

// Python's Py_tracefunc and its PyTrace_… numbers, which the stable ABI leaves out.
using ProfileFunction = int (*)(PyObject*, PyFrameObject*, int, PyObject*);
using SetProfile = void (*)(ProfileFunction, PyObject*);
enum ProfileEvent : int { kCall = 0, kReturn = 3, kCCall = 4 };
static const char* const kEventNames[] = {"call",   "exception",   "line",    "return",
                                          "c_call", "c_exception", "c_return"};

class CallWatch {
 public:
  // began(frame)              called once for all code but the `users`; says whether it is one of them, too
  // called(frame, function)   called whenever a user calls one of the C functions `watched`
  // importing                 the code that imports a module; what runs within it is not told
  // before                    the profile function that was there, which goes on seeing all; or None
  // set_profile               the address of PyEval_SetProfile
  CallWatch(nanobind::object began, nanobind::object called, nanobind::iterable users,
            nanobind::iterable watched, nanobind::handle importing, nanobind::object before,
            uintptr_t set_profile)
      : began_(std::move(began)), called_(std::move(called)), importing_(importing.ptr()),
        before_(std::move(before)), set_profile_(reinterpret_cast<SetProfile>(set_profile)) {
    for (nanobind::handle code : users) codes_[code.ptr()] = true;
    for (nanobind::handle function : watched) watched_.insert(function.ptr());
  }
  // Begins to watch this thread, until sys.setprofile says otherwise.
  static void enable(nanobind::handle self) {
    nanobind::inst_ptr<CallWatch>(self)->set_profile_(saw, self.ptr());
  }
  // As a profile function in Python: a step may set another one, and then this one again.
  void call(nanobind::handle frame, const std::string& event, nanobind::handle argument) {
    const auto* const name = std::find(std::begin(kEventNames), std::end(kEventNames), event);
    if (name != std::end(kEventNames)) saw(frame, int(name - kEventNames), argument.ptr());
  }

 private:
  static int saw(PyObject* self, PyFrameObject* frame, int event, PyObject* argument) {
    const auto alive = nanobind::borrow(self);  // what is called here may set another profile function
    CallWatch& watch = *nanobind::inst_ptr<CallWatch>(self);
    try {
      watch.saw(reinterpret_cast<PyObject*>(frame), event, argument);
      return 0;
    } catch (nanobind::python_error& error) {  // it is raised in the frame, as one of Python's own way is
      error.restore();
    } catch (const std::exception& error) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    watch.set_profile_(nullptr, nullptr);
    return -1;
  }
  void saw(nanobind::handle frame, int event, PyObject* argument) {
    if (!before_.is_none())
      before_(frame, kEventNames[event], argument ? nanobind::handle(argument) : nanobind::none());
    if (event == kCCall && !watched_.count(argument)) return;
    if (event != kCall && event != kReturn && event != kCCall) return;
    const auto code = nanobind::steal(
        reinterpret_cast<PyObject*>(PyFrame_GetCode(reinterpret_cast<PyFrameObject*>(frame.ptr()))));
    if (code.ptr() == importing_ && event != kCCall) n_imports_ += event == kCall ? 1 : -1;
    if (n_imports_ || event == kReturn) return;
    if (codes_.try_emplace(code.ptr(), false).second)
      codes_[code.ptr()] = nanobind::cast<bool>(began_(frame));
    if (event == kCCall && codes_[code.ptr()]) called_(frame, nanobind::handle(argument));
  }

  nanobind::object began_, called_;
  PyObject* importing_;
  nanobind::object before_;
  SetProfile set_profile_;
  std::unordered_map<PyObject*, bool> codes_;  // which of them are users; the caller keeps them
  std::unordered_set<PyObject*> watched_;
  int64_t n_imports_ = 0;
};

}  // namespace ostinato
