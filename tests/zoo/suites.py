"""What of many parameters the quick suite plays, `-m "not slow"`; the whole suite plays all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def one_in(n: int, parameters: Iterable[Any], of_several: bool = False) -> list[Any]:
    """One in n of the parameters, from the first on, is quick; the others are slow.

    Args:
        of_several: each is a tuple of the values of several arguments of the test.
    """
    return [
        p if i % n == 0 else pytest.param(*(p if of_several else [p]), marks=pytest.mark.slow)
        for i, p in enumerate(parameters)
    ]
