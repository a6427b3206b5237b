"""Compositions that PyTorch gives: private ones, which this version has to have."""

from __future__ import annotations

import pytest
import torch

import ostinato
from ostinato.compiler.capture import recorder
from ostinato.compiler.capture.replaced.elementwise import DECOMPOSITIONS, OF_PYTORCH, decomposition


@pytest.mark.parametrize("name", sorted(OF_PYTORCH))
def test_this_version_of_pytorch_has_the_composition(name: str) -> None:
    packet = getattr(torch.ops.aten, name)
    calls = [getattr(packet, overload) for overload in packet.overloads()]
    of_tensors = [
        call
        for call in calls
        if not call._schema.is_mutable
        and any("Tensor" in str(argument.type) for argument in call._schema.arguments)
    ]
    assert of_tensors and all(callable(decomposition(str(call))) for call in of_tensors)


def test_no_composition_is_there_twice() -> None:
    assert not OF_PYTORCH & {name.split(".")[0] for name in DECOMPOSITIONS}


def test_a_call_that_such_a_composition_makes_has_a_meaning() -> None:
    """Of half precision it converts with a call of its own."""
    x = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    meaning = decomposition("prims.convert_element_type.default")
    assert meaning is not None and meaning(x, torch.float32).equal(x.float())


def test_a_version_without_a_composition_plays_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(torch._decomp.decomposition_table, torch.ops.aten.mish.default)
    monkeypatch.setattr(recorder, "decomposition", decomposition.__wrapped__)

    def step(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.mish(h + x)

    played = ostinato.explain(step, torch.zeros(2, 3), torch.zeros(4, 2, 3))
    assert not played.native and "the engine has no aten.mish" in played.reason


AS_WHOLE = {
    "asinh": torch.asinh,
    "log_ndtr": torch.special.log_ndtr,
    "sinc": torch.sinc,
    "std": lambda x: torch.cat([x, x.abs()], 1).std(1, keepdim=True),
}


@pytest.mark.parametrize("name", AS_WHOLE)
def test_derivatives_of_a_composition_are_those_of_the_whole(name: str) -> None:
    """To differentiate twice, autograd takes the composition apart: a branch that `where` does not
    select must have no pole, or its NaN times 0 is NaN."""
    f = AS_WHOLE[name]
    x = torch.tensor([-60.0, -1e-3, 0.0, 0.7, 1.0, 60.0], dtype=torch.float64).view(1, -1, 1)
    first = []
    for how in (lambda z: ostinato.scan(lambda h, z: (h, f(z)), z[0], z)[1], lambda z: f(z[0])):
        z = x.clone().requires_grad_()
        first.append(torch.autograd.grad(how(z).sum(), z, create_graph=True)[0].detach())
    torch.testing.assert_close(*first, rtol=1e-9, atol=1e-12)


MEANS = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64)
NORMS = {
    "batch_norm": lambda x, w, b: torch.batch_norm(
        x, w, b, MEANS, MEANS.exp(), False, 0.1, 1e-5, False
    ),
    "batch_norm without parameters": lambda x, w, b: torch.nn.functional.batch_norm(
        x, MEANS, MEANS.exp()
    ),
    "group_norm": lambda x, w, b: torch.group_norm(x, 2, w, b, 1e-5, False),
    "group_norm without parameters": lambda x, w, b: torch.nn.functional.group_norm(x, 2),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_normalization_of_channels(name: str) -> None:
    """In float64, where what is added up in another order differs by some 1e-15."""
    f = NORMS[name]
    w, b = torch.randn(2, 4, dtype=torch.float64).requires_grad_()
    x, h = torch.randn(3, 5, 4, 7, dtype=torch.float64), torch.zeros(5, 4, 7, dtype=torch.float64)
    h = h.requires_grad_()

    def step(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return f(h + x, w, b) * 0.5 + h

    assert ostinato.explain(step, h, x).native
    wanted = [t for t in (h, w, b) if name.endswith("_norm") or t is h]
    played = ostinato.scan(step, h, x)[1]
    looped = []
    carry = h
    for element in x:
        carry = step(carry, element)
        looped.append(carry)
    torch.testing.assert_close(played, torch.stack(looped), rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad(played.square().sum(), wanted)
    expected = torch.autograd.grad(torch.stack(looped).square().sum(), wanted)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
