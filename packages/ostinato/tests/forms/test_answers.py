"""Branches on values of the whole batch: played as at the first element, and checked afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from zoo.playing import counting, loop, rows_apart
from zoo.small import B, D, H, assert_same, gradients, weight

T = 6
W = weight()
LEVEL = 5.0


def _halved(h: Tensor, x: Tensor) -> Any:
    h = x + h @ W
    while (h.abs() > 64).any():
        h = h / 2
    if not torch.all(h.abs() <= 64):
        raise ValueError
    return h


def branch(asks: Callable[[Tensor], Any]) -> Callable[[Tensor, Tensor], Any]:
    """A step with a branch that huge elements take, and an output of its own."""

    def step(h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(x + h @ W) + x * 1e-3
        if asks(h):
            h = h * 0.5 + 1
        return h, h * x

    return step


STEPS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "a distribution's": lambda h, x: torch.tanh(
        h + torch.distributions.Normal(x, h.exp(), validate_args=True).log_prob(h).clamp(min=-9)
    ),
    "any": branch(lambda h: (h.abs() > LEVEL).any()),
    "not all": branch(lambda h: not torch.all(h.abs() < LEVEL).item()),
    "a count": branch(lambda h: (h.abs() > LEVEL).sum() > 0),
    "a maximum": branch(lambda h: h.abs().max() > LEVEL),
    "a norm, and an unlikely one": branch(lambda h: h.isnan().any() or h.norm() > 4 * LEVEL),
    "a loop with an end of its own": _halved,
}


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    for step in STEPS.values():
        ostinato.forget(step)


def given(huge_at: int | None, n: int = T) -> tuple[Tensor, Tensor]:
    init, xs = (torch.randn(*s, H, dtype=D).requires_grad_() for s in ((B,), (n, B)))
    if huge_at is not None:
        with torch.no_grad():
            xs[huge_at, 1] = 1e5
    return init, xs


def calls_of(step: Any, *arguments: Any, **options: Any) -> int:
    with counting(step) as calls:
        ostinato.scan(step, *arguments, **options)
    return calls[0]


@pytest.mark.parametrize("name", STEPS)
def test_a_branch_that_is_never_taken_costs_no_loop(name: str) -> None:
    step, (init, xs) = STEPS[name], given(None)
    assert ostinato.explain(step, init, xs).native
    assert calls_of(step, init, xs) == 0
    assert_same(gradients(ostinato.scan, step, [W], init, xs), gradients(loop, step, [W], init, xs))


@pytest.mark.filterwarnings("ignore:scan plays")
@pytest.mark.parametrize("name", STEPS)
def test_where_it_is_taken_the_loop_gives_values_and_gradients(name: str) -> None:
    step = STEPS[name]
    ostinato.scan(step, *given(None))
    for huge_at in (2, T - 1, 0, 4):
        init, xs = given(huge_at)
        theirs = gradients(loop, step, [W], init, xs)
        assert_same(gradients(ostinato.scan, step, [W], init, xs), theirs)


def test_the_step_runs_no_more_often_than_in_the_loop_then() -> None:
    step = STEPS["any"]
    ostinato.scan(step, *given(None))
    assert calls_of(step, *given(3)) == T


def test_after_some_failures_nothing_is_tried_and_one_warning_says_why() -> None:
    def step(h: Tensor, x: Tensor) -> Any:  # whose code has no warning behind it
        return STEPS["any"](h, x)

    ostinato.scan(step, *given(None))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(5):
            ostinato.scan(step, *given(2))
    (why, refused) = [str(w.message) for w in said if "in the slow Python loop" in str(w.message)]
    assert "one way at some elements" in why and "Python value" in refused
    assert "Python value" in ostinato.explain(step, *given(2)).reason
    assert calls_of(step, *given(None)) == T
    ostinato.forget(step)
    assert ostinato.explain(step, *given(None)).native


def test_the_most_frequent_answers_are_tried_next() -> None:
    """The first element of the first call is the only one that takes the branch."""
    step = STEPS["a count"]
    init, xs = given(0)
    ostinato.scan(step, init, xs)
    assert ostinato.explain(step, *given(None)).native
    assert calls_of(step, *given(None)) == 0


OPTIONS: dict[str, dict[str, Any]] = {
    "lengths": {"lengths": torch.tensor([T, 0, 3])},
    "lengths, reverse": {"lengths": torch.tensor([T, 0, 3]), "reverse": True},
    "resets": {"resets": torch.rand(T, B) < 0.3},
    "truncate": {"truncate": 2},
    "memory": {"memory": 250_000},  # of the 500,000 bytes that 400 steps take
    "reverse": {"reverse": True},
}


@pytest.mark.filterwarnings("ignore:scan plays")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("huge_at", [None, 4])
def test_with_options(options: str, huge_at: int | None) -> None:
    """Where no branch is taken, rows do not depend on each other, and each may be played alone."""
    step, of = STEPS["any"], OPTIONS[options]
    n = 400 if options == "memory" else T
    init, xs = given(None, n)
    ostinato.scan(step, init, xs, **of)
    if huge_at is None:
        assert calls_of(step, init, xs, **of) == 0
        rows = {k: v for k, v in of.items() if k != "memory"}
        wanted = gradients(lambda *a: rows_apart(*a, **rows), step, [W], init, xs)
    else:
        init, xs = given(huge_at, n)
        wanted = gradients(by_the_loop(of), step, [W], init, xs)
    assert_same(gradients(lambda *a: ostinato.scan(*a, **of), step, [W], init, xs), wanted)


def by_the_loop(options: dict[str, Any]) -> Any:
    def how(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OSTINATO_ENGINE", "eager")
            return ostinato.scan(*arguments, **options)

    return how


def test_padding_of_ended_rows_asks_nothing() -> None:
    """A row that has ended hands its last element to the step once more, as in the loop."""
    step, (init, xs) = STEPS["any"], given(None)
    ostinato.scan(step, init, xs)
    with torch.no_grad():
        xs[3:, 1] = 1e5
    lengths = torch.tensor([T, 3, T])
    assert calls_of(step, init, xs, lengths=lengths) in (0, 1)  # one where it is verified
    ours, theirs = (
        ostinato.scan(step, init, xs, lengths=lengths),
        by_the_loop({"lengths": lengths})(step, init, xs),
    )
    assert_same(ours, theirs)


def _changed_before_it_is_asked(h: Tensor, x: Tensor) -> Any:
    mask = x > LEVEL
    n = mask.sum()
    mask.zero_()
    return (h - x) if n > 0 else torch.tanh(h + x)


def _a_captured_one(h: Tensor, x: Tensor) -> Any:
    return h - x if x.sum() > W.sum() else torch.tanh(h + x)


@pytest.mark.filterwarnings("ignore:scan plays")
@pytest.mark.parametrize("step", [_changed_before_it_is_asked, _a_captured_one])
def test_questions_that_are_not_outputs_of_the_step_play_the_loop(step: Any) -> None:
    for huge_at in (None, 2):
        init, xs = given(huge_at)
        assert_same(ostinato.scan(step, init, xs), loop(step, init, xs))
