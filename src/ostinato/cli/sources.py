"""The data of the command line: the data sets in the package, and the user's own files."""

from __future__ import annotations

import hashlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostinato.cli.config import DataConfig
from ostinato.cli.failures import BadInput

if TYPE_CHECKING:
    import numpy as np

    from ostinato.data import Ragged
    from ostinato.training.fitted import FittedClassifier

    Sequences = np.ndarray | Ragged

BUILT_IN = ("mnist", "vowels")
SUFFIXES = (".npz", ".ts", ".ts.gz")
STDIN = "-"
FILE_HELP = ".npz or .ts; - reads one of them from standard input."

_log = logging.getLogger(__name__)


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
    if source == STDIN:
        raise BadInput("- is for evaluate and predict; wanted a file: a resumed run reads it again")
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
    if config.test is None:
        return split(train, config.test_fraction, seed)
    test = read_labelled(known(config.test))
    _check_alike(source, train, config.test, test)
    _tell_shared(train.X, test.X, config.test)
    return train, test


def read(source: str, as_sequence: str = "rows") -> tuple[Sequences, np.ndarray | None]:
    """Sequences and labels, if any, of a file; of a built-in data set, its test part."""
    if source in BUILT_IN:
        part = load(DataConfig(source, as_sequence), seed=0)[1]  # type: ignore[arg-type]
        return part.X, part.y
    from ostinato import data

    if source == STDIN:
        source = "standard input"
        X, y = data.read_stream(_stdin(), source)
    else:
        X, y = data.read(known(source))
    try:
        X = data.as_sequences(X)
    except ValueError as problem:
        raise BadInput(f"{source}: {problem}") from None
    return X, None if y is None else _labels(source, y)


def _stdin() -> bytes:
    if sys.stdin is None:
        raise BadInput("standard input is closed; wanted a file's content there")
    return sys.stdin.buffer.read()


def _labels(source: str, y: np.ndarray) -> np.ndarray:
    """The labels of a file, `[N]`; bytes, as NumPy's S makes them, become strings."""
    import numpy as np

    if y.ndim != 1:
        hint = "y.ravel() makes" if y.size == len(y) else "of one-hot rows, y.argmax(axis=1) makes"
        raise BadInput(
            f"{source}: y has shape {list(y.shape)}; wanted [{len(y)}], a label for each example: "
            f"{hint} such labels"
        )
    if y.dtype.kind not in "biufUS":
        raise BadInput(f"{source}: y is {y.dtype}; wanted labels as integers or strings")
    return np.char.decode(y, "utf-8", "replace") if y.dtype.kind == "S" else y


def read_labelled(source: str, as_sequence: str = "rows") -> Part:
    X, y = read(source, as_sequence)
    if y is None:
        raise BadInput(f"{source} has no labels (y); without them there is nothing to compare with")
    if y.dtype.kind == "f" and (y != y.round()).any():
        raise BadInput(f"{source}: y holds numbers such as {y[y != y.round()][0]}; wanted classes")
    return Part(X, y)


def check_fits(source: str, X: Sequences, y: np.ndarray | None, model: FittedClassifier) -> None:
    """Whether a model can be used on these examples.

    Raises:
        BadInput, ValueError: another number of features, or labels that the model does not know.
    """
    from ostinato.data import LabelEncoder

    came, wanted = n_features(X), model.net.config["n_features"]
    if came != wanted:
        raise BadInput(
            f"{source}: X has {came} features a step; wanted {wanted}, "
            "as the model was trained with"
        )
    if y is not None:
        LabelEncoder(model.classes).encode(y, name=f"{source}: y")


def _check_alike(source: str, train: Part, name: str, test: Part) -> None:
    """Whether what is learnt from one file can be tested on the other."""
    from ostinato.data import LabelEncoder

    wanted, came = n_features(train.X), n_features(test.X)
    if came != wanted:
        raise BadInput(f"{name}: X has {came} features a step; wanted {wanted}, as in {source}")
    LabelEncoder.fit(train.y)[0].encode(test.y, name=f"{name}: y")


def n_features(X: Sequences) -> int:
    return int(X.n_features if hasattr(X, "n_features") else X.shape[2])


def _tell_shared(train: Sequences, test: Sequences, name: str) -> None:
    """A note if examples of the test part are also learnt from."""
    learnt = {hash(x.tobytes()) for x in train}
    shared = sum(hash(x.tobytes()) in learnt for x in test)
    if shared:
        _log.warning(
            "%s: %s of the %s test examples are among the training examples too; "
            "the accuracy on them says nothing about new data",
            name,
            "all" if shared == len(test) else f"{shared:,}",
            f"{len(test):,}",
        )


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
        "n_features": n_features(train.X),
        "max_length": int(train.X.max_length if ragged else train.X.shape[1]),  # type: ignore[union-attr]
        "n_classes": len(np.unique(train.y)),
    }
