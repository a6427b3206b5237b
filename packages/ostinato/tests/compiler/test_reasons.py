"""Why the loop plays: what `ostinato.explain` says of a step that the engine cannot play."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ostinato
from zoo.playing import loop
from zoo.small import B, D, H, T, weight

V, CAPTURED = weight(), torch.randn(B, H, dtype=D)


def beside(of: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Any]:
    """An output of the new carry."""

    def step(h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(x + h @ V)
        return h, of(h)

    return step


LIBRARY = torch.library.Library("ostinato_test", "DEF")
LIBRARY.define("twice(Tensor a) -> Tensor")
LIBRARY.impl("twice", lambda a: a * 2, "CompositeExplicitAutograd")
twice = torch.ops.ostinato_test.twice.default

SUM = "computes with a sum over the batch"
REASONS: list[tuple[str, Callable[[Tensor, Tensor], Any]]] = [
    ("differs in every run", lambda h, x: h * time.perf_counter()),
    ("batch size", lambda h, x: h / x.shape[0]),
    ("give it num_classes", lambda h, x: h * nn.functional.one_hot((x > 0).long()).sum(-1)),
    (
        "no acos of complex numbers: write it in pairs of real tensors",
        lambda h, x: torch.complex(h, x).acos().real,
    ),
    ("has no ostinato_test.twice", lambda h, x: x + h @ twice(V)),
    ("returns a captured tensor", lambda h, x: (torch.tanh(x + h), CAPTURED)),
    ("rows", lambda h, x: h + x.flip(0)),
    ("batch size", lambda h, x: h + torch.cat([x[1:], x[:1]])),
    ("batch size", lambda h, x: h + x.roll(1, 0)),
    ("rows", lambda h, x: h + x[0]),
    ("rows", lambda h, x: h + x.view(-1)[: H * len(x)].view_as(x).t().reshape(x.shape)),
    ("is computed with a sum over the batch", beside(lambda z: (z * V[0]).sum() / z.sum())),
    (SUM, beside(lambda z: z.sum(0).exp())),
    (SUM, beside(lambda z: z.sum(0) + 1)),
    (SUM, beside(lambda z: z.sum(0) * z.sum(0))),
    (SUM, beside(lambda z: z.sum(0) + z.mean(0))),
    (SUM, beside(lambda z: 1 / z.sum(0))),
    (SUM, beside(lambda z: z - z.mean(0))),
    ("over the rows that are not ignored", beside(lambda z: 2 * (z.sum() / z.square().sum()))),
    ("computes with the batch size", beside(lambda z: z / len(z))),
    ("computes with the batch size", beside(lambda z: z.std(0))),
]


def explained(step: Callable[[Tensor, Tensor], Any]) -> ostinato.Explanation:
    ostinato.forget(step)
    return ostinato.explain(step, torch.ones(B, H, dtype=D), torch.ones(T, B, H, dtype=D))


@pytest.mark.parametrize("row", range(len(REASONS)))
def test_why_the_loop_plays(row: int) -> None:
    reason, step = REASONS[row]
    assert reason in explained(step).reason


ROUNDED = {
    "a total": lambda z: torch.div(z.sum(), 2, rounding_mode="floor"),
    "a count": lambda z: (z > 50).sum() // 2,
    "a mean": lambda z: torch.div(z.mean(), 10.0, rounding_mode="trunc"),
    "floats added as whole numbers": lambda z: z.sum(dtype=torch.int64),
    "those of a row": lambda z: z.sum(1, dtype=torch.int64),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_a_sum_is_rounded_where_it_is_in_the_loop(name: str) -> None:
    """Also if all is rounded to 0 when the step is recorded and compared."""
    step = lambda h, x: (h + x, ROUNDED[name](x))  # noqa: E731
    for scale in (0.1, 100.0):
        xs = torch.rand(T, B, H, dtype=D) * scale
        given = torch.zeros(B, H, dtype=D), xs
        torch.testing.assert_close(ostinato.scan(step, *given), loop(step, *given))
