"""Inside torch.compile: a clean graph break.

The usual decorator would import torch._dynamo, which takes a second. What is marked by
`out_of_graph` is not traced. What it calls is not where PyTorch can be told so (`own_frame`); else
it would be, unless through `disabled` where dynamo `looks_on`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

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
