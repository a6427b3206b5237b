"""Everything the compiler needs of PyTorch beyond its everyday surface.

Two subjects: torch.compile (a call of scan inside it is a clean graph break), and the modes that
are active around a call (how a step is run without anybody's notice).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode, _get_current_function_mode
from torch.utils import _python_dispatch
from torch.utils._device import DeviceContext

from ostinato.engine import native

# The decorator that torch.compile offers for this imports torch._dynamo, which takes a second. A
# function marked by `out_of_graph` is not traced, nor is what it calls, where this PyTorch can be
# told so (`own_frame`); where it cannot, and dynamo `looks_on`, the call goes through `disabled`.

_frame_callback: Any = None  # of torch._dynamo, once that is there


def looks_on() -> bool:
    """Whether torch.compile would trace the functions called here (or this torch cannot say)."""
    global _frame_callback
    if torch.compiler.is_dynamo_compiling():  # it is looking here; what follows it warns of
        return True
    if _frame_callback is None:
        if "torch._dynamo" not in sys.modules:
            return False
        found = getattr(torch._C._dynamo.eval_frame, "get_eval_frame_callback", None)
        _frame_callback = found or (lambda: "unknown")
    return _frame_callback() is not None


_disabled: dict[Any, Callable[..., Any]] = {}


def disabled(function: Callable[..., Any]) -> Callable[..., Any]:
    if function not in _disabled:  # not functools.cache: dynamo looks through that, and warns
        import torch._dynamo

        _disabled[function] = torch._dynamo.disable(function)
    return _disabled[function]


class _Stance:
    """PyTorch has one for all threads: the first sets it, and it ends with the last.

    Setting it takes 10 µs: only where a step was seen that has something compiled.
    """

    lock, threads, needed = threading.Lock(), 0, False
    of_ours: Any = None


def as_written() -> AbstractContextManager[None]:
    """What torch.compile made is run as it was before."""
    return _as_written() if _Stance.needed else _NOTHING


_NOTHING = nullcontext()


@contextmanager
def _as_written() -> Iterator[None]:
    with _Stance.lock:
        if not _Stance.threads:
            _Stance.of_ours = torch.compiler.set_stance("force_eager")
        _Stance.threads += 1
    try:
        yield
    finally:
        with _Stance.lock:
            _Stance.threads -= 1
            if not _Stance.threads:
                _Stance.of_ours.__exit__(None, None, None)


def source_of(function: Any) -> Any:
    """What a function of a step was before torch.compile."""
    source = vars(function).get("_torchdynamo_orig_callable")
    if source is None:
        return function
    expect_compiled()
    return source


def expect_compiled() -> None:
    """Some step has parts that torch.compile made."""
    _Stance.needed = True


def out_of_graph(function: Any) -> Any:
    function._torchdynamo_disable = True
    return own_frame(function)


def own_frame(function: Any) -> Any:
    """Called from outside of a graph neither it nor what it calls is traced."""
    frames = torch._C._dynamo.eval_frame
    # Older versions trace it, and warn.
    if hasattr(frames, "set_code_exec_strategy") and hasattr(frames, "_FrameExecStrategy"):
        skip = frames._FrameAction.SKIP
        frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
    return function


_forward_ad = torch.autograd.forward_ad


def transformed() -> str | None:
    """What is active that must see every operation, so that the eager loop has to run."""
    if native.modes() is not None and not is_searching():
        return None
    mode = _get_current_function_mode()
    if isinstance(mode, OwnMode) and mode.left:
        torch._C._pop_torch_function_stack()
        return transformed()
    if torch._C._are_functorch_transforms_active():
        return "a torch.func transform is active"
    if _forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    if is_recorded():
        return "another mode is recording operations"
    if torch._C._is_tracing():
        return "the call is being traced"
    if torch._C._len_torch_function_stack() > 0 and default_devices() is None:
        return "a mode that overrides torch's functions is active"
    return None


def default_devices() -> tuple[torch.device, ...] | None:
    """Where a step's new tensors go by `with torch.device` or set_default_device, outermost first.

    None if a mode is among them that overrides functions in another way.
    """
    modes = torch.overrides._get_current_function_mode_stack()
    if not all(isinstance(mode, DeviceContext) for mode in modes):
        return None
    return tuple([mode.device for mode in modes])


class _Searching(threading.local):
    active = False


_searching = _Searching()


def is_searching() -> bool:
    """Whether a step is being searched for what it captures: a scan within it plays the loop."""
    return _searching.active


def is_recorded() -> bool:
    """Whether somebody records operations: a step that is searched or recorded, say."""
    return is_searching() or torch._C._len_torch_dispatch_stack() > 0


@contextmanager
def searching() -> Iterator[None]:
    """A step is searched: a scan within it must show its operations."""
    _searching.active = True
    try:
        yield
    finally:
        _searching.active = False


class OwnMode(TorchFunctionMode):
    """What sees torch's functions while it is entered, and not after.

    Where an interrupt comes as one of them is called, the mode is neither on PyTorch's stack nor
    gone: a generator in the traceback holds it, and puts it there when that is forgotten.
    """

    left = False

    def __exit__(self, *error: object) -> None:
        self.left = True
        if _get_current_function_mode() is self:
            torch._C._pop_torch_function_stack()


@contextmanager
def among_ours() -> Iterator[None]:
    """A step runs under modes of ours: what is compiled in it as it is written.

    Afterwards PyTorch's modes are what they were: an interrupt may come while one is entered or
    left, and it would stay, and see all that follows.
    """
    functions, dispatches = (
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
    )
    try:
        with as_written():
            yield
    finally:
        while torch._C._len_torch_function_stack() > functions:
            torch._C._pop_torch_function_stack()
        while torch._C._len_torch_dispatch_stack() > dispatches:
            _python_dispatch._pop_mode()


def _same(t: Tensor) -> Tensor:
    return t


# What is on top of the hooks on saved tensors, or None. Older versions of PyTorch do not say.
_top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda _: True)


@contextmanager
def undisturbed(pack: Callable[[Tensor], Tensor] = _same) -> Iterator[None]:
    """Extra calls of a step must not be noticed.

    Hooks on saved tensors (checkpoints) see nothing, but `pack` what is saved;
    `torch.nn.utils.parametrize.cached` keeps nothing of them; what is recorded under inference mode
    can be differentiated later.
    """
    cached, parametrize._cache_enabled = parametrize._cache_enabled, 0
    try:
        if not torch.is_inference_mode_enabled() and _top_hooks(False) is None:
            yield
            return
        with ExitStack() as stack:
            if torch.is_inference_mode_enabled():
                mode = torch.is_grad_enabled()
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.set_grad_enabled(mode))
            if _top_hooks(False) is not None:
                stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, _same))
            yield
    finally:
        parametrize._cache_enabled = cached
