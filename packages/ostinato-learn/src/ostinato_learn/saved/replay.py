"""The answers that are saved with a model, computed again and compared bit for bit.

check.safetensors has the inputs as the network reads them and what its head answered:

    x         `[N, T, F]` float32, of words their vectors; of a language model `[N, T]` int64, token
              numbers
    lengths   `[N]` int64, the steps of each sequence; of a forecaster there is instead
    known     `[N, h, n_known]` float32, what is known of the steps ahead
    answers   `[N, K]` float32, or `[N, T, K]` where there is an answer at each step, then zero
              beyond the lengths; of a forecaster `[N, h, Q]`
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ostinato.internal import native
from ostinato_learn.runtime.model import Model, model_of
from ostinato_learn.runtime.values import Array, fail
from ostinato_learn.saved.read import CHECK, CONFIG, made, read, read_check, read_config
from ostinato_learn.saved.tensors import pack, unpack

LENGTHS = (5, 1, 12, 12)  # of random inputs
MOST_EXAMPLES, MOST_VALUES = 8, 1 << 16  # of a user's examples, and of their numbers


class Verified(NamedTuple):
    """The result of a replay.

    Attributes:
        n: the number of inputs.
        n_different: the number of inputs whose answers differ.
        largest: the largest difference.
        isa: the instruction set.

    Example:
        >>> found = ostinato_learn.runtime.verify("runs/gru/model")
        >>> found.n, found.n_different, found.largest, found.isa in ("avx512", "avx2", "neon")
        (4, 0, 0.0, True)
    """

    n: int
    n_different: int
    largest: float
    isa: str


def replayed(path: Path) -> Verified:
    """The result of `ostinato_learn.runtime.verify`."""
    model = model_of(read(path), str(path / CONFIG))
    saved = read_check(path, read_config(path))
    where = str(path / CHECK)
    answers = saved.pop("answers", None)
    _check_inputs(model, saved, where)
    found = answers_to(model, saved)
    if answers is None or (answers.dtype, answers.shape) != (found.dtype, found.shape):
        fail(f"{where} has no answers {list(found.shape)}")
    # Compared as bytes: −0 is another answer than 0.
    same = [a.tobytes() == b.tobytes() for a, b in zip(found, answers, strict=True)]
    largest = float(np.abs(found - answers).max())
    return Verified(len(same), same.count(False), largest, native.best_isa())


def check_file(config: dict[str, Any], tensors: bytes, examples: Any) -> bytes:
    """The content of check.safetensors.

    Args:
        config: the future content of config.json.
        tensors: the content of model.safetensors.
        examples: a user's sequences; None: random numbers.
    """
    saved = made(config, unpack(tensors, "the weights"), hashlib.sha256(), "the model")
    model = model_of(saved, "the model")
    inputs = _random(model) if examples is None else _first(model, examples)
    return pack({**inputs, "answers": answers_to(model, inputs)})


def answers_to(model: Model, inputs: dict[str, Array]) -> Array:
    """The answers of the network, zero beyond the lengths."""
    if "known" in inputs:
        return model.network.forecasts(inputs["x"], inputs["known"])
    answers = model.network.answers(inputs["x"], inputs["lengths"])
    if answers.ndim == 2:
        return answers
    beyond = np.arange(answers.shape[1]) >= inputs["lengths"][:, None]
    return np.where(beyond[:, :, None], np.float32(0), answers)


def _random(model: Model) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    lengths = np.array(LENGTHS, np.int64)
    shape = len(lengths), int(lengths.max())
    n_tokens, ahead = _n_tokens(model), model.graph.ahead
    if n_tokens is not None:
        return {"x": rng.integers(n_tokens, size=shape), "lengths": lengths}
    x = rng.normal(size=(*shape, model.graph.n_inputs)).astype(np.float32)
    if ahead is not None:
        known = rng.normal(size=(len(x), ahead.n_steps, ahead.n_known)).astype(np.float32)
        return {"x": x, "known": known}
    within = np.arange(shape[1]) < lengths[:, None]
    return {"x": np.where(within[:, :, None], x, np.float32(0)), "lengths": lengths}


def _n_tokens(model: Model) -> int | None:
    """The number of tokens of a language model; None for other models."""
    return model.graph.n_outputs if model.reads_tokens else None


def _first(model: Model, examples: Any) -> dict[str, Array]:
    """The first of a user's sequences, cut to as many steps as keep the file small."""
    prepared = model.prepared(examples[:MOST_EXAMPLES])  # type: ignore[attr-defined]
    sequences = prepared[0] if isinstance(prepared, tuple) else prepared
    x, lengths = model.network.batch(sequences, np.arange(len(sequences)))
    lengths = np.full(len(x), x.shape[1]) if lengths is None else lengths
    n_steps = max(1, MOST_VALUES // (len(x) * x.shape[2]))
    cut = np.ascontiguousarray(x[:, :n_steps])
    return {"x": cut, "lengths": np.minimum(lengths, n_steps).astype(np.int64)}


def _check_inputs(model: Model, saved: dict[str, Array], where: str) -> None:
    """Raise ValueError if the network cannot read the inputs."""
    n_tokens, ahead = _n_tokens(model), model.graph.ahead
    second = "lengths" if ahead is None else "known"
    if set(saved) != {"x", second}:
        fail(f"{where} has {sorted(saved)[:5]}; wanted x, {second} and answers")
    x, other = saved["x"], saved[second]
    if n_tokens is None:
        fits = _is_finite(x, (model.graph.n_inputs,))
    else:
        fits = x.dtype == np.int64 and x.ndim == 2 and bool(((x >= 0) & (x < n_tokens)).all())
    fits = fits and x.size > 0
    if ahead is not None:
        fits = fits and _is_finite(other, (ahead.n_steps, ahead.n_known)) and len(x) == len(other)
    else:
        fits = fits and other.dtype == np.int64 and other.shape == x.shape[:1]
        fits = fits and bool(((other >= 1) & (other <= x.shape[1])).all())
    if not fits:
        fail(f"{where} does not hold inputs of this model")


def _is_finite(array: Array, last: tuple[int, ...]) -> bool:
    """Whether an array of three axes is float32, finite, and ends with these axes."""
    known = array.dtype == np.float32 and array.ndim == 3
    return known and array.shape[-len(last) :] == last and bool(np.isfinite(array).all())
