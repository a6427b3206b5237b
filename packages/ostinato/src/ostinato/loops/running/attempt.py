"""One attempt to run the rest of a loop's iterations, or a part of them, as a scan."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from ostinato import tree
from ostinato._explain import Explanation, explained
from ostinato._scan import iterations, scan_iterations
from ostinato.compiler.capture.captures import memory_of
from ostinato.compiler.capture.draws import States
from ostinato.compiler.capture.wrapped import outermost
from ostinato.compiler.errors import (
    Mispredicted,
    Transformed,
    Unexamined,
    Unsupported,
    error_in_short,
)
from ostinato.compiler.inputs import modes
from ostinato.compiler.torch_private import top_hooks
from ostinato.loops.iteration.carry import State, places_of
from ostinato.loops.iteration.emitted import Fresh
from ostinato.loops.iteration.index import FEWEST, MOST_BRANCHES
from ostinato.loops.iteration.nostep import Counted, ListRead, Narrowed, NoStep, Stale
from ostinato.loops.iteration.plan import MOST_IN_PYTHON, LoopPlan
from ostinato.loops.iteration.probe import probed
from ostinato.loops.iteration.step import Step
from ostinato.loops.running import pace as paces
from ostinato.loops.running.finish import LoopResults
from ostinato.loops.running.joined import KnownRows
from ostinato.loops.running.pace import Choice, LoopPace, Trial, nodes_of
from ostinato.loops.running.site import MOST_PLANS, Site
from ostinato.loops.running.window import LoopWindow


class _Explaining(threading.local):
    """The steps of loops that run as scans, with their sites' ids, while a caller collects them."""

    found: list[tuple[int, Explanation]] | None = None


explaining = _Explaining()


class Attempt:
    """A window of a loop's iterations, the plan that fits it, and its scan.

    Attributes:
        began: when the iterations before it were over.
        lasted: the seconds of the last one of these, in Python.
        turns: how many scans of this loop have ended where a branch on values turned.
        counted_from: what the numbers that count would be in iteration 0.
        probed: the plan that this attempt has made, or found to be true, by examining the body.
        trial: the iterations that are to run in Python for their time.
    """

    def __init__(
        self,
        site: Site,
        window: LoopWindow,
        rows: KnownRows,
        began: float,
        lasted: float,
        turns: int,
    ):
        self.site, self.window, self.rows = site, window, rows
        self.began, self.lasted, self.turns = began, lasted, turns
        self.counted_from: Any = None
        self.probed: LoopPlan | None = None
        self.trial: Trial | None = None

    def run(self, names: dict[str, Any]) -> tuple[Any, ...] | Choice:
        """The names that the iterations bind, with their values; or why Python is to run them.

        Raises:
            Unsupported: they are no scan; nothing has happened.
        """
        source, window = self.site.source, self.window
        places = places_of(window.body, self.site.places)
        stale: list[LoopPlan] = []
        grown = not self.site.has_queue
        read: NoStep | None = None
        anew = False
        for _ in range(6):
            state = State(names, source, places, window.body, self.site.counted, grown)
            key = *state.key(), window.items.kind(), torch.is_grad_enabled()
            self.counted_from = state.counted_from(window.begin)
            try:
                step, plan = self.step(state, key, stale, anew)
            except Counted as number:
                if self.site.counted.get(number.name, 0) == number.by:
                    raise
                self.site.counted[number.name] = number.by
                if number.by == 0:  # it did in another call
                    del self.site.counted[number.name]
                continue
            except ListRead as error:  # it may be a queue, of one length after each iteration
                if not grown or not state.carried.lists:
                    raise
                grown, read = False, error
                continue
            except NoStep as error:
                if read is None or isinstance(error, Narrowed):
                    raise
                raise read from None
            try:
                return self.played(step, plan, state)
            except Unexamined:
                anew = True
            except Mispredicted as refusal:
                course = self.course_of(refusal)
                if isinstance(course, Narrowed) or plan in stale:
                    raise course from None
                stale.append(plan)  # one that was seen in this call may know the answers
            except Unsupported as refusal:
                # No name outlives this clause: its traceback would keep the call's tensors.
                if not self.tries_another(step.problem or refusal, plan):
                    raise _with_shapes(step.problem or refusal, names, source.carried) from None
                stale.append(plan)
        raise NoStep("an iteration does something else each time it is examined")

    def course_of(self, refusal: Mispredicted) -> Unsupported:
        """The iterations up to the one that branches in another way; the refusal if they are few.

        The next call of this length tries no more than these at once.
        """
        window = self.window
        if refusal.at < max(FEWEST, window.n / 8) or self.turns >= MOST_BRANCHES:
            return refusal
        self.turns += 1
        end = self.site.ends[window.items.n, window.begin] = window.begin + refusal.at
        return Narrowed(refusal.reason, begin=window.begin, end=end)

    def tries_another(self, why: Exception, plan: LoopPlan) -> bool:
        """Whether another plan may do what this one refused: one that was made in another call
        may read beyond the end of what this call has."""
        other = isinstance(why, NoStep) and plan is not self.probed
        return isinstance(why, Stale) or (other and not isinstance(why, Narrowed))

    def step(
        self, state: State, key: Any, stale: list[LoopPlan], anew: bool
    ) -> tuple[Step, LoopPlan]:
        """The step with a plan that fits this call, or a new one; anew: with a new one."""
        window, n, carried = self.window, self.window.items.n, self.site.source.carried
        known = [p for p in self.site.plans.get(key, ()) if p not in stale and not anew]
        for plan in sorted(known, key=lambda p: n not in p.lengths):
            step = window.step(state, plan, carried)
            if window.fits(step, plan):
                plan.lengths.add(n)
                return step, plan
        with suppress(Transformed):  # which scan plays
            modes()  # raises if no scan is possible
        step = window.step(state, LoopPlan(), carried)
        items = [t[0] for t in window.items.tensors(window.begin, window.end)]
        made = probed(step, state.tensors, items, window.written)
        made.begins_at(window.starts(state, made))
        made.shares = window.shares(made, state)
        plans = self.site.plans.setdefault(key, [])
        same = next((p for p in plans if p.facts() == made.facts()), None)
        if same is None:
            plans.insert(0, made)
            del plans[MOST_PLANS:]
        step.plan = plan = self.probed = same or made
        plan.starts, plan.called = made.starts, made.called
        # What depends on what is only seen where there are gradients.
        plan.passed = tuple(map(operator.or_, plan.passed, made.passed))
        plan.ends = plan.ends | made.ends
        plan.lengths.add(n)
        if not window.fits(step, plan):
            why = "its iterations read other elements than the first ones"
            # One more iteration may show what all the others read.
            if window.begin - window.course < MOST_IN_PYTHON:
                raise Narrowed(why, begin=window.begin + 1, end=window.end)
            raise NoStep(why)
        return step, plan

    def played(self, step: Step, plan: LoopPlan, state: State) -> tuple[Any, ...] | Choice:
        """Run the window by scan, and leave the results of its iterations."""
        window = self.window
        pace = self.pace_of(plan, state)
        choice = Choice.SCAN if pace is None else self.choice(pace, state)
        if choice is not Choice.SCAN:
            return choice
        items = window.items.tensors(window.begin, window.end)
        step.n_items = len(items)
        xs = [*items, *window.given(plan)]
        both = zip(state.tensors, plan.tensors, strict=False)
        written = [t for t, how in both if how == "written"]
        # The backward pass must not read what is changed in place afterwards.
        carry = [t.clone() if any(t is w for w in written) else t for t in state.tensors]
        carry = [*step.carried(carry), *window.behind(plan, state)]
        carry, step.has_dummy, xs = _with_dummies(carry, xs, window.n)
        kept_in = [(container, place.key) for place, container in state.places]
        targets = [window.elements(read, parts) for read, parts, _ in plan.puts]
        if any(target.piece is not None and abs(target.step) < target.piece for target in targets):
            raise NoStep("the elements that iterations write overlap")
        written += [target.base for target in targets if isinstance(target.base, Tensor)]
        memories = {memory_of(t) for t in written} - {None}
        self.check_iterated(memories, [*state.changing(), *[target.base for target in targets]])
        grown = [(c, p.key, c[p.key]) for p, c in state.places if p.grows]
        for container, key, of in grown:  # guards need not know their contents
            container[key] = Fresh() if type(of) is list else of
        random = States()
        try:
            examined = plan is self.probed
            arguments = iterations(step, window.body, plan, kept_in, carry, xs, examined)
            if explaining.found is not None:
                if not examined:
                    raise Unexamined("to explain it")
                site = self.site.whole or self.site
                explaining.found.append((id(site), explained(arguments)))
            finals, ys = scan_iterations(arguments, memories)
        except Unsupported:
            random.put_back()
            raise
        except Exception as error:  # the loop in Python will raise it where it belongs
            if type(error).__module__ == "torch.utils.checkpoint":  # it ends a recomputation
                raise
            error.__traceback__ = None
            random.put_back()
            raise NoStep(f"an iteration fails as a step ({error_in_short(error)})") from None
        finally:
            for container, key, of in grown:
                container[key] = of
        lasted = (time.perf_counter() - self.began) / window.n
        plan.calls += 1
        if plan.calls > 1 and top_hooks(False) is None:
            shown = self.site.whole or self.site
            if window.begin or shown.times is None:
                shown.times = self.lasted, lasted
            else:  # no first iteration ran in Python
                shown.times = shown.times[0], lasted
            self.shows_ahead(plan)
        if pace is not None and pace.measures_scan():
            pace.scan.add(lasted)
            before, after = nodes_of(state.tensors), nodes_of([*finals, *ys])
            pace.scan.add_backward(before, after, window.n)
        beyond = map(outermost, ys[-plan.lookups :]) if plan.lookups else ()
        if any(bool(y.any()) for y in beyond):  # in any of the rows that vmap maps over
            random.put_back()
            raise NoStep("an iteration looks up an element beyond the end")
        finals = step.whole(finals)[: len(state.tensors)]
        results = LoopResults(window, self.rows, self.site.source.joined)
        names = results.store(plan, state, targets, finals, list(ys))
        if torch.is_grad_enabled():
            step.let_go()
        self.site.ran(True, "")
        self.site.in_a_row = 0
        self.site.offsets = state.counted_from(window.begin)
        self.site.has_queue = self.site.source.has_lists() and not state.list_names
        if self.site.refused:
            for key in self.site.keys(window.body, window.items.n):
                self.site.refused.pop(key, None)
        return names

    def shows_ahead(self, plan: LoopPlan) -> None:
        """Let later calls begin with the scan; not if they would change the user's own state."""
        if self.site.all_alike and "written" not in plan.tensors and not plan.hands_out:
            known = self.site.ahead or set()
            self.site.ahead = known | {*plan.reads} | {write for write, _, _ in plan.puts}

    def pace_of(self, plan: LoopPlan, state: State) -> LoopPace | None:
        """The times of such a call; None if it must not be measured."""
        # A checkpoint, which has hooks, must find the same graph when it computes again.
        if not paces.MEASURES or top_hooks(False) is not None or explaining.found is not None:
            return None
        # One number with and without a first iteration in Python, for lengths like 32, too.
        n = self.window.end - max(self.window.begin, 1)
        numel = sum([t.numel() for t in state.tensors])
        return plan.paces.setdefault((n.bit_length(), numel.bit_length()), LoopPace())

    def choice(self, pace: LoopPace, state: State) -> Choice:
        """Who runs the window: the scan, or Python for its time, or since it takes less."""
        if pace.is_slow(torch.is_grad_enabled()):
            return Choice.PYTHON
        if not self.window.begin:  # the first iteration is measured, too
            return Choice.SCAN if pace.is_decided() else Choice.MEASURED
        if not pace.measures_python(self.lasted):
            return Choice.SCAN
        carried, places = self.site.source.carried, state.places

        def values(names: dict[str, Any]) -> list[Any]:
            named = [names.get(name) for name in carried]
            return tree.leaves([*named, *[of[place.key] for place, of in places]])

        self.trial = Trial(pace, self.window.begin, nodes_of(state.tensors), values)
        return Choice.MEASURED

    def check_iterated(self, memories: set[Any], changing: list[Any]) -> None:
        """Refuse iterations that may change what the loop goes through.

        Args:
            memories: of the tensors that they write.
            changing: the lists, dicts and objects that they may change.
        """
        ids = {id(of) for of in changing if not isinstance(of, Tensor)}
        if (memories or ids) and any(
            memory_of(of) in memories if isinstance(of, Tensor) else id(of) in ids
            for of in self.window.items.held()
        ):
            raise NoStep("an iteration changes what the loop iterates over")


def _with_shapes(why: Unsupported, names: dict[str, Any], carried: Iterable[str]) -> Unsupported:
    """A refusal that speaks of the batch, with the shapes of the state if these have several."""
    shapes = {n: [*v.shape] for n in carried if isinstance(v := names.get(n), Tensor)}
    if "batch" in why.reason and len({tuple(shape[:1]) for shape in shapes.values()}) > 1:
        why.reason += f"; {', '.join(f'{name} is {shape}' for name, shape in shapes.items())}"
    return why


def _with_dummies(
    carry: list[Tensor], xs: list[Tensor], n: int
) -> tuple[list[Tensor], bool, list[Tensor]]:
    """Carry and xs, neither empty, and no tensor twice."""
    if not carry and not xs:
        raise NoStep("its iterations take no tensor", quiet=True)
    first: dict[int, int] = {}
    again = [first.setdefault(id(t), i) != i for i, t in enumerate(carry)]
    distinct = [t.view_as(t) if is_known else t for t, is_known in zip(carry, again, strict=True)]
    if not carry:
        like = next((x for x in xs if x.dim() > 1), xs[0])
        rows = like.shape[1] if like.dim() > 1 else 1
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        return [torch.zeros(rows, 1, dtype=dtype)], True, xs
    if not xs:
        xs = [torch.zeros((), dtype=carry[0].dtype).expand(n, _n_rows(carry), 1)]
    return distinct, False, xs


def _n_rows(carry: list[Tensor]) -> int:
    """The size of the batch: the first axis of all tensors, or the second of some of them."""
    sizes = [t.shape[:2] for t in carry if t.dim()]
    if not sizes:
        return 1
    first = sizes[0][0]
    return next((n for n in (first, *sizes[0]) if all(n in of for of in sizes)), first)
