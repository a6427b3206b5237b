"""The generated self-test: a C program that computes a few steps and compares the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.features import Feature
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.export.c.function import number
from ostinato_learn.export.c.write import LICENCE, comment, named, table
from ostinato_learn.runtime.model_graph import ModelGraph

Array = np.ndarray[Any, np.dtype[Any]]
N_STEPS = 8


def sample(
    graph: ModelGraph, tensors: Mapping[str, Array], preparation: Preparation | None
) -> tuple[Array, Array]:
    """Inputs of a caller, `[T, inputs]` (integers for a model of tokens); and those of the network,
    `[T, columns]`.

    Random numbers like those of the training part, with gaps where the model allows them.
    """
    rng = np.random.default_rng(0)
    if graph.embed is not None:
        numbers = rng.integers(0, graph.embed.n_tokens, N_STEPS)
        name, width = graph.embed.table, graph.embed.width
        table = np.eye(width, dtype=np.float32) if name is None else tensors[name]
        return numbers[:, None], table[numbers]
    if preparation is None:
        raw = rng.normal(size=(N_STEPS, graph.n_inputs)).astype(np.float32)
        return raw, raw
    raw = np.stack([_drawn(f, rng) for f in preparation.features], axis=1).astype(np.float32)
    if preparation.missing != "error":
        raw[rng.random(raw.shape) < 0.2] = np.nan
    return raw, as_read(preparation, raw[None])[0]


def as_read(preparation: Preparation, raw: Array) -> Array:
    """Raw inputs `[N, T, inputs]` as the network reads them, `[N, T, columns]`."""
    names = tuple(f.name for f in preparation.features)
    words = {f.name: f.words for f in preparation.features if f.words is not None}
    return np.asarray(preparation.apply(Examples(raw, features=names, categories=words)))


def _drawn(f: Feature, rng: np.random.Generator) -> Array:
    if f.words is not None:
        return rng.integers(0, len(f.words), N_STEPS).astype(float)
    return f.mean + f.scale * rng.normal(size=N_STEPS)


def test_source(name: str, raw: Array, answers: Array, bounds: Array) -> str:
    """The text of the program.

    Args:
        name: the prefix of the model's names.
        raw: `[T, inputs]`; for tokens integers.
        answers: `[T, K]`, those of the runtime.
        bounds: `[T, K]`, the largest allowed differences.
    """
    (n_steps, n_inputs), n_outputs = raw.shape, answers.shape[1]
    is_token = raw.dtype.kind == "i"
    given = "@test_inputs[t]" if is_token else f"@test_inputs + {n_inputs} * t"
    body = f"""\
static int @differs(@state *s, int t)
{{
    float out[{n_outputs}];
    if (@step(s, {given}, out))
        return t + 1;
    for (int k = 0; k < {n_outputs}; k++) {{
        const float difference = out[k] - @test_answers[{n_outputs} * t + k];
        const float bound = @test_bounds[{n_outputs} * t + k];
        if (!(difference <= bound && -difference <= bound))
            return t + 1;
    }}
    return 0;
}}

int @test(void);

int @test(void)
{{
    @state first, second;
    int wrong;
    @init(&first);
    @init(&second);
    for (int t = 0; t < {n_steps}; t++) {{
        wrong = @differs(&first, t);
        if (!wrong && t > 0)
            wrong = @differs(&second, t - 1);
        if (wrong)
            return wrong;
    }}
    return 0;
}}
"""
    about = (
        f"the answers to {n_steps} steps, beside those of ostinato's runtime. Two streams take "
        "turns, the second one step behind."
    )
    inputs = (
        table("int32_t", "@test_inputs", [str(v) for v in raw.ravel()])
        if is_token
        else float_table("inputs", raw)
    )
    tables = [inputs, float_table("answers", answers), float_table("bounds", bounds)]
    has_nan = not is_token and bool(np.isnan(raw).any())
    note = (
        f"A test of {name}.c: {about} The bounds come from the rounding of float32, followed "
        "through the model.\n\nReturns 0, or the number of the step that is wrong. With "
        f"{name.upper()}_NO_MAIN the function alone is compiled.\n\n{LICENCE}"
    )
    main = f"""
#ifndef @NO_MAIN
#include <stdio.h>

int main(void)
{{
    const int wrong = @test();
    if (wrong)
        printf("{name}: the answer to step %d is wrong\\n", wrong);
    else
        printf("{name}: {n_steps} steps are right\\n");
    return wrong != 0;
}}
#endif
"""
    math = ["#include <math.h>"] if has_nan else []
    head = "\n".join([f'#include "{name}.h"', *math, ""])
    return named("\n".join([comment(note), head, *tables, body + main]), name, ["NO_MAIN"])


def float_table(what: str, values: Array) -> str:
    """A constant array of a test, named test_…, which may hold NaN and infinite numbers."""
    return table("float", f"@test_{what}", [number(v) for v in values.ravel()])
