"""A function with its loops rewritten, and the object through which its code reaches them."""

from __future__ import annotations

import types
from typing import Any

import torch

from ostinato.compiler import torch_private
from ostinato.compiler.steps import Recent
from ostinato.compiler.torch_compat import out_of_graph, seen_by_others
from ostinato.engine import native
from ostinato.loops.iteration.index import FEWEST, SHORTEST, running
from ostinato.loops.iteration.items import Items, items_of, sequence
from ostinato.loops.iteration.periods import Grouped
from ostinato.loops.iteration.state import UNBOUND
from ostinato.loops.running import pace
from ostinato.loops.running.joined import KnownRows
from ostinato.loops.running.run import Loop, fewest
from ostinato.loops.running.site import Site
from ostinato.loops.running.unwatched import Left, Short, Unwatched, watching
from ostinato.loops.text.rewrite import rewritten
from ostinato.loops.text.source import Definition, NoSource, like, with_code


def with_loops(function: types.FunctionType, named: bool = True) -> types.FunctionType | None:
    """The function with its loops rewritten; None if it has none.

    A function that a decorator has wrapped is rewritten within its wrapper.

    Args:
        named: whether the user named this function: a loop that is not rewritten then gives a
            warning.

    Raises:
        NoSource: its text is not available.
    """
    inner = vars(function).get("__wrapped__")
    if isinstance(inner, types.FunctionType):
        return _within_wrapper(function, inner)
    old = function.__code__
    key = old, old.co_filename, function.__qualname__, named
    if key not in known:
        definition = Definition(function)
        loops = rewritten(definition.node)
        sites = [Site(of, old.co_filename, function.__qualname__, given=named) for of in loops]
        known[key] = definition.compiled(old) if loops else old, LoopRuntime(sites)
    code, runtime = known[key]
    if not runtime.sites:
        return None
    made = with_code(function, code, runtime)
    made.__ostinato_loops__ = runtime.sites  # type: ignore[attr-defined]
    return out_of_graph(made)


# Rewritten code and its loops: a function that is defined again and again, within another one or
# in a file that is run anew, has them once.
known = Recent(512)


def _within_wrapper(
    wrapper: types.FunctionType, inner: types.FunctionType
) -> types.FunctionType | None:
    """The result of a decorator, with the rewritten function inside."""
    cells = wrapper.__closure__ or ()
    holding = [i for i, c in enumerate(cells) if _content(c) is inner]
    if not holding:
        raise NoSource("a decorator around it hides the function")
    made = with_loops(inner)
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


class LoopRuntime:
    """The object through which the code of one rewritten function reaches its loops."""

    def __init__(self, sites: list[Site]):
        self.sites = sites

    sequence, is_compiling = staticmethod(sequence), staticmethod(torch.compiler.is_compiling)
    unbound = UNBOUND

    @staticmethod
    def rows() -> KnownRows:
        return KnownRows()

    def begin(
        self,
        number: int,
        iterable: Any,
        body: Any,
        outer: Loop | None,
        rows: KnownRows,
    ) -> Any:
        """The object for a loop that begins: a `Loop` if it may become a scan, else `Unwatched`."""
        site = self.sites[number]
        if site.source.stays:
            return Left(site, iterable, outer)
        items = items_of(iterable)
        mode = torch_private.unavailable() or native.unavailable()
        if mode is None and native.modes() is None:
            mode = seen_by_others()  # torch.export, say
        n = items.n - site.first if items is not None else 0
        is_long = n >= (SHORTEST if site.heavy else FEWEST)
        if items is not None and is_long and mode is None and not running.questions:
            if any(of.unrolls(items.n) for of in watching.loops):
                site.ran(False, "it is unrolled in the loop around it", over_tensors=False)
                return Unwatched(site, items, outer)
            site, groups = _grouped(site, items)
            if not site.refused or not site.waits(body, groups.n):
                return Loop(site, groups, body, outer, rows)
        elif site.native is None and not running.questions:
            kind = type(iterable).__name__
            why = mode if is_long and mode is not None else "it is short"
            site.reason = f"it iterates over a {kind}" if items is None else why
            if items is None:
                site.over_tensors = False
        is_short = SHORTEST <= n < FEWEST and not site.heavy
        if is_short and pace.MEASURES and not running.questions:
            return Short(site, items, outer)
        return Unwatched(site, iterable if items is None else items, outer)


def _grouped(site: Site, items: Items) -> tuple[Site, Items]:
    """The loop over groups of iterations if its branches have a known period, else unchanged."""
    if site.period and site.of_groups is not None:
        groups = Grouped(items, 0, site.period)
        if groups.n - site.of_groups.first >= fewest(groups):
            return site.of_groups, groups
    return site, items
