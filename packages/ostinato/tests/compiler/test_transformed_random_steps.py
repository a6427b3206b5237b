"""Drawn steps under transforms of torch.func, also nested by two, against the Python loop."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.func import grad, jvp, vmap
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from ostinato import scan
from zoo import random_steps
from zoo.playing import loop, rows_apart
from zoo.random_steps import Draw, random_case
from zoo.steps import Case

B, T = 3, 4
Function = Callable[..., list[Tensor]]  # of parameters, leaves of init, and leaves of xs


@contextmanager
def given(parameters: Any) -> Iterator[None]:
    """A context in which a drawn step gets these parameters, in the order of their making."""
    made = random_steps.Builder.parameter

    def parameter(self: Any, *shape: int) -> Tensor:
        with temporarily_clear_interpreter_stack():
            found = made(self, *shape)
        return parameters[next(i for i, p in enumerate(self.parameters) if p is found)]

    random_steps.Builder.parameter = parameter  # type: ignore[method-assign]
    try:
        yield
    finally:
        random_steps.Builder.parameter = made  # type: ignore[method-assign]


class Drawn:
    """A drawn step as a function of its tensors."""

    def __init__(self, seed: int):
        self.seed, case = seed, random_case(Draw(seed))
        torch.manual_seed(seed)
        leaves, self.init_spec = pytree.tree_flatten(case.init(B))
        elements, self.xs_spec = pytree.tree_flatten(case.xs(T, B))
        self.n, self.n_init = len(case.parameters), len(leaves)
        self.tensors = [t.detach() for t in (*case.parameters, *leaves, *elements)]
        self.options: dict[str, Any] = {"reverse": seed % 3 == 1}
        if seed % 5 == 2:
            self.options["lengths"] = torch.tensor([T, 1, 2])

    def of(self, how: Any) -> Function:
        n, m = self.n, self.n + self.n_init

        def function(*tensors: Tensor) -> list[Tensor]:
            with given(tensors[:n]):
                case: Case = random_case(Draw(self.seed))
            init = pytree.tree_unflatten(list(tensors[n:m]), self.init_spec)
            xs = pytree.tree_unflatten(list(tensors[m:]), self.xs_spec)
            return pytree.tree_leaves(how(case.step, init, xs, **self.options))

        return function

    def gradient(self, f: Function) -> Function:
        def total(*tensors: Tensor) -> Tensor:
            return sum(
                (o.sin() * torch.linspace(0.5, 1, o.numel(), dtype=o.dtype).view(o.shape)).sum()
                for o in f(*tensors)
            )  # type: ignore[return-value]

        return lambda *z: list(grad(total, tuple(range(len(z))))(*z))

    def tangent(self, f: Function) -> Function:
        def along(t: Tensor, i: int) -> Tensor:
            return torch.linspace(-1, 1 + i, t.numel(), dtype=t.dtype).view(t.shape)

        return lambda *z: list(jvp(f, z, tuple([along(t, i) for i, t in enumerate(z)]))[1])

    def over_rows(self, f: Function) -> Function:
        return self._mapped(f, lambda i: i >= self.n)

    def over_parameters(self, f: Function) -> Function:
        return self._mapped(f, lambda i: i < self.n)

    def over_some(self, f: Function) -> Function:
        return self._mapped(f, lambda i: i % 2 == 0)

    def _mapped(self, f: Function, is_mapped: Callable[[int], bool]) -> Function:
        def mapped(*z: Tensor) -> list[Tensor]:
            flags = [is_mapped(i) for i in range(len(z))]
            if not any(flags):
                return f(*z)
            pairs = zip(z, flags, strict=True)
            # Over the last axis, which is none of the scan's.
            both = [torch.stack([t, 0.7 * t.cos()], -1) if of_all else t for t, of_all in pairs]
            return list(vmap(f, tuple([-1 if of_all else None for of_all in flags]))(*both))

        return mapped


def layer_norm(a: Tensor, shape: Any, weight: Any = None, bias: Any = None) -> Tensor:
    """F.layer_norm, whose tangents PyTorch 2.13 differentiates wrongly."""
    away = a - a.mean(-1, keepdim=True)
    found = away / torch.sqrt(away.square().mean(-1, keepdim=True) + 1e-5)
    found = found if weight is None else found * weight
    return found if bias is None else found + bias


TRANSFORMS = ("gradient", "tangent", "over_rows", "over_parameters", "over_some")
NESTED = [*[(name,) for name in TRANSFORMS], *itertools.product(TRANSFORMS, TRANSFORMS)]


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[pytest.mark.slow] if seed >= 3 else []) for seed in range(40)],
)
def test_a_drawn_step(seed: int, monkeypatch):
    drawn = Drawn(seed)
    expected_of = rows_apart if "lengths" in drawn.options else loop
    for names in NESTED:
        ours, theirs = drawn.of(scan), drawn.of(expected_of)
        for name in names:
            ours, theirs = getattr(drawn, name)(ours), getattr(drawn, name)(theirs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with monkeypatch.context() as patched:
                patched.setattr(F, "layer_norm", layer_norm)
                try:
                    expected = theirs(*drawn.tensors)
                except RuntimeError as error:  # vmap refuses some changes in place; scan needs none
                    assert "inplace arithmetic" in str(error)
                    continue
            found = ours(*drawn.tensors)
        for a, b in zip(found, expected, strict=True):
            scale = max(1.0, float(b.abs().max()))
            assert torch.allclose(a, b, rtol=0, atol=1e-10 * scale), names
