"""The directory of a saved model, read without torch.

    config.json         the graph of the network, labels, preparation, and the SHA-256 of the others
    model.safetensors   the weights
    check.safetensors   some inputs, and the answers to them
    README.md           a model card for readers, which may be edited

Only these names are opened, whatever config.json says, and the card is not read. Nothing in them is
executed. All content is checked once, here; it takes at most a quarter of the files' size in memory
besides the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ostinato_learn.files import current
from ostinato_learn.runtime.model_graph import ModelGraph
from ostinato_learn.runtime.values import Array, entries, fail, text
from ostinato_learn.saved.tensors import read_file, read_json, unpack

FORMAT = 1
CONFIG, TENSORS, CHECK = "config.json", "model.safetensors", "check.safetensors"
README = "README.md"
MAX_CONFIG = 1 << 25  # bytes; a vocabulary of a million words is smaller
NAMES = {
    "format",
    "saved_by",
    "kind",
    "params",
    "net",
    "graph",
    "without_graph",
    "fitted",
    "iterations",
    "sha256",
}


@dataclass(frozen=True)
class Saved:
    """A saved model as values.

    Attributes:
        kind: of the estimator, as "sequence_classifier".
        graph: the graph of the network; None if it could not be recorded, so that only torch can
            run it.
        tensors: by name; they share the memory of the file.
        fitted: what the kind needs besides, such as labels: JSON values.
        fingerprint: the SHA-256 of config.json, which names those of the other files.
        net, params: the arguments of the constructors of the network and of the estimator: JSON
            values.
        iterations: updates made.
    """

    kind: str
    graph: ModelGraph | None
    tensors: dict[str, Array]
    fitted: dict[str, Any]
    fingerprint: str
    net: dict[str, Any]
    params: dict[str, Any]
    iterations: int


def model_in(path: Path) -> Path:
    """The directory of a model: `path` itself, or `model` in it if it is the directory of a run."""
    inner = path / "model"
    is_run = not (current(path) / CONFIG).exists() and (current(inner) / CONFIG).is_file()
    return inner if is_run else path


def read(path: Path, in_torch: bool = False) -> Saved:
    """The model in a directory.

    Args:
        in_torch: whether a model without a graph is accepted.

    Raises:
        ValueError: a file is missing, damaged, altered or foreign, or of a later format; or the
            model has no graph.
    """
    place = current(path)
    for name in (CONFIG, TENSORS):
        if not (place / name).is_file():
            raise ValueError(
                f"{path} has no {name}; wanted the directory of a saved model, with {CONFIG} and "
                f"{TENSORS}"
            )
    where = str(path / CONFIG)
    if (place / CONFIG).stat().st_size > MAX_CONFIG:
        fail(f"{where} is larger than {MAX_CONFIG:,} bytes")
    content = (place / CONFIG).read_bytes()
    config = checked_config(read_json(content, where), where, in_torch)
    tensors = read_file(place / TENSORS, str(path / TENSORS))
    check_hash(config, TENSORS, tensors, str(path))
    return made(config, unpack(tensors, str(path / TENSORS)), hashlib.sha256(content), where)


def parameters(saved: Saved, known: Collection[str], path: Path) -> dict[str, Any]:
    """The parameters of an estimator, whose constructor takes those that are known.

    Raises:
        ValueError: it does not take one of them; the message names it.
    """
    unknown = sorted(saved.params.keys() - set(known))
    if unknown:
        raise ValueError(
            f"{path / CONFIG}: 'params' has {unknown}, which this version of ostinato does not "
            "know; load the model with the version that saved it, or train again"
        )
    return {
        name: dict(value) if isinstance(value, list) else value
        for name, value in saved.params.items()
    }


def read_check(path: Path, saved_config: dict[str, Any]) -> dict[str, Array]:
    """The inputs and answers that were saved with a model.

    Raises:
        ValueError: there are no answers, or the file is damaged or altered.
    """
    place = current(path)
    if CHECK not in saved_config["sha256"] or not (place / CHECK).is_file():
        raise ValueError(f"{path} has no {CHECK}; save the model again to have one")
    content = read_file(place / CHECK, str(path / CHECK))
    check_hash(saved_config, CHECK, content, str(path))
    return unpack(content, str(path / CHECK))


def read_config(path: Path) -> dict[str, Any]:
    """config.json alone, checked as far as its names go."""
    where = str(path / CONFIG)
    return checked_config(read_json((current(path) / CONFIG).read_bytes(), where), where)


def checked_config(config: Any, where: str, in_torch: bool = False) -> dict[str, Any]:
    """The configuration, if it is one of this format; of a model without a graph `in_torch` alone.

    Raises:
        ValueError: it is of another format, damaged, or of a model that needs torch.
    """
    if not isinstance(config, dict):
        fail(f"{where} is not a JSON object")
    check_format(config, where)
    config = entries(config, where, NAMES)
    hashes = entries(config["sha256"], f"{where}: 'sha256'", {TENSORS}, frozenset({CHECK}))
    for name, value in hashes.items():
        text(value, f"{where}: 'sha256' of {name}")
    if config["graph"] is None and not in_torch:
        reason = text(config["without_graph"], f"{where}: 'without_graph'")
        raise ValueError(
            f"{where} has no graph: {reason}. Such a model needs torch and ostinato_learn.load"
        )
    return config


def check_format(config: dict[str, Any], where: str) -> None:
    """Raise ValueError for a model of another format; for a later one, name the version needed."""
    version = config.get("format")
    if type(version) is int and version > FORMAT:
        raise ValueError(
            f"{where} has format {version}, and this version of ostinato reads {FORMAT}: install "
            f"ostinato {str(config.get('saved_by'))[:20]}, which saved it, or a later one"
        )
    if version != FORMAT or type(version) is bool:
        fail(f"{where} has format {str(version)[:60]!r}; wanted {FORMAT}")


def check_hash(config: dict[str, Any], name: str, content: bytes, where: str) -> None:
    """Compare a file of a model with the digest in its configuration.

    Raises:
        ValueError: they differ.
    """
    if hashlib.sha256(content).hexdigest() != config["sha256"][name]:
        raise ValueError(
            f"{where}/{name} is not the file that was saved: its SHA-256 differs from the one in "
            f"{CONFIG}; copy all files of the model again"
        )


def made(config: dict[str, Any], tensors: dict[str, Array], fingerprint: Any, where: str) -> Saved:
    """The saved model of a checked configuration."""
    floats = {name: array for name, array in tensors.items() if array.dtype == np.float32}
    for name, array in floats.items():
        if not np.isfinite(array).all():
            fail(f"{where}: the tensor {name[:60]!r} has a value that is NaN or infinite")
    shapes = {name: array.shape for name, array in floats.items()}
    graph = None
    if config["graph"] is not None:
        graph = ModelGraph.from_json(config["graph"], shapes, f"{where}: graph")
    for name in ("net", "fitted", "params"):
        if not isinstance(config[name], dict):
            fail(f"{where}: {name!r} is not a JSON object")
    return Saved(
        text(config["kind"], f"{where}: 'kind'"),
        graph,
        tensors,
        config["fitted"],
        fingerprint.hexdigest(),
        config["net"],
        config["params"],
        config["iterations"],
    )
