"""`ostinato.loop`: a function whose loops over time are played by `scan`."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, TypeVar

from ostinato.compiler.torch_compat import out_of_graph
from ostinato.loops.rewrite import rewritten
from ostinato.loops.run import LoopRuntime, Site
from ostinato.loops.source import Definition, NoSource

Function = TypeVar("Function", bound=Callable[..., Any])


def loop(function: Function) -> Function:
    """Play the loops over time in a function by `scan`; it means what it meant in Python.

    The first iteration of a loop runs in Python. If the others are steps of a scan, the engine
    plays them in one call; otherwise they run in Python, too, and a warning gives the line and the
    reason, once. docs/loops.md says which loops are steps.

    Args:
        function: a function or method; a staticmethod or classmethod object, too.

    Returns:
        A function in its place; `__wrapped__` is the given one.

    Raises:
        TypeError: it is no Python function.
        ValueError: its source is not available.

    Example:
        >>> import torch, ostinato
        >>> def run(cell, x):                                   # x [B, T, F]
        ...     h, outputs = None, []
        ...     for t in range(x.size(1)):
        ...         h = cell(x[:, t], h)
        ...         outputs.append(h)
        ...     return torch.stack(outputs, 1), h
        >>> run = ostinato.loop(run) # doctest: +SKIP
    """
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(loop(function.__func__))  # type: ignore[return-value]
    if not isinstance(function, types.FunctionType):
        raise TypeError(
            f"loop: got a {type(function).__name__}; wanted a function or method, such as the "
            "forward of a module (ostinato.accelerate(model, loops=True) takes a module)"
        )
    try:
        made = with_loops(function)
    except NoSource as why:
        raise ValueError(f"loop: {function.__qualname__}: {why}") from None
    return function if made is None else made  # type: ignore[return-value]


def with_loops(function: types.FunctionType) -> types.FunctionType | None:
    """The function with its loops rewritten; None where it has none that could be one over time.

    Raises:
        NoSource: its text is not available.
    """
    definition = Definition(function)
    loops = rewritten(definition.node)
    if not loops:
        return None
    file = function.__code__.co_filename
    runtime = LoopRuntime([Site(source, file) for source in loops])
    made = definition.compiled(function, runtime)
    made.__ostinato_loops__ = runtime.sites  # type: ignore[attr-defined]
    return out_of_graph(made)
