"""A message says what came, what was wanted, and what to do; and following its advice works."""

from __future__ import annotations


import numpy as np
import pytest

WAVE = [round(5 + np.sin(t / 4), 3) for t in range(60)]
FORECAST = ("--forecast", "x", "--horizon", 2, "--time", "t")
TEXTS = [(f"{['good', 'bad'][i % 2]} thing number {i}", i, "ab"[i % 2]) for i in range(300)]
RATED = ("--classify", "label", "--shape", "wide")


def series(*numbers: str, minutes: int = 15, jitter: int = 0) -> str:
    """A series with a gap; its first values are those given."""
    start, values = np.datetime64("2024-05-01T08:00:00"), [*numbers, *WAVE[len(numbers) :]]
    times = [start + 60 * minutes * t + jitter * (t % 3) for t in range(60)]
    rows = [f'{times[t]},"{values[t]}"' for t in range(60) if not 30 < t < 35]
    return "\n".join(["t,x", *rows])


def texts(*changed: str, columns: str = "text,n,label") -> str:
    """Rows of a text, a number and a label; the first ones are those given."""
    return "\n".join([columns, *changed, *(f"{a},{b},{c}" for a, b, c in TEXTS[len(changed) :])])


CASES = {
    "gaps": (series(), FORECAST, "missing values (--every 15min)", ("--every", "15min")),
    "gaps of a clock that is not exact": (
        series(minutes=20, jitter=9), FORECAST, "(--every 20min)", ("--every", "20min")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_advice_of_flags_works(ostinato, tmp_path, case):
    content, flags, advice, followed = CASES[case]
    file = tmp_path / "a.csv"
    file.write_text(content)
    assert advice in ostinato("train", file, *flags, "--dry-run").err
    done = ostinato("train", file, *flags, *followed, "--dry-run")
    assert done.code == 0 and advice not in done.err
