#pragma once
#include <nanobind/nanobind.h>

#include <vector>

namespace ostinato {

// What every call asks PyTorch for. Names are Python strings, which are made once.
struct TorchNames {
  nanobind::object tensor, parameter, forward_ad;
  // Functions that count the modes which must see every operation, or say where new tensors go.
  std::vector<nanobind::object> unusual_modes;
  // Functions that say whether a mode is on which a recording depends on.
  std::vector<nanobind::object> usual_modes;
  nanobind::object default_dtype, autocast;
  nanobind::object cpu = nanobind::str("cpu");
  nanobind::object current_level = nanobind::str("_current_level");
  nanobind::object detach = nanobind::str("detach");
  nanobind::object dtype = nanobind::str("dtype");
  nanobind::object is_neg = nanobind::str("is_neg");
  nanobind::object new_empty = nanobind::str("new_empty");
  nanobind::object new_zeros = nanobind::str("new_zeros");
  nanobind::object requires_grad = nanobind::str("requires_grad");
  nanobind::object resolve_neg = nanobind::str("resolve_neg");
  nanobind::object shape = nanobind::str("shape");
  nanobind::object version = nanobind::str("_version");

  TorchNames() {
    const auto torch = nanobind::module_::import_("torch");
    const auto internal = torch.attr("_C");
    tensor = torch.attr("Tensor");
    parameter = torch.attr("nn").attr("Parameter");
    forward_ad = torch.attr("autograd").attr("forward_ad");
    default_dtype = torch.attr("get_default_dtype");
    autocast = torch.attr("is_autocast_enabled");
    for (const char* name : {"_are_functorch_transforms_active", "_len_torch_dispatch_stack", "_is_tracing",
                             "_len_torch_function_stack"})
      unusual_modes.push_back(internal.attr(name));
    for (const char* name : {"is_grad_enabled", "is_inference_mode_enabled"})
      usual_modes.push_back(torch.attr(name));
    usual_modes.push_back(internal.attr("_get_deterministic_algorithms"));
  }
  bool is_plain(nanobind::handle object) const {  // no subclass, which may do other things
    const nanobind::handle type = object.type();
    return type.is(tensor) || type.is(parameter);
  }
};

inline const TorchNames& torch_names() {
  static const TorchNames* made = nullptr;  // never freed: at exit Python is gone first
  if (!made) made = new TorchNames();
  return *made;
}

}  // namespace ostinato
