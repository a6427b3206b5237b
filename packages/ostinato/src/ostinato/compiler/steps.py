"""A step as a Python object: its code, its name, the object behind it; and warnings about it."""

from __future__ import annotations

import functools
import sys
import types
import warnings
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

from ostinato.compiler.errors import Elsewhere, SideEffect, Unsupported

WARN_AFTER = 8  # recordings of one piece of code


class Recent(OrderedDict[Any, Any]):
    """Findings by step; beyond the most that are kept, the first one goes."""

    def __init__(self, most: int = 128):
        super().__init__()
        self.most = most

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        while len(self) > self.most:
            self.popitem(last=False)


_times: dict[Any, int] = defaultdict(int)  # the number of warnings, by code and subject


def code_key(step: Any) -> Any:
    """A key that is stable when a closure, a method or a class is made anew, and keeps none
    alive."""
    step = _unwrapped(step)
    if isinstance(step, types.FunctionType):
        return step.__code__
    return type(step).__module__, type(step).__qualname__


def name_of(step: Any) -> str:
    """The name of a step in messages: of its function, or of its class."""
    step = _unwrapped(step)
    return step.__qualname__ if isinstance(step, types.FunctionType) else type(step).__name__


def _unwrapped(step: Any) -> Any:
    """The function inside methods, partials and what functools.wraps has wrapped."""
    while True:
        if isinstance(step, types.MethodType):
            step = step.__func__
        elif isinstance(step, functools.partial):
            step = step.func
        elif isinstance(step, types.FunctionType) and "__wrapped__" in vars(step):
            step = vars(step)["__wrapped__"]
        else:
            return step


def owner_of(step: Any) -> Any:
    """The object that a step is a method of, or the first that it closes over; else its code."""
    if isinstance(step, types.MethodType):
        return step.__self__
    if isinstance(step, types.FunctionType):
        for cell in step.__closure__ or ():
            try:
                if type(cell.cell_contents).__weakrefoffset__:
                    return cell.cell_contents
            except ValueError:  # a variable that is not bound yet
                continue
        return step.__code__
    return step


def weak_reference(of: Any) -> Callable[[], Any]:
    """A function that returns the object while it lives, then None; None if that is not
    possible."""
    try:
        return weakref.ref(of)
    except TypeError:  # nothing is remembered about it
        return lambda: None


def count_recording(step: Any, changed: str) -> None:
    """Warn once that a step is recorded again and again; changed: the difference this time."""
    ours = _is_ours(getattr(_unwrapped(step), "__module__", ""))
    if _is_time(WARN_AFTER + 1, step, "recorded") and not ours:
        _warn(
            f"{name_of(step)} was recorded {WARN_AFTER} times: {changed or 'a shape or dtype'} "
            f"changes between calls. {remedy(changed)}"
        )


def remedy(changed: str) -> str:
    """The remedy for a changing value, by its path; "" is a shape."""
    if changed:
        return "Pass the changing value through xs, or as a tensor"
    return "Give it tensors of a few shapes and one dtype: pad lengths, say"


def warn_refused(step: Any, refusal: Unsupported) -> None:
    """Warn once per step function why it runs in the Python loop, if the reason is in the step."""
    # A side effect may happen once, for example to fill a memo: the warning comes the second time.
    time = 1 + isinstance(refusal, SideEffect)
    if not isinstance(refusal, Elsewhere) and _is_time(time, step, refusal.reason):
        operation = f" ({refusal.op})" if refusal.op else ""
        _warn(
            f"scan runs {name_of(step)} in the slow Python loop: {refusal.reason}{operation}. "
            "ostinato.explain(step, init, xs) says more; OSTINATO_ENGINE=eager silences this"
        )


def warn_checkpointed(step: Any) -> None:
    """Warn once per step function that its memory budget is not kept exactly."""
    if _is_time(1, step, "checkpointed"):
        _warn(
            f"memory= cannot be kept exactly, since {name_of(step)} runs in the Python loop: "
            "PyTorch's checkpointing keeps the carry every √T steps and computes the steps between "
            "them again, however many bytes this takes"
        )


def warn_unbounded(step: Any) -> None:
    """Warn once per step function that its memory budget cannot be kept."""
    if _is_time(1, step, "unbounded"):
        _warn(
            f"memory= has no effect on {name_of(step)} under torch.func.grad, which does not let "
            "PyTorch's checkpointing work: all steps are kept for the backward pass; "
            "torch.autograd.grad keeps the budget"
        )


def warn_too_large(kept: int) -> None:
    """Warn that a run keeps more bytes for the backward pass than this process can get."""
    from ostinato import machine  # not a part of every start

    available = machine.available_memory()
    if available is not None and kept > available:
        _warn(
            f"scan is about to keep {kept / 1e9:.2f} GB for the backward pass; this process can "
            f"get {available / 1e9:.2f} GB more. With memory=, say "
            f'memory="{max(1, round(available / 4e6))}MB", scan keeps states at checkpoints and '
            "computes the others again (docs/memory.md)"
        )


def _is_time(n: int, step: Any, what: str) -> bool:
    """Whether this is the nth time that this warning concerns the code of a step."""
    _times[code_key(step), what] += 1
    return _times[code_key(step), what] == n


def _is_ours(module: Any) -> bool:
    return str(module).startswith("ostinato")


def _warn(text: str) -> None:
    """A warning that points to the caller of ostinato."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__")):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)
