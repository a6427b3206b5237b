"""A loop compared with Python in all that a call shows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

import forms
import ostinato


def same_as_python(function: Callable[..., Any], lengths: tuple[int, ...] = (14, 14, 20)) -> bool:
    """Compare values, gradients, attributes and errors; whether the loop was native."""
    looped = ostinato.loop(function)
    for n in lengths:
        parts, x = forms.Parts(), torch.randn(3, n, 6, dtype=torch.float64)
        found, wanted = (outcome(how, copy.deepcopy(parts), x) for how in (looped, function))
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            if isinstance(b, torch.Tensor):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
            else:
                assert type(a) is type(b) and a == b
    return any(site.native for site in forms.sites(looped))


def outcome(function: Callable[..., Any], parts: Any, x: torch.Tensor) -> list[Any]:
    torch.manual_seed(0)
    try:
        return forms.run(function, parts, x)
    except Exception as error:
        return [type(error), str(error)]
