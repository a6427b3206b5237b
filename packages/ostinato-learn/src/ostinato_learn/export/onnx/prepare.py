"""A model's preparation of its input, as nodes: `data.Preparation` for numbers.

The input of the file has one column a feature, NaN where a value is missing; under "error" it stays
NaN, so that the answer is NaN, too. A feature that holds
words has the place of the word among those of the training part, −1 for any other word. Numbers are
scaled in float64, as by `Preparation`: a mean that is large beside the scale costs no digits.

Missing values under "forward" become the last one before, which a sequence finds by a Scan, and a
step keeps as a state.
"""

from __future__ import annotations

import numpy as np

from ostinato_learn.data.sequences.features import Feature
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.export.onnx.writer import DOUBLE, FLOAT, Writer


def write_preparation(
    w: Writer, preparation: Preparation, x: str, latest: str | None
) -> tuple[str, str | None]:
    """x `[…, features]` as the network's input `[…, F]`; and the values that a step carries on.

    Args:
        latest: the values of the step before `[B, features]`, if x is a step; None: x is a sequence
            `[T, B, features]`.
    """
    preparation.check_uniform()
    if preparation.missing == "forward":
        if latest is None:
            x, carried = _filled_forward(w, x), None
        else:
            x = carried = w.node("Where", w.node("IsNaN", x), latest, x)
    else:
        carried = None
    absent = w.node("IsNaN", x)
    parts = [_numbers(w, preparation, x, absent)]
    words = [(i, f) for i, f in enumerate(preparation.features) if f.words is not None]
    parts += [_words(w, i, f, x, preparation.missing == "error") for i, f in words]
    if preparation.missing == "mask":
        parts.append(w.float(absent))
    joined = w.node("Concat", *parts, axis=-1) if len(parts) > 1 else parts[0]
    order = _order(preparation)
    if order != list(range(len(order))):
        joined = w.node("Gather", joined, w.integers(*order), axis=-1)
    return joined, carried


def _numbers(w: Writer, preparation: Preparation, x: str, absent: str) -> str:
    """Every feature filled and scaled; those of words too, of which no column is taken."""
    masked = preparation.missing == "mask"
    fills = [f.mean if masked else f.fill for f in preparation.features]
    filled = w.node("Cast", x, to=DOUBLE)
    if preparation.missing != "error":
        filled = w.node("Where", absent, w.constant(np.array(fills, np.float64)), filled)
    means, scales = zip(*((f.mean, f.scale) for f in preparation.features), strict=True)
    return scaled(w, filled, np.array(means), np.array(scales))


def scaled(w: Writer, x: str, mean: np.ndarray, scale: np.ndarray) -> str:
    """(x − mean) / scale, each `[F]`, computed in float64."""
    centred = w.node("Sub", w.node("Cast", x, to=DOUBLE), w.constant(mean.astype(np.float64)))
    divided = w.node("Div", centred, w.constant(scale.astype(np.float64)))
    return w.node("Cast", divided, to=FLOAT)


def _words(w: Writer, i: int, feature: Feature, x: str, keep_nan: bool) -> str:
    """A column of zeros and ones for each word; zeros for −1, and for NaN if not kept."""
    assert feature.words is not None
    places = w.constant(np.arange(len(feature.words), dtype=np.float32))
    given = w.slice(x, i, i + 1)
    columns = w.float(w.node("Equal", given, places))
    return w.node("Where", w.node("IsNaN", given), given, columns) if keep_nan else columns


def _order(preparation: Preparation) -> list[int]:
    """The columns of the network's input, as places among: numbers, words, masks."""
    features = preparation.features
    at = len(features)
    words_at = []
    for f in features:
        words_at.append(at)
        at += len(f.words or ())
    order = []
    for i, f in enumerate(features):
        order += [i] if f.words is None else list(range(words_at[i], words_at[i] + len(f.words)))
        if preparation.missing == "mask":
            order.append(at + i)
    return order


def _filled_forward(w: Writer, x: str) -> str:
    """x `[T, B, features]`; NaN where there is no value before, either."""
    body = Writer(w)
    before, now = body.name("latest"), body.name("x")
    filled = body.node("Where", body.node("IsNaN", now), before, now)
    shown = body.node("Identity", filled)
    shape = ("batch", "features")
    inputs = [body.value(before, shape), body.value(now, shape)]
    outputs = [body.value(filled, shape), body.value(shown, shape)]
    graph = body.graph(w.name("body"), inputs, outputs)
    rows = w.node("Shape", x, start=1)
    start = w.node("Expand", w.number(float("nan")), rows)
    return w.nodes_of("Scan", [start, x], 2, body=graph, num_scan_inputs=1)[1]
