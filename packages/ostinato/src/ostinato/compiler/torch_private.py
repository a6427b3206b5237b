"""Every private name of PyTorch that ostinato uses, and why.

A name that a version of PyTorch lacks is replaced. With `otherwise` nothing is lost but speed;
without it the engine is not used: `unavailable` has the reason, and loops run in Python.
"""

from __future__ import annotations

import functools
import importlib
import logging
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import torch

from ostinato.engine import native

with suppress(ImportError):
    importlib.import_module("torch.utils._device")  # the only module here that torch leaves out

NAMES: list[str] = []
missing: list[str] = []
_ABSENT = object()


def _named(path: str, otherwise: Any = _ABSENT) -> Any:
    """The object at a path that begins with "torch."; what stands in for it if there is none."""
    NAMES.append(path)
    found: Any = torch
    for name in path.split(".")[1:]:
        found = getattr(found, name, _ABSENT)
        if found is _ABSENT:
            break
    if found is not _ABSENT:
        return found
    if otherwise is not _ABSENT:
        return otherwise
    missing.append(path)
    return _Absent


class _Absents(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class _Absent(metaclass=_Absents):
    """In place of a missing class or function, with attributes; it raises when it is called."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError(_reason())


def _reason() -> str:
    return f"PyTorch {torch.__version__} does not have {', '.join(missing)}"


@functools.cache
def unavailable() -> str | None:
    """Why the engine cannot be used with PyTorch in this process, or None; warns about PyTorch."""
    reason = native.unavailable()
    if reason is None and missing:
        reason = _reason()
        logging.getLogger("ostinato").warning(
            "every loop runs in Python, since %s; install another version of PyTorch", reason
        )
    return reason


# ---- modes: who else sees the operations of a call

# Our own reads of tensors are hidden from modes of functions, which record what a step reads.
DisableTorchFunction: Any = _named("torch._C.DisableTorchFunction")
# The same for modes of operations; there is no public way to leave them for a while.
disable_current_modes: Any = _named("torch.utils._python_dispatch._disable_current_modes")
# Recorders of a step are modes of operations; the class has no public name.
TorchDispatchMode: Any = _named("torch.utils._python_dispatch.TorchDispatchMode")
# A mode that an interrupt left on a stack is taken off; public is only `with`.
pop_function_mode: Any = _named("torch._C._pop_torch_function_stack")
pop_dispatch_mode: Any = _named("torch.utils._python_dispatch._pop_mode")
count_function_modes: Any = _named("torch._C._len_torch_function_stack")
count_dispatch_modes: Any = _named("torch._C._len_torch_dispatch_stack")
current_function_mode: Any = _named("torch.overrides._get_current_function_mode")
function_modes: Any = _named("torch.overrides._get_current_function_mode_stack")
# The mode of `with torch.device`, the only one under which a step may be recorded.
DeviceContext: Any = _named("torch.utils._device.DeviceContext")
# torch.jit.is_tracing calls this and takes twice as long.
is_tracing: Any = _named("torch._C._is_tracing", lambda: torch.jit.is_tracing())

# ---- transforms of torch.func: tensors are unwrapped, and results wrapped again

functorch: Any = SimpleNamespace(
    **{
        name: _named(f"torch._C._functorch.{name}")
        for name in (
            "is_functorch_wrapped_tensor",
            "get_dynamic_layer_stack_depth",
            "maybe_get_level",
            "maybe_get_bdim",
            "get_unwrapped",
            "is_batchedtensor",
            "_add_batch_dim",
            "_wrap_for_grad",
            "TransformType",
            "get_interpreter_stack",
            "peek_interpreter_stack",
        )
    }
)
is_functorch_wrapped_tensor: Any = functorch.is_functorch_wrapped_tensor
is_legacy_batchedtensor: Any = _named("torch._C._functorch.is_legacy_batchedtensor")
are_transforms_active: Any = _named("torch._C._are_functorch_transforms_active")
# A scan under a transform is recorded outside of it.
clear_interpreter_stack: Any = _named(
    "torch._functorch.pyfunctorch.temporarily_clear_interpreter_stack"
)
_named("torch.autograd.forward_ad._current_level")


def forward_mode_is_active() -> bool:
    """Whether the call is within torch.autograd.forward_ad.dual_level, which says so to nobody."""
    return bool(torch.autograd.forward_ad._current_level >= 0)


# ---- the backward pass

# torch.autograd.grad imports SymPy before it calls this: 0.2 s.
execution_engine: Any = _named("torch.autograd.Variable._execution_engine")
# Tells whether a backward pass is running: a checkpoint then calls a function again.
graph_task: Any = _named("torch._C._current_graph_task_id", lambda: -1)
# Tells whether the running backward pass keeps the graph for another one.
graph_is_kept: Any = _named("torch._C._autograd._get_current_graph_task_keep_graph", lambda: True)


def _any_hooks(_: bool) -> object | None:
    """Hooks on saved tensors can be disallowed only where there are none.

    Which ones there are is not known: the object equals no other.
    """
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks("ostinato asks"):
            return None
    except RuntimeError:
        return object()


# The innermost hooks on saved tensors, or None.
top_hooks: Any = _named("torch._C._autograd._top_saved_tensors_default_hooks", _any_hooks)
# Tells whether hooks on saved tensors are allowed; torch.utils.checkpoint needs them.
hooks_are_allowed: Any = _named("torch._C._autograd._saved_tensors_hooks_is_enabled", lambda: True)

# ---- operations

# Whether a boolean tensor is all true is how code for several devices asks `tensor.all()`.
is_all_true: Any = _named("torch._is_all_true")
# Compositions that PyTorch's compilers put in place of operations.
decompositions: Any = _named("torch._decomp.decomposition_table")
DispatchKey: Any = _named("torch._C.DispatchKey")
has_kernel: Any = _named("torch._C._dispatch_has_kernel_for_dispatch_key")
# oneDNN's LSTM is one operation, which cannot be recorded; its switch is public for a `with` only.
get_mkldnn_enabled: Any = _named("torch._C._get_mkldnn_enabled")
set_mkldnn_enabled: Any = _named("torch._C._set_mkldnn_enabled")

# OpOverload.decompose prefers a composition in Python; that of matmul imports SymPy first.
_named("torch.ops.aten.matmul.default._op_dk")


def composite_kernel(operation: Any) -> Any:
    """The composition in C++ that an operation of ATen has, below autograd."""
    return functools.partial(operation._op_dk, DispatchKey.CompositeImplicitAutograd)


# ---- torch.compile

# Whether functions that are called now would be traced, without the import of torch._dynamo.
frame_callback: Any = _named("torch._C._dynamo.eval_frame.get_eval_frame_callback", lambda: None)
# Functions that are marked by these are not traced; other versions of PyTorch trace them, and warn.
set_code_exec_strategy: Any = _named("torch._C._dynamo.eval_frame.set_code_exec_strategy", None)
FrameExecStrategy: Any = _named("torch._C._dynamo.eval_frame._FrameExecStrategy", None)
FrameAction: Any = _named("torch._C._dynamo.eval_frame._FrameAction", None)

# ---- structures

# accelerate(verify=) takes a model's results in any structure that PyTorch knows.
tree_map_only: Any = _named("torch.utils._pytree.tree_map_only")
tree_leaves: Any = _named("torch.utils._pytree.tree_leaves")
