"""`ostinato.loop`."""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from ostinato.loops.inplace import Caller, below
from ostinato.loops.rewriting import with_loops
from ostinato.loops.running.site import Site
from ostinato.loops.text.source import NoSource

Function = TypeVar("Function", bound=Callable[..., Any])


def loop(function: Function, *, calls: bool | None = None) -> Function:
    """Run the `for` loops over time of a function in the native engine, with the same results.

    The first iteration of a loop runs in Python. If the others compute the same operations on
    other elements, the engine runs them in one call; otherwise they run in Python, too, and a
    warning gives the line and the reason, once. docs/loops.md says which loops are native.
    Without a warning these run in Python: `while` loops, loops of fewer than 8 iterations unless
    these are heavy, loops that are as fast in Python, and loops over tensors on a GPU.

    Args:
        function: a function or method, bound or not; a staticmethod or classmethod object, too.
        calls: whether the loops of the functions that it calls are run so, too, as those of a model
            after `accelerate(model, loops=True)`; also of functions and modules among its
            arguments. By default if it has no loop itself.

    Returns:
        A function to use instead; `__wrapped__` is the given one. A function that neither has nor
        calls a `for` loop is returned as it is, with a warning.

    Raises:
        TypeError: it is not a Python function.
        ValueError: its source is not available.

    Example:
        >>> import torch, ostinato
        >>> def run(cell, x):                                   # x [B, T, F]
        ...     h, outputs = None, []
        ...     for t in range(x.size(1)):
        ...         h = cell(x[:, t], h)
        ...         outputs.append(h)
        ...     return torch.stack(outputs, 1), h
        >>> run = ostinato.loop(run)
        >>> outputs, h = run(torch.nn.GRUCell(3, 8), torch.randn(4, 50, 3))
        >>> outputs.shape
        torch.Size([4, 50, 8])
    """
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(loop(function.__func__, calls=calls))
    if isinstance(function, types.MethodType):
        bound = types.MethodType(loop(function.__func__, calls=calls), function.__self__)
        return bound  # type: ignore[return-value]
    if not isinstance(function, types.FunctionType):
        raise TypeError(
            f"loop: got a {type(function).__name__}; wanted a function or method, such as the "
            "forward of a module (ostinato.accelerate(model, loops=True) takes a module)"
        )
    try:
        made = None if calls else with_loops(function)
    except NoSource as why:
        raise ValueError(f"loop: {function.__qualname__}: {why}") from None
    if calls or (calls is None and made is None):
        caller = Caller(function)
        if calls or any(r.function() is not function for r in caller.redirects):
            return _with_calls(function, caller)  # type: ignore[return-value]
    if made is not None:
        return made  # type: ignore[return-value]
    warnings.warn(
        f"loop: {function.__qualname__} has no `for` loop, and calls none, so that it stays as it"
        " is (`while` loops run in Python)",
        stacklevel=2,
    )
    function.__ostinato_loops__ = []  # type: ignore[attr-defined]  # `explain` says so, too
    return function


def _with_calls(function: types.FunctionType, caller: Caller) -> Callable[..., Any]:
    """The function as the caller of those that it calls."""

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        return below(caller, function, *arguments, **named)

    called.__ostinato_loops__ = caller  # type: ignore[attr-defined]
    return called


def loops_in(function: Any) -> list[Site]:
    """The loops of a function that `loop` has made, or of those that it calls."""
    return [*getattr(function, "__ostinato_loops__", ())]
