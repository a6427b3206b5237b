"""The difference between an exported model's answers and the runtime's, and its bound.

Float32 rounds each operation by ε/2 of its result, and a sum of K products by about √K · ε/2, since
roundings are up as often as down. The tanh and σ of other runtimes have errors of about 8 ε. So a
step adds an error of about (√K + 8) ε to a state of size 1. T steps of L layers, and the head, add
T · L + 1 such errors, if the network forgets. If it amplifies changes from step to step, errors
grow as any change of the input does: x (1 + δ), at every step, changes the answer by κ δ, where κ
is measured in the runtime. Together

    bound = 2 · ε · (√K + 8) · max(T · L + 1, κ) · max(1, largest answer)

where K is the largest number of products in one sum (at most all factors of a step), and the factor
2 is there because both sides round. A wrong gate or a wrong order causes an error a thousand times
as large.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.series.panel import as_panel
from ostinato_learn.export.onnx.forecast import FUTURE, LENGTHS, SERIES, STATIC
from ostinato_learn.export.onnx.model import (
    CHARACTERS,
    LATEST,
    N_CHARACTERS,
    TOKENS,
    carried_states,
)
from ostinato_learn.runtime.model import Model
from ostinato_learn.runtime.model_graph import ModelGraph
from ostinato_learn.tasks.forecast.model import Forecaster

EPS = float(np.finfo(np.float32).eps)
SIZES = ((1, 7), (3, 23))  # rows and steps of the sequences that are compared
LETTERS = 5  # the most letters of a word
DELTA = 2.0**-20  # 16 ε: above the rounding of x, and still small a thousand times as large

Runner = Callable[[dict[str, Any]], list[np.ndarray]]  # inputs by name → outputs


def bound(graph: ModelGraph, n_steps: int, largest: float = 1.0, growth: float = 0.0) -> float:
    """The largest difference of an answer after `n_steps`; growth is κ."""
    steps = [d.step for layer in graph.layers for d in layer.directions]
    if graph.readout.step is not None:
        steps.append(graph.readout.step)
    n_played = n_steps * len(steps)
    spelling = None if graph.embed is None else graph.embed.spelling
    if spelling is not None:  # every word passes through these layers, too
        inner = [d.step for layer in spelling.layers for d in layer.directions]
        n_played += LETTERS * len(inner)
        steps += inner
    factors = [{n.inputs[0] for n in step.nodes if n.op == "matmul"} for step in steps]
    K = max(sum(n.width for n in each) for each in factors)
    errors = max(n_played + 1, growth)
    return 2 * EPS * (math.sqrt(K) + 8) * errors * max(1.0, largest)


def amplification(model: Model, x: np.ndarray, lengths: np.ndarray, random: Any) -> float:
    """κ: the change of the answer divided by a relative change of all inputs.

    Args:
        x: `[B, T, F]`, the network's input. Tokens cannot change by a little, so their κ is 0.
        lengths: `[B]`.
    """
    if model.graph.embed is not None:
        return 0.0
    difference = model.network.answers(_changed(x, random), lengths)
    difference -= model.network.answers(x, lengths)
    if difference.ndim == 3:
        difference = difference[np.arange(x.shape[1]) < lengths[:, None]]
    return float(np.abs(difference).max()) / DELTA


def _changed(x: np.ndarray, random: Any) -> np.ndarray:
    return (x * (1 + DELTA * random.choice([-1.0, 1.0], x.shape))).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A comparison: the largest difference, and the bound."""

    name: str
    error: float
    bound: float

    def __str__(self) -> str:
        return f"{self.name:<40} {self.error:.1e}, bound {self.bound:.1e}"


@dataclass(frozen=True)
class Parity:
    """All comparisons of an exported model with the runtime.

    Attributes:
        runtime: the name and version of the program that ran the model.
    """

    runtime: str
    cases: tuple[Case, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.runtime} against ostinato_learn.runtime:", *map(str, self.cases)])

    def check(self) -> None:
        """Raise ValueError if a difference is above its bound."""
        for case in self.cases:
            if not case.error <= case.bound:
                raise ValueError(
                    f"in {self.runtime} the answers for {case.name} are {case.error:.1e} from "
                    f"those of the runtime; rounding explains {case.bound:.1e}, so that "
                    "nothing is written. Another version of it may be right; please report this"
                )


def measure(model: Model, content: bytes, form: str) -> Parity | None:
    """Compare an exported model with the runtime; None if ONNX Runtime is not installed.

    Args:
        content: the bytes of the ONNX file.
        form: see `export_onnx`.
    """
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(feeds: dict[str, Any]) -> list[np.ndarray]:
        return session.run(None, feeds)

    return Parity(f"ONNX Runtime {onnxruntime.__version__}", cases(model, run, form))


def cases(model: Model, run: Runner, form: str) -> tuple[Case, ...]:
    """The comparisons of one form."""
    random = np.random.default_rng(0)
    if model.graph.ahead is not None:
        assert isinstance(model, Forecaster)
        return tuple(_forecasts(model, run, random, B) for B in (1, 3))
    if form == "sequence":
        return tuple(_whole(model, run, random, B, T) for B, T in SIZES)
    return tuple(_chunks(model, run, random, B, T) for B, T in SIZES)


def random_input(model: Model, random: np.random.Generator, B: int, T: int) -> np.ndarray:
    """Random input of a user, before preparation.

    Sequences `[B, T, features]`, with missing values if the model allows them. For a model with
    tokens `[B, T]`; if it also reads letters `[B, T, 2 + LETTERS]`: a token, its number of letters,
    and the letters.
    """
    embed = model.graph.embed
    if embed is not None:
        tokens = random.integers(0, embed.n_tokens, (B, T))
        if embed.spelling is None:
            return tokens
        assert embed.spelling.embed is not None
        letters = random.integers(0, embed.spelling.embed.n_tokens, (B, T, LETTERS))
        counts = random.integers(1, LETTERS + 1, (B, T))
        return np.concatenate([tokens[..., None], counts[..., None], letters], axis=2)
    x = random.normal(size=(B, T, model.n_features))
    if model.scaling is not None:
        x = x * model.scaling[1] + model.scaling[0]
    if model.preparation is not None:
        for i, f in enumerate(model.preparation.features):
            words = len(f.words or ())
            drawn = random.integers(0, words, (B, T)) if words else x[..., i] * f.scale + f.mean
            x[..., i] = drawn
        if model.preparation.missing != "error":
            x[random.random(x.shape) < 0.1] = np.nan
    return x.astype(np.float32)


def feeds(model: Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs of the ONNX file, by name, from `random_input` or from one step of it."""
    embed = model.graph.embed
    if embed is None:
        return {"x": x}
    if embed.spelling is None:
        return {TOKENS: x}
    return {TOKENS: x[..., 0], N_CHARACTERS: x[..., 1], CHARACTERS: x[..., 2:]}


def network_input(model: Model, x: np.ndarray) -> np.ndarray:
    """The input of the runtime's network, from `random_input`."""
    if model.graph.embed is not None:
        if model.graph.embed.spelling is None:
            return x
        spelt = x.reshape(-1, x.shape[2])
        vectors = model.network.vectors(spelt[:, 0], spelt[:, 2:], spelt[:, 1])
        return vectors.reshape(*x.shape[:2], -1)
    if model.preparation is not None:
        features = model.preparation.features
        words = {f.name: f.words for f in features if f.words is not None}
        names = tuple(f.name for f in features)
        x = model.preparation.apply(Examples(x, features=names, categories=words))
    if model.scaling is not None:
        mean, deviation = model.scaling
        x = ((x - mean) / deviation).astype(np.float32)
    return x


# ---- the comparisons


def _whole(model: Model, run: Runner, random: np.random.Generator, B: int, T: int) -> Case:
    x = random_input(model, random, B, T)
    lengths = np.array([T, *random.integers(1, T + 1, B - 1)], np.int64)
    (came,) = run({**feeds(model, x), "lengths": lengths})
    each = model.graph.readout.kind == "each"
    meant = np.zeros((B, T, model.graph.n_outputs) if each else (B, model.graph.n_outputs))
    for b, n in enumerate(lengths):
        prepared = network_input(model, x[b : b + 1, :n])
        meant[(b, slice(n)) if each else b] = model.network.answers(prepared)[0]
    rows = "1 row" if B == 1 else f"{B} rows of different lengths"
    growth = amplification(model, network_input(model, x), lengths, random)
    return _case(model, f"{rows}, {T} steps", came, meant, T, growth)


def _forecasts(model: Forecaster, run: Runner, random: np.random.Generator, B: int) -> Case:
    """Series of different lengths, some shorter than a window, with missing values.

    The error is in units of a window's scale, as the network's answers are.
    """
    windows, h = model.windows, model.windows.horizon
    lengths = np.array([windows.context + 5, *random.integers(1, 2 * windows.context, B - 1)])
    T = int(lengths.max())
    series = random.normal(3, 2, (B, T, model.n_features))
    series[:, 1:, 0][random.random((B, T - 1)) < 0.1] = np.nan
    series[np.arange(B), lengths - 1, 0] = 1.0  # a window has a value
    future = random.normal(size=(B, T + h, len(windows.future)))
    static = random.normal(size=(B, len(windows.static)))
    feeds = {SERIES: series, LENGTHS: lengths.astype(np.int64)}
    feeds |= {FUTURE: future} if future.shape[2] else {}
    feeds |= {STATIC: static} if static.shape[1] else {}
    (came,) = run(feeds)
    panel = as_panel(
        [s[:n] for s, n in zip(series, lengths, strict=True)],
        future=[f[: n + h] for f, n in zip(future, lengths, strict=True)]
        if FUTURE in feeds
        else None,
        static=static if STATIC in feeds else None,
    )
    meant = replace(model, windows=replace(windows, whole=False)).predict_quantiles(panel)
    if windows.whole:  # beyond the half that rounding may add
        came = meant + np.sign(came - meant) * np.maximum(np.abs(came - meant) - 0.5, 0)
    read = windows.contexts(panel, np.arange(B), lengths)
    known = [part for part in (read.future, read.lags) if part is not None]
    x, beside = read.x, np.concatenate(known, axis=2)
    answers = model.network.forecasts(x, beside)
    changed = model.network.forecasts(_changed(x, random), _changed(beside, random))
    growth = float(np.abs(changed - answers).max()) / DELTA
    scale = read.scale[:, :, None]
    rows = "1 series" if B == 1 else f"{B} series of different lengths"
    name = f"{rows}, {windows.context} steps read"
    return _case(model, name, came / scale, meant / scale, windows.context, growth)


def _chunks(model: Model, run: Runner, random: np.random.Generator, B: int, T: int) -> Case:
    """The answers of single steps, each from the states of the step before."""
    x = random_input(model, random, B, T)
    states = _first_states(model, B)
    came = []
    for t in range(T):
        answer, *new = run({**feeds(model, x[:, t]), **states})
        states = dict(zip(states, new, strict=True))
        came.append(answer)
    meant = np.zeros((B, T, model.graph.n_outputs))
    prepared = network_input(model, x)
    each = model.graph.readout.kind == "each"
    for t in range(T):
        answers = model.network.answers(prepared[:, : t + 1])
        meant[:, t] = answers[:, -1] if each else answers
    rows = "1 row" if B == 1 else f"{B} rows"
    growth = amplification(model, prepared, np.full(B, T), random)
    return _case(model, f"{rows}, {T} steps one by one", np.stack(came, axis=1), meant, T, growth)


def _first_states(model: Model, B: int) -> dict[str, np.ndarray]:
    """The states before the first step, by name, in their order."""
    step, _ = model.graph.composed()
    places = carried_states(step).items()
    states = {name: np.zeros((B, step.states[i].width), np.float32) for name, i in places}
    if model.preparation is not None and model.preparation.missing == "forward":
        states[LATEST] = np.full((B, len(model.preparation.features)), np.nan, np.float32)
    return states


def _case(
    model: Model, name: str, came: np.ndarray, meant: np.ndarray, T: int, growth: float
) -> Case:
    error = float(np.abs(came - meant).max()) if came.shape == meant.shape else math.inf
    return Case(name, error, bound(model.graph, T, float(np.abs(meant).max()), growth))
