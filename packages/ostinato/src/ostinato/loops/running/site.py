"""One loop of the text, over all its calls; and its warning."""

from __future__ import annotations

import types
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch

from ostinato._explain import advice
from ostinato.compiler.errors import Elsewhere, Unsupported
from ostinato.compiler.steps import Recent, owner_of, weak_reference
from ostinato.loops.iteration.attributes import Place
from ostinato.loops.iteration.index import FEWEST
from ostinato.loops.iteration.nostep import NoStep, remedy_for
from ostinato.loops.iteration.plan import LoopPlan, Read
from ostinato.loops.text.rewrite import LoopSource

MOST_PLANS = 16  # of one structure of the state, and structures: a number may be new in each call
_MOST_IN_A_ROW = 8  # refused calls; then each owner waits for the others, too


@dataclass(eq=False)
class Site:
    """One loop of the text, and its state over all calls.

    Attributes:
        source: the loop.
        file, name: its file, and its function.
        given: whether the user gave its function to `ostinato.loop`. Otherwise there is no warning
            for a loop that is not rewritten, or that may not be over tensors.
        places: the attributes that its iterations change.
        looked: the objects whose attributes were looked at, by id.
        plans: structure of the state → the plans of its steps.
        first: the iterations that run in Python before a scan.
        native: whether the last call ran as a scan; None if there was no call.
        been_native: whether any call did.
        reason: why the iterations of the last call ran in Python.
        times: the seconds of the first iteration, in Python, and of one of the last scan.
        has_queue: whether lists that iterations append to have one length after each.
        counted: names of numbers that change from iteration to iteration → by how much.
        in_a_row: refused calls since one was played, of any owner: one may be made for each call.
        ends: of loops of a length, the iteration at which a scan from another one ends, since a
            branch on values goes another way there.
        offsets: what the numbers that count would have been in iteration 0 of the last call.
        refused: after a refusal: the owner, and the calls since then, by owner and mode.
        period: after how many iterations their branches repeat, or 0.
        of_groups: what is known of groups of as many.
        whole: the site of the loop, if this is that of its groups.
        heavy: whether each iteration takes so long that a short scan may gain something.
        ahead: the elements that iterations read or write, if a call may run all iterations as a
            scan. None: the first one runs in Python, since no call has shown yet what iterations
            do, or since it is not like the others.
        all_alike: whether the first iteration may be like the others.
        over_tensors: whether its iterations go through tensors; None: not known yet.
    """

    source: LoopSource
    file: str
    name: str
    given: bool = False
    places: list[Place] = field(default_factory=list)
    looked: dict[int, Any] = field(default_factory=lambda: Recent(256))
    plans: dict[Any, list[LoopPlan]] = field(default_factory=lambda: Recent(MOST_PLANS))
    first: int = 1
    native: bool | None = None
    been_native: bool = False
    reason: str = ""
    times: tuple[float, float] | None = None
    warned: bool = False
    has_queue: bool = False
    counted: dict[str, int | None] = field(default_factory=dict)
    in_a_row: int = 0
    ends: dict[tuple[int, int], int] = field(default_factory=lambda: Recent(64))
    offsets: Any = None
    refused: dict[Any, tuple[Any, int]] = field(default_factory=lambda: Recent(256))
    period: int = 0
    of_groups: Site | None = None
    whole: Site | None = None
    heavy: bool = False
    ahead: set[Read] | None = None
    all_alike: bool = True
    over_tensors: bool | None = None

    def grouped(self, period: int) -> Site:
        """The site of groups of iterations whose branches repeat."""
        of = self.whole or self
        if of.period != period or of.of_groups is None:
            of.of_groups = Site(of.source, of.file, of.name, of.given, whole=of)
            of.period = period
            of.of_groups.places = list(of.places)
        return of.of_groups

    def ran(self, native: bool, reason: str, over_tensors: bool = True) -> None:
        """Record how the loop ran."""
        for site in (self, self.whole):
            if site is not None:
                site.native, site.reason = native, reason
                site.been_native |= native
                site.over_tensors = site.over_tensors or native or over_tensors

    def knows(self, owner: Any) -> bool:
        known = self.looked.get(id(owner))
        return known is not None and known() is owner

    def waits(self, body: types.FunctionType, n: int) -> bool:
        """Whether a loop that was refused runs in Python; not at calls 1, 2, 4, 8, …"""
        waits = False
        for key in self.keys(body, n):
            of, count = self.refused.get(key, (None, 0))
            if of is not None and of() is owner_of(body):
                self.refused[key] = of, count + 1
                waits |= bool((count + 1) & count)
        if self.in_a_row >= _MOST_IN_A_ROW:
            self.in_a_row += 1
            waits |= bool(self.in_a_row & (self.in_a_row - 1))
        return waits

    def keys(self, body: types.FunctionType, n: int) -> tuple[Any, Any]:
        """The key of a refusal: an owner in a mode, or these and a length."""
        owner = owner_of(body)
        key = id(owner), getattr(owner, "training", None), torch.is_grad_enabled()
        return key, (*key, n)

    def refuse(
        self,
        body: types.FunctionType,
        n: int,
        refusal: Unsupported,
        over_tensors: bool,
        too_slow: bool = False,
    ) -> bool:
        """Keep the reason; whether to warn: not for a loop over other things than tensors.

        Args:
            too_slow: whether the reason is that a scan takes longer.
        """
        if not isinstance(refusal, Elsewhere):
            self.in_a_row += not too_slow
            key, owner = self.keys(body, n)[too_slow], owner_of(body)
            of = self.refused.get(key, (None,))[0]
            if of is None or of() is not owner:
                self.refused[key] = weak_reference(owner), 4 if too_slow else 0
        self.ran(False, refusal.reason, over_tensors)
        quiet = isinstance(refusal, Elsewhere) or getattr(refusal, "quiet", False)
        quiet |= n < FEWEST or (isinstance(refusal, NoStep) and not over_tensors)
        return not quiet

    def warn(self, refusal: Unsupported) -> None:
        """Warn once why the loop runs in Python, and what to write instead."""
        of = self.whole or self
        if not of.warned:
            of.warned = True
            operation = f" ({refusal.op})" if refusal.op else ""
            remedy = remedy_for(refusal.reason, refusal.op) or advice(refusal)
            instead = f"; write instead: {remedy}" if remedy else ""
            text = (
                f"the loop `{self.source.text}` runs in Python: {refusal.reason}{operation}"
                f"{instead}. ostinato.explain(function, …) and docs/loops.md say more"
            )
            warnings.warn_explicit(text, UserWarning, self.file, self.source.line)
