"""The answers that are saved with a model, and whether they are still given, bit for bit.

check.safetensors has the inputs as the network reads them and what its head answered:

    x         `[N, T, F]` float32, of words their vectors; of a language model `[N, T]` int64, token
              numbers
    lengths   `[N]` int64, the steps of each sequence
    answers   `[N, K]` float32, or `[N, T, K]` where there is an answer at each step, then zero
              beyond the lengths
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ostinato.engine import native
from ostinato.runtime.model import LanguageModel, Model, model_of
from ostinato.runtime.saved import CHECK, CONFIG, made, read, read_check, read_config
from ostinato.runtime.tensors import Array, pack, unpack
from ostinato.runtime.values import fail

LENGTHS = (5, 1, 12, 12)  # of random inputs
MOST_EXAMPLES, MOST_VALUES = 8, 1 << 16  # of a person's examples, and of their numbers


class Verified(NamedTuple):
    """What a replay found.

    Attributes:
        n: the inputs.
        n_different: those whose answers differ in a bit.
        largest: the largest difference.
        isa: the instruction set that played.
    """

    n: int
    n_different: int
    largest: float
    isa: str


def replayed(path: Path) -> Verified:
    """What `ostinato.runtime.verify` gives."""
    where = str(path / CONFIG)
    model = model_of(read(path), where)
    saved = read_check(path, read_config(path))
    x, lengths, answers = _checked(model, saved, str(path / CHECK))
    found = answers_to(model, x, lengths)
    if found.shape != answers.shape:
        fail(f"{path / CHECK}: the answers are of shape {list(answers.shape)}")
    # Compared as bytes: −0 is another answer than 0.
    same = [a.tobytes() == b.tobytes() for a, b in zip(found, answers, strict=True)]
    largest = float(np.abs(found - answers).max())
    return Verified(len(same), same.count(False), largest, native.best_isa())


def check_file(config: dict[str, Any], tensors: bytes, examples: Any) -> bytes:
    """The content of check.safetensors.

    Args:
        config: what will stand in config.json.
        tensors: the content of model.safetensors.
        examples: a person's sequences; None: random numbers.
    """
    saved = made(config, unpack(tensors, "the weights"), hashlib.sha256(), "the model")
    model = model_of(saved, "the model")
    x, lengths = _random(model) if examples is None else _first(model, examples)
    answers = answers_to(model, x, lengths)
    return pack({"x": x, "lengths": lengths, "answers": answers})


def answers_to(model: Model, x: Array, lengths: Array) -> Array:
    """What the head answers, zero beyond the lengths."""
    answers = model.network.answers(x, lengths)
    if answers.ndim == 2:
        return answers
    beyond = np.arange(answers.shape[1]) >= lengths[:, None]
    return np.where(beyond[:, :, None], np.float32(0), answers)


def _random(model: Model) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    lengths = np.array(LENGTHS, np.int64)
    shape = len(lengths), int(lengths.max())
    n_tokens = _n_tokens(model)
    if n_tokens is not None:
        return rng.integers(n_tokens, size=shape), lengths
    x = rng.normal(size=(*shape, model.graph.n_inputs)).astype(np.float32)
    return np.where((np.arange(shape[1]) < lengths[:, None])[:, :, None], x, np.float32(0)), lengths


def _n_tokens(model: Model) -> int | None:
    """How many tokens a language model knows; None of other models."""
    is_language = isinstance(model, LanguageModel) and model.graph.embed is not None
    return model.graph.n_outputs if is_language else None


def _first(model: Model, examples: Any) -> tuple[Array, Array]:
    """The first of a person's sequences, cut to as many steps as keep the file small."""
    prepared = model.prepared(examples[:MOST_EXAMPLES])  # type: ignore[attr-defined]
    sequences = prepared[0] if isinstance(prepared, tuple) else prepared
    x, lengths = model.batch(sequences, np.arange(len(sequences)))
    lengths = np.full(len(x), x.shape[1]) if lengths is None else lengths
    n_steps = max(1, MOST_VALUES // (len(x) * x.shape[2]))
    return np.ascontiguousarray(x[:, :n_steps]), np.minimum(lengths, n_steps).astype(np.int64)


def _checked(model: Model, saved: dict[str, Array], where: str) -> tuple[Array, Array, Array]:
    if set(saved) != {"x", "lengths", "answers"}:
        fail(f"{where} has {sorted(saved)[:5]}; wanted x, lengths and answers")
    x, lengths, answers = saved["x"], saved["lengths"], saved["answers"]
    n_tokens = _n_tokens(model)
    kind, axes = (np.float32, 3) if n_tokens is None else (np.int64, 2)
    fits = x.dtype == kind and x.ndim == axes and x.size > 0
    if n_tokens is None:
        fits = fits and x.shape[2] == model.graph.n_inputs and bool(np.isfinite(x).all())
    else:
        fits = fits and bool(((x >= 0) & (x < n_tokens)).all())
    fits = fits and lengths.dtype == np.int64 and lengths.shape == x.shape[:1]
    fits = fits and bool(((lengths >= 1) & (lengths <= x.shape[1])).all())
    if not fits or answers.dtype != np.float32:
        fail(f"{where} does not hold inputs of this model")
    return x, lengths, answers
