"""Long series in few points: nothing of them is lost that a page could show."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ostinato_learn.report import parts

SIZES = [1, 2, 199, 200, 201, 399, 2429]


@pytest.mark.parametrize("n", SIZES)
def test_the_parts_cover_everything_once(n: int) -> None:
    bounds = parts.edges(n)
    widths = np.diff(bounds)
    assert bounds[0] == 0 and bounds[-1] == n and len(widths) == min(n, parts.MOST)
    assert widths.min() >= 1 and widths.max() - widths.min() <= 1


@pytest.mark.parametrize("n", SIZES)
def test_a_mean_is_that_of_its_part(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(n, 3))
    bounds = parts.edges(n)
    wanted = [values[a:b].mean(axis=0) for a, b in pairwise(bounds)]
    assert np.allclose(parts.means(values), wanted)


@pytest.mark.parametrize("n", SIZES)
def test_no_peak_is_lost(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    shown = parts.extremes(values)
    assert len(shown) <= parts.MOST + 2 and (np.diff(shown) > 0).all()
    assert {0, n - 1, values.argmin(), values.argmax()} <= set(shown.tolist())


@pytest.mark.parametrize("window", [1, 2, 3, 12, 50])
def test_the_running_mean_is_of_the_values_around(window: int) -> None:
    values = np.random.default_rng(0).normal(size=30)
    before, after = (window - 1) // 2, window // 2
    wanted = [values[max(0, i - before) : i + after + 1].mean() for i in range(30)]
    assert np.allclose(parts.running_mean(values, window), wanted)
