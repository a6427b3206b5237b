"""`LoopRuntime`: the functions that the code of a rewritten function calls."""

from __future__ import annotations

import types
from typing import Any

from ostinato.loops.iteration.index import FEWEST, running
from ostinato.loops.iteration.items import Items, items_of, sequence
from ostinato.loops.iteration.periods import Grouped
from ostinato.loops.iteration.state import UNBOUND
from ostinato.loops.running.joined import KnownRows
from ostinato.loops.running.run import Loop, fewest
from ostinato.loops.running.site import Site
from ostinato.loops.running.unwatched import Left, Unwatched


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
