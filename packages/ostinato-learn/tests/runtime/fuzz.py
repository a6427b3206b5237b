"""Damaged and hostile models for the loader: `python fuzz.py MODEL COUNT [SEED]`.

A saved model's files are changed at random: bytes; values within config.json and within the header
of model.safetensors, whose hash is then made to fit. The result is a model that answers, or a
ValueError; everything else is a mistake of the loader. A model that is read is also played, so that
what the engine is given was checked.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ostinato_learn.runtime.model import Model, model_of
from ostinato_learn.runtime.programs import StepProgram
from ostinato_learn.saved.read import checked_config, made
from ostinato_learn.saved.tensors import read_json, unpack
from ostinato_learn.tasks.tag.model import Tagger

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 1 << 24, 1 << 31, 1 << 63, 10**400, 0.5, -0.0, 1e308,
    float("inf"), float("nan"), "", "x", "inf", "nan", "tensor", "block", "slice", "concat", "rows",
    "once", "<U99999", "O", "\ud800", "../../etc/passwd", "\0", [], [0], [[]], {}, {"": []},
)  # fmt: skip


def fuzz(files: dict[str, bytes], count: int, seed: int = 0) -> Counter[str]:
    """Try so many changed models; how many were refused, and how many answered.

    Args:
        files: config.json and model.safetensors.
    """
    rng = random.Random(seed)
    found: Counter[str] = Counter()
    for i in range(count):
        config, tensors = changed(files, rng)
        try:
            found[outcome(config, tensors)] += 1
        except Exception as error:
            raise AssertionError(f"change {i} of seed {seed}: {error!r}") from error
    return found


def changed(files: dict[str, bytes], rng: random.Random) -> tuple[bytes, bytes]:
    config, tensors = files["config.json"], files["model.safetensors"]
    kind = rng.randrange(8)
    if kind == 0:
        return with_bytes(config, rng), tensors
    if kind == 1:
        return fitting(config, with_bytes(tensors, rng))
    if kind == 2:
        n = int.from_bytes(tensors[:8], "little")
        header = as_bytes(with_values(json.loads(tensors[8 : 8 + n]), rng))
        header += b" " * (-len(header) % rng.choice([8, 8, 8, 1]))
        return fitting(config, len(header).to_bytes(8, "little") + header + tensors[8 + n :])
    value = json.loads(config)
    if kind == 3:
        return as_bytes(with_values(value, rng)), tensors
    part = rng.choice(["graph", "graph", "graph", "fitted"])  # most of what is checked
    value[part] = with_values(value[part], rng)
    return as_bytes(value), tensors


def as_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def with_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut off, taken out or doubled."""
    some = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(some)) if some else 0
        kind = rng.randrange(5)
        if kind == 0:
            del some[at:]
        elif kind == 1:
            del some[at : at + rng.randrange(1, 9)]
        elif kind == 2:
            some[at:at] = some[at : at + rng.randrange(1, 99)]
        elif some:
            some[at] = rng.randrange(256)
    return bytes(some)


def with_values(value: Any, rng: random.Random) -> Any:
    """A value within the value, which is changed, replaced: by an odd one, or one from elsewhere;
    or left out."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        places = containers(value)
        if not places:
            return odd(rng)
        at = rng.choice(places)
        key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
        kind = rng.randrange(6)
        if kind == 0:
            del at[key]
        elif kind == 1:
            other = rng.choice(places)
            others = list(other.values()) if isinstance(other, dict) else other
            at[key] = copy.deepcopy(rng.choice(others))
        elif kind == 2 and type(at[key]) is int:
            at[key] += rng.choice([-1, 1, 2, -2])
        elif kind == 3 and isinstance(at, list):
            at.insert(key, copy.deepcopy(at[key]))
        elif kind == 4 and isinstance(at, dict):
            at[rng.choice(["x", "op", "shape", "kind", "states"])] = odd(rng)
        else:
            at[key] = odd(rng)
    return value


def odd(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(ODD))


def containers(value: Any) -> list[list[Any] | dict[str, Any]]:
    """All lists and objects in a value that are not empty."""
    found = []
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, (dict, list)) and part:
            found.append(part)
            left += part.values() if isinstance(part, dict) else part
    return found


def fitting(config: bytes, tensors: bytes) -> tuple[bytes, bytes]:
    """A configuration with the hash of these tensors."""
    value = json.loads(config)
    value["sha256"]["model.safetensors"] = hashlib.sha256(tensors).hexdigest()
    return as_bytes(value), tensors


def loaded(config: bytes, tensors: bytes) -> Model | None:
    """The model of these files; None if they are refused."""
    try:
        checked = checked_config(read_json(config, "config.json"), "config.json")
        arrays = unpack(tensors, "model.safetensors")
        return model_of(made(checked, arrays, hashlib.sha256(config), "config.json"), "the model")
    except ValueError:
        return None


def peak_bytes(config: bytes, tensors: bytes) -> int:
    """The most memory that reading the files takes, beside themselves."""
    tracemalloc.start()
    try:
        loaded(config, tensors)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def outcome(config: bytes, tensors: bytes) -> str:
    model = loaded(config, tensors)
    if model is None:
        return "refused"
    embed = model.graph.embed
    x = np.ones((2, 3, model.graph.n_inputs), np.float32)
    model.network.answers(x, np.array([3, 1]))  # a graph that was read can be played
    model.network.answers(x[:1], np.array([2]))  # as a stream plays it, if it is small
    ahead = model.graph.ahead
    if ahead is not None and ahead.n_steps < 100:
        model.network.forecasts(x, np.ones((2, ahead.n_steps, ahead.n_known), np.float32))
    if not model.graph.why_not_streamable():
        for part in model.graph.composed():
            StepProgram(part, model.tensors)
    X: Any = [["to", "be"]] if isinstance(model, Tagger) else ["to be"]
    X = X if embed else np.ones((2, 3, model.n_features), np.float32)
    X = X if ahead is None else [[1.0, 2.0, 3.0]]
    try:
        model.predict(X)  # type: ignore[attr-defined]
    except ValueError:  # answers are not finite, or X is too far from what was trained
        return "refused an input"
    return "answered"


def files_of(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in ("config.json", "model.safetensors")}


if __name__ == "__main__":
    path, count, *seed = sys.argv[1:]
    print(dict(fuzz(files_of(Path(path)), int(count), int(seed[0]) if seed else 0)))
