"""A whole model as one ONNX graph, in one of two forms.

    sequence    x `[batch, time, features]` and lengths `[batch]` int64 → answer `[batch, …]`
    step        x `[batch, features]` and the states → answer `[batch, …]` and the new states

For a model of tokens, x is `tokens` int64, `[batch, time]` or `[batch]`. A model that answers at
each step has answers `[batch, time, …]` in the sequence form, zeros beyond the lengths. A model
that reads the letters of words also gets these, `characters [batch, time, letters]`, and their
number for each word, `n_characters [batch, time]`, both int64. A forecaster has only the sequence
form, with other inputs: see `forecast.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ostinato.internal import reachable
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.data.series.windows import SeriesWindows
from ostinato_learn.export.onnx.forecast import described_inputs, write_forecast
from ostinato_learn.export.onnx.prepare import scaled, write_preparation
from ostinato_learn.export.onnx.scan import BatchRows, Played, write_direction, write_scan
from ostinato_learn.export.onnx.step import Tensors, write_step
from ostinato_learn.export.onnx.writer import DOUBLE, FLOAT, INT64, IR_VERSION, OPSET, Writer
from ostinato_learn.runtime.model_graph import Embed, ModelGraph
from ostinato_learn.runtime.step_graph import StepGraph

ANSWER, LENGTHS, LATEST = "answer", "lengths", "latest"
TOKENS, CHARACTERS, N_CHARACTERS = "tokens", "characters", "n_characters"


@dataclass(frozen=True)
class Exportable:
    """The model to export.

    Attributes:
        graph: the source.
        tensors: its weights by name, float32.
        preparation: the preparation of its input; None: the input is the network's.
        scale: mean and deviation of the features, by which the input is scaled.
        windows: for a forecaster, how windows are cut from series.
        metadata: further facts for a reader of the file: JSON values by name.
    """

    graph: ModelGraph
    tensors: Tensors
    preparation: Preparation | None = None
    scale: tuple[np.ndarray, np.ndarray] | None = None
    windows: SeriesWindows | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """An ONNX model, and the operator of each direction of each layer; empty for a step."""

    proto: Any
    operators: tuple[str, ...]


def sequence_model(source: Exportable) -> Made:
    """The sequence form."""
    w, graph = Writer(), source.graph
    if source.windows is not None:
        answer = _forecast(w, source, source.windows)
        inputs = described_inputs(w, source.windows)
        described = w.value(ANSWER, ("batch", source.windows.horizon, graph.n_outputs), DOUBLE)
    else:
        named, inputs = _inputs(w, source, ("batch", "time"))
        given = [w.node("Transpose", name, perm=_time_and_batch(n)) for name, n in named]
        rows = BatchRows.of(w, given[0], LENGTHS)
        if graph.embed is not None:  # padding may be anything
            within = w.node("Squeeze", rows.valid, w.integers(2))
            given[0] = w.node("Where", within, given[0], w.constant(np.array(0, np.int64)))
        x = _read(w, source, given, None)[0]
        answer = _answer(w, graph, source.tensors, x, rows)
        inputs.append(w.value(LENGTHS, ("batch",), INT64))
        each = ("time",) if graph.readout.kind == "each" else ()
        described = w.value(ANSWER, ("batch", *each, graph.n_outputs))
    w.called(ANSWER, answer)
    return Made(_model(w, source, "sequence", inputs, [described]), tuple(w.operators))


def _answer(w: Writer, graph: ModelGraph, tensors: Tensors, x: str, rows: BatchRows) -> str:
    """The output of the head for x `[T, B, F]`: `[B, K]`, or at each step `[B, T, K]`."""
    played: list[Played] = []
    for layer in graph.layers:
        played = [write_direction(w, d.step, tensors, x, rows, d.reverse) for d in layer.directions]
        x = _joined(w, [p.outputs for p in played])
    readout = graph.readout
    if readout.kind == "each":
        (answer,) = _mapped(w, graph.answer, [x], tensors, x)
        answer = w.node("Where", rows.valid, answer, w.number(0))
        return w.node("Transpose", answer, perm=[1, 0, 2])
    if readout.kind == "last":
        last = _joined(w, [p.last for p in played])
        return _mapped(w, graph.answer, [last], tensors, last)[0]
    assert readout.step is not None
    carry = write_scan(w, readout.step, tensors, x, rows, reverse=False).states
    return _mapped(w, graph.answer, list(carry), tensors, carry[0])[0]


def _forecast(w: Writer, source: Exportable, windows: SeriesWindows) -> str:
    """The quantiles of the steps ahead, `[batch, h, Q]` float64."""
    ahead = source.graph.ahead
    assert ahead is not None

    def network(x: str, lengths: str) -> str:
        x = w.node("Transpose", x, perm=[1, 0, 2])
        rows = BatchRows.of(w, x, lengths)
        return _answer(w, source.graph, source.tensors, x, rows)

    def each(vectors: str, known: str) -> str:
        return _mapped(w, ahead.each, [vectors, known], source.tensors, vectors)[0]

    return write_forecast(w, windows, network, each)


def step_model(source: Exportable) -> Made:
    """The step form.

    Raises:
        ValueError: the model has no step: it reads backwards, too, or windows of series.
    """
    w = Writer()
    step, answer = source.graph.composed()
    given_inputs, inputs = _inputs(w, source, ("batch",))
    outputs: list[Any] = []
    latest = None
    if source.preparation is not None and source.preparation.missing == "forward":
        latest = LATEST
    names = [name for name, _ in given_inputs]
    x, now = _read(w, source, names, latest)
    given = {step.inputs[0]: x}
    for name, i in carried_states(step).items():
        given[step.states[i]] = name
    new = write_step(w, step.new_states, given, source.tensors, like=x)
    (result,) = _mapped(w, answer, new, source.tensors, x)
    w.called(ANSWER, result)
    outputs.append(w.value(ANSWER, ("batch", source.graph.n_outputs)))
    carried = [(name, new[i], step.states[i].width) for name, i in carried_states(step).items()]
    if now is not None:
        assert source.preparation is not None
        carried.append((LATEST, now, len(source.preparation.features)))
    for name, value, width in carried:
        w.called(f"new_{name}", value)
        inputs.append(w.value(name, ("batch", width)))
        outputs.append(w.value(f"new_{name}", ("batch", width)))
    return Made(_model(w, source, "step", inputs, outputs), tuple(w.operators))


def carried_states(step: StepGraph) -> dict[str, int]:
    """The names of a step's states, each with its place.

    A state that no step reads is left out: a model's last output, which only the answer reads.
    """
    read = set(reachable(step.new_states))
    places = [i for i, n in enumerate(step.states) if n in read]
    return {f"state_{k}": i for k, i in enumerate(places)}


# ---- parts


def _inputs(
    w: Writer, source: Exportable, leading: tuple[str, ...]
) -> tuple[list[tuple[str, int]], list[Any]]:
    """The inputs, each with its number of axes, and their descriptions."""
    embed = source.graph.embed
    if embed is None:
        preparation = source.preparation
        n = source.graph.n_inputs if preparation is None else len(preparation.features)
        return [("x", len(leading) + 1)], [w.value("x", (*leading, n), FLOAT)]
    shapes: dict[str, tuple[str, ...]] = {TOKENS: leading}
    if embed.spelling is not None:
        shapes |= {CHARACTERS: (*leading, "letters"), N_CHARACTERS: leading}
    names = [(name, len(shape)) for name, shape in shapes.items()]
    return names, [w.value(name, shape, INT64) for name, shape in shapes.items()]


def _time_and_batch(n_axes: int) -> list[int]:
    return [1, 0, *range(2, n_axes)]


def _read(
    w: Writer, source: Exportable, given: list[str], latest: str | None
) -> tuple[str, str | None]:
    """The input of the lowest layer, and the values that a step carries on, if any.

    Args:
        given: the inputs, `[T, B, …]` or of a step `[B, …]`.
    """
    embed = source.graph.embed
    if embed is not None:
        rows = _embedded(w, embed, source.tensors, given[0])
        if embed.spelling is None:
            return rows, None
        _, characters, counts = given
        spelt = _spelt(w, embed.spelling, source.tensors, characters, counts)
        return w.node("Concat", rows, spelt, axis=-1), None
    x, carried = given[0], None
    if source.preparation is not None:
        x, carried = write_preparation(w, source.preparation, x, latest)
    if source.scale is not None:
        x = scaled(w, x, *source.scale)
    return x, carried


def _embedded(w: Writer, embed: Embed, tensors: Tensors, tokens: str) -> str:
    """Rows of the table for tokens; a token outside of 0 … V − 1 is an error of ONNX Runtime.

    ONNX counts a negative place from the end, and OneHot accepts any: only the Gather of a place
    refuses.
    """
    V = np.array(embed.n_tokens, np.int64)
    negative = w.node("Less", tokens, w.constant(np.array(0, np.int64)))
    tokens = w.node("Where", negative, w.constant(V), tokens)
    if embed.table is not None:
        table = w.constant(np.asarray(tensors[embed.table], np.float32), "weight")
        return w.node("Gather", table, tokens, axis=0)
    tokens = w.node("Gather", w.constant(np.arange(embed.n_tokens)), tokens, axis=0)
    values = w.constant(np.array([0, 1], np.float32))
    return w.node("OneHot", tokens, w.constant(V), values, axis=-1)


def _spelt(w: Writer, graph: ModelGraph, tensors: Tensors, characters: str, counts: str) -> str:
    """The output of a network for the letters of words, `[…, K]`: each word is a row of a batch.

    Args:
        characters: `[…, letters]` int64.
        counts: `[…]` int64, letters of each word; beyond the end of a row anything.
    """
    assert graph.embed is not None
    letters = w.node("Shape", characters, start=-1)
    characters = w.node("Max", characters, w.integers(0))  # a letter that is not known is 0
    flat = w.node("Reshape", characters, w.node("Concat", w.integers(-1), letters, axis=0))
    least = w.node("Max", w.node("Reshape", counts, w.integers(-1)), w.integers(1))
    lengths = w.node("Min", least, letters)
    x = _embedded(w, graph.embed, tensors, w.node("Transpose", flat, perm=[1, 0]))
    answer = _answer(w, graph, tensors, x, BatchRows.of(w, x, lengths))
    shape = w.node("Concat", w.node("Shape", counts), w.integers(graph.n_outputs), axis=0)
    return w.node("Reshape", answer, shape)


def _mapped(
    w: Writer, graph: StepGraph, inputs: list[str], tensors: Tensors, like: str
) -> list[str]:
    """The outputs of a map."""
    given = dict(zip(graph.inputs, inputs, strict=True))
    return write_step(w, graph.outputs, given, tensors, like)


def _joined(w: Writer, values: list[str]) -> str:
    return values[0] if len(values) == 1 else w.node("Concat", *values, axis=-1)


def _model(w: Writer, source: Exportable, form: str, inputs: Any, outputs: Any) -> Any:
    import onnx

    import ostinato

    proto = onnx.helper.make_model(
        w.graph(f"ostinato_{form}", inputs, outputs),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ostinato",
        producer_version=ostinato.__version__,
    )
    onnx.helper.set_model_props(proto, _metadata(source, form))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _metadata(source: Exportable, form: str) -> dict[str, str]:
    """As JSON by name, since ONNX has texts only."""
    kept = {**source.metadata, "form": form}
    if source.preparation is not None:
        features = source.preparation.features
        kept["features"] = [f.name for f in features]
        kept["words"] = {f.name: list(f.words) for f in features if f.words is not None}
        kept["missing"] = source.preparation.missing
    return {f"ostinato.{name}": json.dumps(value) for name, value in kept.items()}
