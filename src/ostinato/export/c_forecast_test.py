"""The generated self-test of a forecaster: it plays a series, and compares some forecasts."""

from __future__ import annotations

from typing import Any

import numpy as np

from ostinato.data.panel import Panel
from ostinato.data.windows import SeriesWindows
from ostinato.export.c_selftest import float_table, test_file

Array = np.ndarray[Any, np.dtype[Any]]
N_FORECASTS = 4  # after the first step, and after the last three


def sample(windows: SeriesWindows) -> tuple[Array, Array, Array]:
    """A series that is longer than a window, as a caller gives it, with values missing.

    Returns:
        The inputs `[T, 1 + P + K + S]` float32; those of the steps ahead of each forecast,
        `[N_FORECASTS, h, K]` float32; and the steps after which they are made, `[N_FORECASTS]`.
    """
    rng = np.random.default_rng(0)
    n_steps = windows.context + N_FORECASTS
    target = np.cumsum(rng.normal(size=n_steps)) + 10
    target[1:][rng.random(n_steps - 1) < 0.2] = np.nan
    parts = [target[:, None]]
    for columns in (windows.past, windows.future, windows.static):
        n = windows.horizon if columns is windows.future else 0
        drawn = rng.normal(size=(n_steps + n, len(columns)))
        parts.append(drawn * np.array(columns.deviation) + np.array(columns.mean))
    parts[3][:] = parts[3][0]
    at = np.array([1, *range(n_steps - N_FORECASTS + 2, n_steps + 1)])
    ahead = np.stack([parts[2][n : n + windows.horizon] for n in at])
    inputs = np.concatenate([part[:n_steps] for part in parts], axis=1)
    return inputs.astype(np.float32), ahead.astype(np.float32), at


def panels(windows: SeriesWindows, inputs: Array, ahead: Array, at: Array) -> Panel:
    """The series up to each forecast, as those of a panel."""
    P, K = len(windows.past), len(windows.future)
    wide = inputs.astype(np.float64)
    future = wide[:, 1 + P : 1 + P + K]
    known = [
        np.concatenate([future[:n], a.astype(np.float64)]) for n, a in zip(at, ahead, strict=True)
    ]
    static = np.repeat(wide[:1, 1 + P + K :], len(at), axis=0)
    return Panel.of(
        [wide[:n, 0] for n in at],
        past=[wide[:n, 1 : 1 + P] for n in at] if P else None,
        future=known if K else None,
        static=static if static.shape[1] else None,
    )


def test_source(
    name: str, inputs: Array, ahead: Array, at: Array, answers: Array, bounds: Array
) -> str:
    """The text of the program.

    Args:
        name: the prefix of the model's names.
        inputs, ahead, at: see `sample`.
        answers, bounds: `[N_FORECASTS, h · Q]`, those of the runtime, and how far the C code's may
            be from them.
    """
    (n_steps, n_inputs), n_outputs = inputs.shape, answers.shape[1]
    n_ahead = ahead[0].size
    given = f"@test_ahead + {n_ahead} * f, " if n_ahead else ""
    nothing = "(const float *)0, " if n_ahead else ""
    body = f"""\
static int @differs(const float *out, int f)
{{
    for (int k = 0; k < {n_outputs}; k++) {{
        const float difference = out[k] - @test_answers[{n_outputs} * f + k];
        const float bound = @test_bounds[{n_outputs} * f + k];
        if (!(difference <= bound && -difference <= bound))
            return 1;
    }}
    return 0;
}}

int @test(void);

int @test(void)
{{
    @state s;
    float out[{n_outputs}];
    int f = 0, failed;
    @init(&s);
    for (int t = 0; t < {n_steps}; t++) {{
        const float *in = @test_inputs + {n_inputs} * t;
        const int asked = t == 0 || t >= {n_steps - N_FORECASTS + 1};
        failed = asked ? @step(&s, in, {given}out) : @step(&s, in, {nothing}(float *)0);
        if (failed || (asked && @differs(out, f)))
            return t + 1;
        f += asked;
    }}
    return 0;
}}
"""
    about = (
        f"{N_FORECASTS} forecasts in a series of {n_steps} steps, beside those of ostinato's "
        "runtime."
    )
    tables = [float_table("inputs", inputs), *([float_table("ahead", ahead)] if n_ahead else [])]
    tables += [float_table("answers", answers), float_table("bounds", bounds)]
    right = f"{N_FORECASTS} forecasts are right"
    return test_file(name, about, tables, body, right, has_nan=bool(np.isnan(inputs).any()))
