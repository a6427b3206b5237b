"""A forecaster in C: it reads a series step by step, and forecasts when it is asked to.

    state       the last `context` steps: the target as it came, NaN where there was none, and the
                other inputs scaled; before the first step the target is missing and the others 0
    a step      checks and scales what came, and puts it in the place of the oldest step
    a forecast  scales the window, plays the network over it from zeros, and answers for each step
                ahead: the same numbers as `runtime.Forecaster` from the end of the series so far

Equations: see `data/windows.py` and `models/forecaster.py`. Windows are scaled in double, as there.
In the text @ stands for the prefix of the model's names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ostinato.data.panel import Panel
from ostinato.data.windows import CONSTANT, SeriesWindows
from ostinato.export.c_forecast_test import panels, sample, test_source
from ostinato.export.c_function import Function
from ostinato.export.c_play import EPSILON, N_TRIALS, PartPlayer, allowed, forecasts
from ostinato.export.c_program import Part, part
from ostinato.export.c_quantize import quantized
from ostinato.export.c_write import (
    Texts,
    doubles,
    function,
    header_of,
    part_tables,
    source_of,
    states,
    table,
    table_bytes,
)
from ostinato.runtime.model_graph import ModelGraph
from ostinato.runtime.network import Network

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ForecastSource:
    """The parts of a forecaster that become C code.

    Attributes:
        name, title, int8: see `c_write.Source`.
        windows: how they are cut and scaled.
        step: from x and the states to the new states.
        answer: from the states to a vector for each step ahead.
        each: from such a vector and what is known of the step to its quantiles.
        widths: of the states.
        hidden: numbers of the vector of a step ahead.
        levels: of the quantiles.
        columns: the names of the inputs beside the target; () if they have none.
    """

    name: str
    title: str
    windows: SeriesWindows
    step: Part
    answer: Part
    each: Part
    widths: tuple[int, ...]
    hidden: int
    levels: tuple[float, ...]
    columns: tuple[str, ...]
    int8: bool

    @property
    def n_columns(self) -> int:
        """M, numbers that are kept of each step: the target, past inputs, those of the future."""
        return 1 + len(self.windows.past) + len(self.windows.future)

    @property
    def n_inputs(self) -> int:
        return self.n_columns + len(self.windows.static)

    @property
    def n_ahead(self) -> int:
        """h · K, inputs of the steps ahead."""
        return self.windows.horizon * len(self.windows.future)

    @property
    def n_outputs(self) -> int:
        return self.windows.horizon * len(self.levels)

    @property
    def parts(self) -> dict[str, Part]:
        """By the prefix of their tables."""
        return {"@": self.step, "@answer_": self.answer, "@each_": self.each}


def forecast_texts(
    name: str,
    title: str,
    graph: ModelGraph,
    tensors: Mapping[str, Array],
    windows: SeriesWindows,
    levels: Sequence[float],
    columns: Sequence[str],
    int8: bool,
) -> Texts:
    """The files of a forecaster, and what they take.

    Args:
        columns: the names of the inputs beside the target; () if they have none.

    Raises:
        ValueError: a layer also reads backwards.
    """
    s = forecast_source(name, title, graph, tensors, windows, levels, columns, int8)
    context, horizon = windows.context, windows.horizon
    products = context * s.step.n_products + s.answer.n_products + horizon * s.each.n_products
    return Texts(
        header(s),
        source(s),
        _test(s, graph, tensors),
        products=products,
        state=4 * (context * s.n_columns + len(windows.static) + 1),
        tables=table_bytes(s.parts.values(), int8) + 16 * (s.n_inputs - 1) + 4 * _lags(s).size,
        what="a forecast",
    )


def forecast_source(
    name: str,
    title: str,
    graph: ModelGraph,
    tensors: Mapping[str, Array],
    windows: SeriesWindows,
    levels: Sequence[float],
    columns: Sequence[str],
    int8: bool,
) -> ForecastSource:
    """Arguments and errors as of `forecast_texts`."""
    assert graph.ahead is not None
    step, answer = replace(graph, ahead=None).composed()
    return ForecastSource(
        name=name,
        title=title,
        windows=windows,
        step=part(step, tensors),
        answer=part(answer, tensors),
        each=part(graph.ahead.each, tensors),
        widths=tuple([n.width for n in step.states]),
        hidden=graph.ahead.each.inputs[0].width,
        levels=tuple(levels),
        columns=tuple(columns),
        int8=int8,
    )


# ---- the header


def header(s: ForecastSource) -> str:
    """The .h file."""
    w = s.windows
    members = [f"float rows[{w.context * s.n_columns}]; /* the last {w.context} steps */"]
    if len(w.static):
        members.append(f"float fixed[{len(w.static)}];")
    members.append("int32_t oldest;")
    counts = {"INPUTS": s.n_inputs, "OUTPUTS": s.n_outputs, "HORIZON": w.horizon}
    counts |= {"AHEAD": s.n_ahead} if s.n_ahead else {}
    return header_of(s.name, s.title, counts, members, _says(s), _signature(s))


def _says(s: ForecastSource) -> str:
    """What the step does, for people."""
    w, n_levels = s.windows, len(s.levels)
    kinds = ["known as long as the series"] * len(w.past) + ["known in advance"] * len(w.future)
    kinds += ["the same at every step"] * len(w.static)
    names = s.columns or ("",) * len(kinds)
    inputs = [
        f"in[{i + 1}]: {f'{name}, ' if name else ''}{kind}"
        for i, (name, kind) in enumerate(zip(names, kinds, strict=True))
    ]
    ahead = ""
    if s.n_ahead:
        first = 1 + len(w.past)
        ahead = (
            f"ahead[k * {len(w.future)} + i]: in[{first} + i] of the k-th step ahead, k from 0; "
            "not read where out is a null pointer"
        )
    levels = ", ".join(f"{level:g}" for level in s.levels)
    lines = [
        "Read the next step of a series; where out is no null pointer, forecast the "
        f"{w.horizon} steps after it, from the last {w.context}. Returns 0; i + 1 if in[i] is "
        "refused (infinite, missing, or too far from what was trained)"
        + (f", or {s.n_inputs} + j + 1 if ahead[j] is" if s.n_ahead else "")
        + ": then nothing has changed; or -1 if nothing can be forecast, since all values are "
        "missing: then the step is read, and out is as it was.",
        "in[0]: the value of the series, NaN if missing",
        *inputs,
        ahead,
        f"out[k * {n_levels} + q]: of the k-th step ahead, k from 0, the q-th quantile, of the "
        f"levels {levels}",
    ]
    return "\n".join(line for line in lines if line)


def _signature(s: ForecastSource) -> str:
    ahead = f"const float ahead[{s.n_ahead}], " if s.n_ahead else ""
    return f"int @step(@state *s, const float in[{s.n_inputs}], {ahead}float out[{s.n_outputs}])"


# ---- the source


def source(s: ForecastSource) -> str:
    """The .c file."""
    names: dict[int, str] = {}
    tables = [*_column_tables(s), *part_tables(s.parts, names, s.int8)]
    step = Function(s.step, {"x0": "x", **states(s.widths, "carry")}, names, s.int8)
    answer = Function(s.answer, {"y0": "out", **states(s.widths, "x")}, names, s.int8)
    given = {"x0": "vector", "x1": "known", "y0": "out"}
    each = Function(s.each, given, names, s.int8)
    members = [f"    float s{i}[{width}];" for i, width in enumerate(s.widths)]
    memory = ["/* What the network remembers while it reads a window. */", "typedef struct {"]
    functions = [
        "\n".join([*memory, *members, "} @memory;", ""]),
        function("static void @update(@memory *s, const float *x)", step.body("s", "x")),
        function("static void @answer(const @memory *s, float *out)", answer.body("s", "out")),
        function(
            "static void @each(const float *vector, const float *known, float *out)",
            each.body("vector", "known", "out"),
        ),
        function("static int @scales(const @state *s, double *centre, double *scale)", _scales(s)),
        function("static int @forecast(const @state *s, float *known, float *out)", _forecast(s)),
        function("void @init(@state *s)", _init(s)),
        function(_signature(s), _step(s)),
    ]
    return source_of(s.name, s.title, ("INPUTS", "OUTPUTS"), tables, functions)


def _column_tables(s: ForecastSource) -> list[str]:
    w, found = s.windows, []
    columns = (w.past, w.future, w.static)
    if s.n_inputs > 1:
        found.append(doubles("@mean", [v for c in columns for v in c.mean]))
        found.append(doubles("@deviation", [v for c in columns for v in c.deviation]))
    places = [str(place) for place in _lags(s).ravel()]
    return [*found, table("int32_t", "@lags", places)]


def _lags(s: ForecastSource) -> Array:
    """The places of the lags in a window, `[h, J]`; −1 before it."""
    return np.maximum(s.windows.lag_places(), -1)


def _scales(s: ForecastSource) -> list[str]:
    """Whether there is a value in the window; see `data.windows.scales`."""
    M, C = s.n_columns, s.windows.context
    value = f"const double value = s->rows[{M} * j];"
    each = [f"for (int32_t j = 0; j < {C}; j++) {{", f"    {value}", "    if (value == value) {"]
    lines = ["double n = 0.0, total = 0.0, size = 0.0;", *each]
    lines += ["        n += 1.0;", "        total += value;"]
    lines += ["        size += value < 0.0 ? -value : value;", "    }", "}"]
    lines += ["if (n == 0.0)", "    return 0;", "size /= n;"]
    if s.windows.scaling == "mean_abs":
        lines += ["(void)total;", "*centre = 0.0;", "*scale = size;"]
    else:
        lines += ["*centre = total / n;", "*scale = 0.0;", *each]
        lines += ["        *scale += (value - *centre) * (value - *centre);", "    }", "}"]
        lines += ["*scale = sqrt(*scale / n);"]
    lines += [f"if (*scale <= {CONSTANT!r} * size)", "    *scale = size;"]
    lines += ["if (!(*scale > 0.0))", "    *scale = 1.0;", "return 1;"]
    return _indented(lines)


def _forecast(s: ForecastSource) -> list[str]:
    w, M, C, n_levels = s.windows, s.n_columns, s.windows.context, len(s.levels)
    n_fixed, n_known = len(w.static), len(w.future) + w.n_lags
    lines = [
        "double centre, scale;",
        f"float x[{1 + s.n_inputs}], seen[{C}], vectors[{w.horizon * s.hidden}];",
        "@memory memory;",
        "if (!@scales(s, &centre, &scale))",
        "    return -1;",
        *(f"@fill(memory.s{i}, 0.0f, {width});" for i, width in enumerate(s.widths)),
    ]
    lines += [f"@copy(x + {1 + M}, s->fixed, {n_fixed});"] if n_fixed else []
    lines += [
        f"for (int32_t j = 0; j < {C}; j++) {{",
        f"    const float *row = s->rows + (s->oldest + j) % {C} * {M};",
        "    const int there = row[0] == row[0];",
        "    seen[j] = there ? (float)(((double)row[0] - centre) / scale) : 0.0f;",
        "    x[0] = seen[j];",
        "    x[1] = there ? 1.0f : 0.0f;",
        *([f"    @copy(x + 2, row + 1, {M - 1});"] if M > 1 else []),
        "    @update(&memory, x);",
        "}",
        "@answer(&memory, vectors);",
        f"for (int k = 0; k < {w.horizon}; k++) {{",
        f"    float *here = known + {n_known} * k, *quantiles = out + {n_levels} * k;",
        f"    for (int i = 0; i < {w.n_lags}; i++) {{",
        f"        const int32_t place = @lags[{w.n_lags} * k + i];",
        f"        here[{len(w.future)} + i] = place < 0 ? 0.0f : seen[place];",
        "    }",
        f"    @each(vectors + {s.hidden} * k, here, quantiles);",
        f"    for (int q = 0; q < {n_levels}; q++)",
        "        quantiles[q] = (float)(centre + scale * (double)quantiles[q]);",
        "}",
        "return 0;",
    ]
    return _indented(lines)


def _init(s: ForecastSource) -> list[str]:
    M, C, n_fixed = s.n_columns, s.windows.context, len(s.windows.static)
    lines = [f"@fill(s->rows, 0.0f, {C * M});"]
    lines += [f"for (int32_t j = 0; j < {C}; j++)", f"    s->rows[{M} * j] = NAN;"]
    lines += [f"@fill(s->fixed, 0.0f, {n_fixed});"] if n_fixed else []
    return _indented([*lines, "s->oldest = 0;"])


def _step(s: ForecastSource) -> list[str]:
    w, M, n, n_fixed = s.windows, s.n_columns, s.n_inputs, len(s.windows.static)
    n_future, n_known = len(w.future), len(w.future) + w.n_lags
    lines = [
        f"float row[{n}], known[{w.horizon * n_known}];",
        "if (in[0] == in[0] && !(@abs(in[0]) <= FLT_MAX))",
        "    return 1;",
        "row[0] = in[0];",
    ]
    if n > 1:
        lines += [
            f"for (int i = 1; i < {n}; i++) {{",
            "    row[i] = (float)(((double)in[i] - @mean[i - 1]) / @deviation[i - 1]);",
            "    if (!(@abs(row[i]) <= FLT_MAX))",
            "        return i + 1;",
            "}",
        ]
    if n_future:
        column = f"{len(w.past)} + i"
        lines += [
            f"for (int j = 0; out && j < {s.n_ahead}; j++) {{",
            f"    const int i = j % {n_future};",
            f"    const float value = (float)(((double)ahead[j] - @mean[{column}])",
            f"        / @deviation[{column}]);",
            "    if (!(@abs(value) <= FLT_MAX))",
            f"        return {n} + j + 1;",
            f"    known[j / {n_future} * {n_known} + i] = value;",
            "}",
        ]
    lines += [f"@copy(s->rows + {M} * s->oldest, row, {M});"]
    lines += [f"@copy(s->fixed, row + {M}, {n_fixed});"] if n_fixed else []
    lines += [
        f"s->oldest = (s->oldest + 1) % {w.context};",
        "return out ? @forecast(s, known, out) : 0;",
    ]
    return _indented(lines)


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


# ---- the self-test


def _test(s: ForecastSource, graph: ModelGraph, tensors: Mapping[str, Array]) -> str:
    inputs, ahead, at = sample(s.windows)
    panel = panels(s.windows, inputs, ahead, at)
    answers, bounds = answers_and_bounds(s, graph, tensors, panel)
    return test_source(s.name, inputs, ahead, at, answers, bounds)


def answers_and_bounds(
    s: ForecastSource, graph: ModelGraph, tensors: Mapping[str, Array], panel: Panel
) -> tuple[Array, Array]:
    """The forecasts at the end of each series, and how far the C code's may be from them.

    With int8 weights they are those of these weights in float64, else the runtime's.

    Returns:
        Each `[N, h · Q]`.
    """
    n = len(panel)
    read = s.windows.contexts(panel, np.arange(n), panel.lengths)
    known = np.concatenate([p for p in (read.future, read.lags) if p is not None], axis=2)
    parts = list(s.parts.values())
    weights = [[quantized(w).weight for w in p.weights] if s.int8 else None for p in parts]

    def played(noise: Any = None) -> Array:
        pairs = zip(parts, weights, strict=True)
        step, answer, each = (PartPlayer(p, w, noise=noise) for p, w in pairs)
        return forecasts(step, answer, each, read.x, known)

    exact, noise = played(), np.random.default_rng(0)
    scaled = exact if s.int8 else Network(graph, tensors).forecasts(read.x, known)
    off = allowed(exact, np.stack([played(noise) for _ in range(N_TRIALS)]))
    centre, scale = read.centre[:, :, None], read.scale[:, :, None]
    values = centre + scale * scaled
    bounds = scale * off + 4 * EPSILON * np.abs(values)
    return values.reshape(n, -1), bounds.reshape(n, -1)
