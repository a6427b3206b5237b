"""`ostinato.loop`, and the functions of a model with their loops rewritten."""

from __future__ import annotations

import dis
import sys
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

from ostinato.compiler.capture.guards.code import is_fixed_name, root
from ostinato.compiler.torch_compat import out_of_graph
from ostinato.loops.iteration.index import FEWEST, running
from ostinato.loops.iteration.items import Items, items_of, sequence
from ostinato.loops.iteration.periods import Grouped
from ostinato.loops.iteration.state import UNBOUND
from ostinato.loops.running.joined import KnownRows
from ostinato.loops.running.run import Loop, fewest
from ostinato.loops.running.site import Site
from ostinato.loops.running.unwatched import Left, Unwatched
from ostinato.loops.text.rewrite import rewritten
from ostinato.loops.text.source import Definition, NoSource, like

Function = TypeVar("Function", bound=Callable[..., Any])
_MOST_FUNCTIONS = 2000
_MOST_ENTRIES = 100  # of a table of functions or classes


def loop(function: Function) -> Function:
    """Run the `for` loops over time of a function in the native engine, with the same results.

    The first iteration of a loop runs in Python. If the others compute the same operations on
    other elements, the engine runs them in one call; otherwise they run in Python, too, and a
    warning gives the line and the reason, once. docs/loops.md says which loops are native.
    Without a warning these run in Python: `while` loops, loops of fewer than 8 iterations, loops
    that are as fast in Python, and loops over tensors on a GPU.

    Args:
        function: a function or method; a staticmethod or classmethod object, too.

    Returns:
        A function to use instead; `__wrapped__` is the given one. A function without a `for` loop
        is returned as it is, with a warning.

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
        return type(function)(loop(function.__func__))
    if not isinstance(function, types.FunctionType):
        raise TypeError(
            f"loop: got a {type(function).__name__}; wanted a function or method, such as the "
            "forward of a module (ostinato.accelerate(model, loops=True) takes a module)"
        )
    try:
        made = with_loops(function)
    except NoSource as why:
        raise ValueError(f"loop: {function.__qualname__}: {why}") from None
    if made is not None:
        return made  # type: ignore[return-value]
    warnings.warn(
        f"loop: {function.__qualname__} has no `for` loop, so that it stays as it is"
        " (`while` loops run in Python)",
        stacklevel=2,
    )
    function.__ostinato_loops__ = []  # type: ignore[attr-defined]  # `explain` says so, too
    return function


def with_loops(
    function: types.FunctionType, callees: dict[str, list[Any]] | None = None
) -> types.FunctionType | None:
    """The function with its loops rewritten; None if it has none.

    A function that a decorator has wrapped is rewritten within its wrapper.

    Args:
        callees: names of functions that have loops → their rewritten forms, filled later. Calls of
            these names go to the rewritten forms.

    Raises:
        NoSource: its text is not available.
    """
    inner = vars(function).get("__wrapped__")
    if isinstance(inner, types.FunctionType):
        return _within_wrapper(function, inner, callees)
    definition = Definition(function)
    loops, calls = rewritten(definition.node, frozenset(callees or ()))
    if not loops and not calls:
        return None
    file = function.__code__.co_filename
    sites = [Site(source, file, function.__qualname__, given=callees is None) for source in loops]
    runtime = LoopRuntime(sites)
    for name in calls:
        setattr(runtime, f"{name}_", (callees or {})[name])
    made = definition.compiled(function, runtime)
    made.__ostinato_loops__ = sites  # type: ignore[attr-defined]
    return out_of_graph(made)


def _within_wrapper(
    wrapper: types.FunctionType, inner: types.FunctionType, callees: dict[str, list[Any]] | None
) -> types.FunctionType | None:
    """The result of a decorator, with the rewritten function inside."""
    cells = wrapper.__closure__ or ()
    holding = [i for i, c in enumerate(cells) if _content(c) is inner]
    if not holding:
        raise NoSource("a decorator around it hides the function")
    made = with_loops(inner, callees)
    if made is None:
        return None
    closure = [types.CellType(made) if i in holding else c for i, c in enumerate(cells)]
    around = like(wrapper, wrapper.__code__, closure)
    around.__ostinato_loops__ = made.__ostinato_loops__  # type: ignore[attr-defined]
    return around


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


# ------------------------------------------------------------------------ functions of classes


def rewritten_functions(classes: Iterable[type]) -> dict[types.FunctionType, types.FunctionType]:
    """The methods of these classes, and the functions that they call, with loops rewritten.

    Rewritten are functions with loops, and those that call one of these by its name.
    """
    found = reached(classes)
    names = {f.__name__ for f in found if _may_loop(f)}
    while True:
        calling = {f.__name__ for f in found if not names.isdisjoint(_unwrapped(f).co_names)}
        if calling <= names:
            break
        names |= calling
    callees: dict[str, list[Any]] = {name: [] for name in names}
    made: dict[types.FunctionType, types.FunctionType] = {}
    for function in found:
        if function.__name__ in names:
            try:
                new = with_loops(function, callees)
            except NoSource:
                continue
            if new is not None:
                made[function] = new
                callees[function.__name__].append(new)
    return made


def reached(roots: Iterable[Any]) -> list[types.FunctionType]:
    """These functions, the methods of classes, and all that their code names; the nearest first."""
    found: dict[types.FunctionType, None] = {}
    todo: deque[Any] = deque(roots)
    seen: set[int] = set()
    torchless: dict[str, bool] = {}
    while todo and len(found) < _MOST_FUNCTIONS:
        value = todo.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        if isinstance(value, type):
            for base in value.__mro__:
                if not _is_beyond(base.__module__, torchless):
                    todo += vars(base).values()
        elif isinstance(value, types.FunctionType):
            inner = vars(value).get("__wrapped__", value)
            if _is_beyond(getattr(inner, "__module__", None), torchless) or "<" in value.__name__:
                continue
            if isinstance(inner, types.FunctionType):
                found[value] = None
                todo += _named(inner)
    return list(found)


def _is_beyond(module: Any, torchless: dict[str, bool]) -> bool:
    """Whether a module has no loops over tensors: a library, or an installed package without
    PyTorch. `torchless` remembers the packages."""
    if is_fixed_name(module):
        return True
    package = root(module)
    if package not in torchless:
        torchless[package] = _is_torchless(package)
    return torchless[package]


def _is_torchless(package: str) -> bool:
    """Whether a package is installed and none of its modules refers to torch."""
    modules = [m for name, m in [*sys.modules.items()] if root(name) == package]
    parts = {part for m in modules for part in Path(getattr(m, "__file__", None) or "").parts}
    if not {"site-packages", "dist-packages"} & parts:
        return False
    return not any(
        root(getattr(v, "__module__", None) or getattr(v, "__name__", "")) == "torch"
        for module in modules
        for v in [*vars(module).values()]
        if isinstance(v, (types.ModuleType, types.FunctionType, type))
    )


def _named(function: types.FunctionType) -> list[Any]:
    """The functions and classes that code names: globals, attributes of modules, and those in a
    dict, list or tuple with a name."""
    scope = function.__globals__
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    values = [scope[n] for n in names if n in scope]
    values += [_content(c) for c in function.__closure__ or ()]
    values += _imported(function.__code__, str(scope.get("__package__") or ""))
    for module in [v for v in values if isinstance(v, types.ModuleType)]:
        if not is_fixed_name(module.__name__):
            values += [vars(module)[n] for n in names if n in vars(module)]
    for table in [v for v in values if isinstance(v, (dict, list, tuple))]:
        if len(table) <= _MOST_ENTRIES:
            values += table.values() if isinstance(table, dict) else table
    kinds = (types.FunctionType, type, staticmethod)
    return [v for v in values if isinstance(v, kinds) and not isinstance(v, types.ModuleType)]


def _imported(code: types.CodeType, package: str) -> list[Any]:
    """What code imports while it runs, where it was imported before."""
    found, constants = list[Any](), list[Any]()
    for i in dis.get_instructions(code):
        if i.opname == "LOAD_CONST":
            constants.append(i.argval)
        elif i.opname == "IMPORT_NAME" and len(constants) > 1:
            level, names = constants[-2:]
            within = package.rsplit(".", level - 1)[0] if level else ""
            module = sys.modules.get(".".join(filter(None, (within, i.argval))))
            if module is not None:
                found += [module, *[vars(module).get(name) for name in names or ()]]
    return found


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function, and that of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _unwrapped(function: Any) -> types.CodeType:
    return vars(function).get("__wrapped__", function).__code__


def _may_loop(function: types.FunctionType) -> bool:
    """Whether there is a loop in the code of a function, or of one within it."""
    instructions = map(dis.get_instructions, _codes(_unwrapped(function)))
    return any(i.opname == "FOR_ITER" for of_code in instructions for i in of_code)


def classes_of(model: torch.nn.Module) -> list[type]:
    """The classes of all modules of a tree, and of the plain objects in their attributes."""
    found: dict[type, None] = {}
    for module in model.modules():
        found[type(module)] = None
        for value in vars(module).values():
            if not is_fixed_name(type(value).__module__):
                found[type(value)] = None
    return [c for c in found if not is_fixed_name(c.__module__)]


class LoopRuntime:
    """The object through which the code of one rewritten function reaches its loops."""

    def __init__(self, sites: list[Site]):
        self.sites = sites

    sequence = staticmethod(sequence)
    unbound = UNBOUND

    @staticmethod
    def of(rewritten: list[Any], function: Any) -> Any:
        """The rewritten form of a function or method that is about to be called, if it has one."""
        for new in rewritten:
            if new.__wrapped__ is function:
                return new
            if type(function) is types.MethodType and new.__wrapped__ is function.__func__:
                return types.MethodType(new, function.__self__)
        return function

    @staticmethod
    def rows() -> KnownRows:
        return KnownRows()

    def begin(
        self, number: int, iterable: Any, body: Any, outer: Loop | None,
        rows: KnownRows,
    ) -> Any:  # fmt: skip
        """The object for a loop that begins: a `Loop` if it may become a scan, else `Unwatched`."""
        site = self.sites[number]
        if site.source.stays:
            return Left(site, iterable, outer)
        items = items_of(iterable)
        if items is not None and items.n - site.first >= FEWEST and not running.questions:
            site, groups = _grouped(site, items)
            if not site.refused or not site.waits(body, groups.n):
                return Loop(site, groups, body, outer, rows)
        elif site.native is None and not running.questions:
            kind = type(iterable).__name__
            site.reason = f"it iterates over a {kind}" if items is None else "it is short"
            if items is None:
                site.over_tensors = False
        return Unwatched(site, iterable if items is None else items, outer)


def _grouped(site: Site, items: Items) -> tuple[Site, Items]:
    """The loop over groups of iterations if its branches have a known period, else unchanged."""
    if site.period and site.of_groups is not None:
        groups = Grouped(items, 0, site.period)
        if groups.n - site.of_groups.first >= fewest(groups):
            return site.of_groups, groups
    return site, items
