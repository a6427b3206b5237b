"""The list of forms: which of them `explain` names for calls of several kinds, in order."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from ostinato._explain import explained
from ostinato.arguments import checked
from ostinato.eager import eager_scan
from zoo.small import assert_same, gradients

T, B, H = 7, 5, 4


def _numbered(h: Tensor, x: Tensor) -> Tensor:
    return (h + x).view(B, -1) * 0.5


def _branching(h: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(h + x) if (x > -9).any() else h


def _plain(h: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(h + x)


def _turned(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.tanh(h + x)
    return h, h[0]


CASES: dict[str, tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...], Any, Any]] = {
    "rows": (_plain, (B, H), (T, B, H), {}, ()),
    "time second": (_plain, (B, H), (B, T, H), {"dim": 1}, ("time first",)),
    "resets": (
        _plain,
        (B, H),
        (T, B, H),
        {"resets": torch.rand(T, B) < 0.3},
        ("restarts in the step",),
    ),
    "both": (
        _plain,
        (B, H),
        (B, T, H),
        {"dim": 1, "resets": torch.rand(T, B) < 0.3},
        ("time first", "restarts in the step"),
    ),
    "numbers": (_plain, (B,), (T, B), {}, ("a batch of numbers as one row",)),
    "no batch": (_plain, (), (T,), {}, ("leaves without a batch",)),
    "batch second": (_turned, (2, B, H), (T, B, H), {}, ("batch second",)),
    "a number of rows": (_numbered, (B, H), (T, B, H), {}, ("numbers that are the batch",)),
    "a branch": (_branching, (B, H), (T, B, H), {}, ("assumed answers of branches",)),
}


def by_the_loop(
    step: Callable[..., Any], init: Tensor, xs: Tensor, dim: int = 0, resets: Tensor | None = None
) -> Any:
    a = checked(step, init, xs, dim, False, resets=resets)
    return eager_scan(step, init, xs, dim, False, a.ragged)


@pytest.mark.parametrize("case", CASES)
def test_explain_names_the_forms_of_a_call(case: str) -> None:
    step, of_init, of_xs, options, forms = CASES[case]
    init = torch.randn(of_init, dtype=torch.float64, requires_grad=True)
    xs = torch.randn(of_xs, dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = explained(
            checked(step, init, xs, options.get("dim", 0), False, resets=options.get("resets"))
        )
        assert found.forms == forms
        assert all(form in str(found) for form in forms)
        ours, theirs = (
            gradients(functools.partial(how, **options), step, [init, xs], init, xs)
            for how in (ostinato.scan, by_the_loop)
        )
    assert_same(ours, theirs)


def test_complex_numbers_are_pairs() -> None:
    init, xs = torch.randn(B, H) + 0j, torch.randn(T, B, H) + 1j
    assert ostinato.explain(_plain, init, xs).forms == ("complex numbers as pairs",)


def test_a_call_cannot_be_changed() -> None:
    call = checked(_plain, torch.zeros(B, H), torch.zeros(T, B, H), 0, False)
    with pytest.raises(AttributeError):
        call.dim = 1  # type: ignore[misc]
