"""The data of the command line: the data sets in the package, and the user's own files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostinato.cli.config import DataConfig
from ostinato.cli.failures import BadInput

if TYPE_CHECKING:
    import numpy as np

    from ostinato.data import Ragged

    Sequences = np.ndarray | Ragged

BUILT_IN = ("mnist", "vowels")
SUFFIXES = (".npz", ".ts", ".ts.gz")


@dataclass(frozen=True)
class Part:
    """Sequences `[N, T, F]` (or Ragged) and their labels `[N]`."""

    X: Sequences
    y: np.ndarray


def known(source: str | None) -> str:
    """`source` as a run remembers it: a built-in name, or the absolute path of a readable file."""
    wanted = f"{', '.join(BUILT_IN)}, or a file: {', '.join('FILE' + s for s in SUFFIXES)}"
    if source is None:
        raise BadInput(f"what should be learnt? wanted {wanted}")
    if source in BUILT_IN:
        return source
    if not source.endswith(SUFFIXES):
        raise BadInput(f"{source!r} is no data set; wanted {wanted}")
    path = Path(source)
    if not path.is_file():
        raise BadInput(f"{source}: no such file")
    return str(path.resolve())


def check(config: DataConfig) -> None:
    """Refuse options that do not apply to this source."""
    if config.source in BUILT_IN and config.test is not None:
        raise BadInput(f"--test is for files; {config.source} has its own test part")
    if config.source != "mnist" and config.as_sequence != "rows":
        raise BadInput(f"--as-sequence is for mnist, not for {config.source}")


def load(config: DataConfig, seed: int) -> tuple[Part, Part]:
    """(training part, test part) of a source."""
    check(config)
    source = known(config.source)
    if source in BUILT_IN:
        from ostinato import datasets

        whole = datasets.mnist(config.as_sequence) if source == "mnist" else datasets.vowels()
        return Part(*whole.train), Part(*whole.test)
    train = read_labelled(source)
    if config.test is not None:
        return train, read_labelled(known(config.test))
    return split(train, config.test_fraction, seed)


def read(source: str, as_sequence: str = "rows") -> tuple[Sequences, np.ndarray | None]:
    """Sequences and labels, if any, of a file; of a built-in data set, its test part."""
    source = known(source)
    if source in BUILT_IN:
        part = load(DataConfig(source, as_sequence), seed=0)[1]  # type: ignore[arg-type]
        return part.X, part.y
    from ostinato import data

    X, y = data.read(source)
    return data.as_sequences(X), y


def read_labelled(source: str, as_sequence: str = "rows") -> Part:
    X, y = read(source, as_sequence)
    if y is None:
        raise BadInput(f"{source} has no labels (y); without them there is nothing to compare with")
    if y.dtype.kind == "f" and (y != y.round()).any():
        raise BadInput(f"{source}: y holds numbers such as {y[y != y.round()][0]}; wanted classes")
    return Part(X, y)


def split(part: Part, fraction: float, seed: int) -> tuple[Part, Part]:
    """Hold out `fraction` of every class, at least one example of each that has two or more."""
    import numpy as np

    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(part.y), bool)
    for label in np.unique(part.y):
        members = generator.permutation(np.flatnonzero(part.y == label))
        n = min(max(1, round(fraction * len(members))), len(members) - 1)
        held_out[members[:n]] = True
    if not held_out.any():
        raise BadInput("no class has two examples, so no test part can be held out; give --test")
    return Part(part.X[~held_out], part.y[~held_out]), Part(part.X[held_out], part.y[held_out])


def digest(config: DataConfig) -> dict[str, str]:
    """SHA-256 of each file of the user: a run is resumed only with the data it began with."""
    files = [f for f in (config.source, config.test) if f is not None and f not in BUILT_IN]
    return {f: hashlib.sha256(Path(f).read_bytes()).hexdigest() for f in files}


def describe(train: Part, test: Part) -> dict[str, Any]:
    """Sizes, for environment.json and `inspect`."""
    import numpy as np

    ragged = not isinstance(train.X, np.ndarray)
    return {
        "n_train": len(train.X),
        "n_test": len(test.X),
        "n_features": int(train.X.n_features if ragged else train.X.shape[2]),  # type: ignore[union-attr]
        "max_length": int(train.X.max_length if ragged else train.X.shape[1]),  # type: ignore[union-attr]
        "n_classes": len(np.unique(train.y)),
    }
