"""`--from RUN`: a training starts from the weights of a model, and reads data as the model does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import partition


def origin(path: Path) -> Any:
    """The model to begin with."""
    from ostinato_learn.models import saved_model

    return saved_model.load(path)


def preparation(origin: Path, fitted: Any, train: Examples) -> Preparation | None:
    """How a fitted model prepares the features of these examples: its scales and words are kept.

    Columns are found by the names of its table. A model of arrays takes them in their order.
    """
    known: Preparation | None = fitted.preparation
    if known is None:
        return _in_order(origin, fitted, train)
    if train.roles is None or known.roles is None:  # arrays, whose features have no names
        if len(train.features) != len(known.features) or train.statics:
            raise BadInput(
                f"--from {origin} was trained on {len(known.features)} features a step, and the "
                f"data have {len(train.features)}; wanted the same"
            )
        pairs = zip(known.features, train.features, strict=True)
        features = tuple([replace(feature, name=name) for feature, name in pairs])
        return replace(known, features=features, roles=train.roles)
    statics = [feature.name for feature in known.statics]
    wanted = [*(feature.name for feature in known.features), *statics, *known.roles.known]
    came = [*train.features, *train.statics, *train.roles.known]
    if sorted(wanted) != sorted(came):
        raise BadInput(
            f"--from {origin} reads the features {_some(wanted)}, and the data have "
            f"{_some(came)}; wanted the same"
        )
    return replace(known, roles=train.roles)


def _in_order(origin: Path, fitted: Any, train: Examples) -> Preparation | None:
    """The preparation for a model that was fitted in Python: values are unchanged, columns are
    named.

    It is None if the examples are arrays, too.
    """
    is_forecast = train.roles is not None and train.roles.task == "forecast"
    reads_words = getattr(fitted, "vocabulary", None) is not None
    if not (reads_words or is_forecast) and len(train.features) != fitted.n_features:
        raise BadInput(
            f"--from {origin} was trained on {fitted.n_features} features a step, and the data "
            f"have {len(train.features)}; wanted the same"
        )
    if train.roles is None:
        return None
    made = partition.preparation(train, "forward" if is_forecast else "error", standardize=False)
    if made.reads_words != reads_words or any(f.words for f in (*made.features, *made.statics)):
        wanted = "words" if reads_words else "numbers"
        raise BadInput(
            f"--from {origin} was trained on {wanted}, and the data have others, or names; wanted "
            f"{wanted}"
        )
    return made


def check_several(origin: Path, fitted: Any, names: np.ndarray | None) -> None:
    """Raise BadInput unless sequences have one label each, or several, like the classifier's.

    Args:
        names: the labels `[C]`, if a sequence may have several; None: each has one.
    """
    if fitted.multilabel != (names is not None):
        one, other = ("several", "one") if fitted.multilabel else ("one", "several")
        raise BadInput(
            f"--from {origin} gives {one} of its labels to each sequence, and the data have "
            f"{other}; wanted the same"
        )
    if names is not None and fitted.classes.tolist() != names.tolist():
        raise BadInput(
            f"--from {origin} has the labels {_some(fitted.classes.tolist())}, and the "
            f"data have {_some(names.tolist())}; wanted the same"
        )


def _some(names: Iterable[Any], most: int = 10) -> str:
    shown = list(map(repr, names))
    return ", ".join(shown if len(shown) <= most else [*shown[:most], f"… ({len(shown)})"])
