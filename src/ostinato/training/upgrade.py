"""A saved model of an earlier format, written again in that of this version."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostinato import files
from ostinato.runtime.replay import Verified, replayed
from ostinato.runtime.saved import CHECK
from ostinato.training import fitted, fitted_forecaster, fitted_language, fitted_tagger
from ostinato.training.saved_model import CONFIG, TENSORS, kind_of

_FITTED: dict[str, tuple[Any, Any]] = {
    fitted.KIND: (fitted.read, fitted.FittedClassifier),
    fitted_tagger.KIND: (fitted_tagger.read, fitted_tagger.FittedTagger),
    fitted_forecaster.KIND: (fitted_forecaster.read, fitted_forecaster.FittedForecaster),
    fitted_language.KIND: (fitted_language.read, fitted_language.FittedLanguageModel),
}


@dataclass(frozen=True)
class Upgraded:
    """The result of an upgrade.

    Attributes:
        verified: the replay of its new answers; None where it has no graph, or nothing plays one
            here.
        without_graph: why it has no graph; None: it has one.
    """

    verified: Verified | None
    without_graph: str | None


def upgrade(path: Path) -> Upgraded:
    """Write a saved model of an earlier format anew, in its place.

    The new one is made beside the old one, loaded again, compared weight by weight, and its answers
    are replayed; only then it takes the place, in one step (see `ostinato.files`). A kill at any
    moment leaves one of the two whole. Files that the format does not know stay, and a README.md
    that is there.

    Raises:
        ValueError: the old model is damaged; there is a directory in it, which would be lost; or
            the new one is not what the old one was: then the old one is as it was.
        OSError: it cannot be written.
    """
    place = Path(os.path.realpath(files.current(path)))
    kept = _other_files(place)
    read, fitted_type = _fitted(path)
    saved = read(path)
    beside = place.with_name(f".{place.name}.upgraded")
    if beside.exists():  # a kill has left it
        shutil.rmtree(beside)
    try:
        fitted_type.of(saved, path).save(beside, saved.params, saved.iterations)
        again = read(beside)
        _check_same(saved, again, path)
        fitted_type.of(again, beside)
        verified = replayed(beside) if (beside / CHECK).is_file() else None
        if verified is not None and verified.n_different:
            raise ValueError(
                f"{path}: {verified.n_different} of {verified.n} answers of the new model are not "
                "given again; nothing was changed"
            )
        new = {entry.name: entry.read_bytes() for entry in beside.iterdir()}
        files.write_directory(Path(os.path.realpath(path)), new | kept)
        return Upgraded(verified, again.without_graph)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _fitted(path: Path) -> tuple[Any, Any]:
    kind = kind_of(path)
    if kind not in _FITTED:
        raise ValueError(f"{path} has the kind {kind!r}; wanted one of {', '.join(_FITTED)}")
    return _FITTED[kind]


def _other_files(place: Path) -> dict[str, bytes]:
    """Name and content of what is written again as it is."""
    entries = [e for e in place.iterdir() if e.name not in (CONFIG, TENSORS, CHECK)]
    for entry in entries:
        if not entry.is_file():
            raise ValueError(
                f"{entry} is no file, and would be lost from the saved model; move it away first"
            )
    return {entry.name: entry.read_bytes() for entry in entries}


def _check_same(old: Any, new: Any, path: Path) -> None:
    """Whether nothing was lost: every weight to the bit, and all that stands beside them."""
    same = old.weights.keys() == new.weights.keys() and all(
        _bytes(tensor) == _bytes(new.weights[name]) for name, tensor in old.weights.items()
    )
    # What an earlier format did not have is None there, and has a default now.
    kept = {name: value for name, value in old.fitted.items() if value is not None}
    same = same and kept == {name: new.fitted.get(name) for name in kept}
    if not same or (old.net, old.params, old.iterations) != (new.net, new.params, new.iterations):
        raise ValueError(f"{path}: the new model is not what the old one was; nothing was changed")


def _bytes(tensor: Any) -> bytes:
    return bytes(tensor.contiguous().numpy().tobytes())
