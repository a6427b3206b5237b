"""`--from RUN`: the model with whose weights a training begins, and as which it reads its data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ostinato.cli import sources
from ostinato.cli.failures import BadInput
from ostinato.data.examples import Examples
from ostinato.data.prepare import Preparation


def preparation(origin: Path, fitted: Any, train: Examples) -> Preparation | None:
    """How a fitted model prepares the features of these examples: its scales and words are kept.

    None: it reads them as they are.
    """
    known: Preparation | None = fitted.preparation
    if train.roles is None and sources.n_features(train.X) != fitted.n_features:
        raise BadInput(
            f"--from {origin} was trained on {fitted.n_features} features a step, and the data "
            f"have {sources.n_features(train.X)}; wanted the same"
        )
    if known is None:
        if train.categories or train.statics:
            raise BadInput(
                f"--from {origin} was trained on arrays of numbers, and "
                f"{next(iter({**train.categories, **train.statics}))!r} is no feature of such; "
                "wanted numbers of each step"
            )
        return None
    ahead = known.roles.known if known.roles else ()
    wanted = [*(f.name for f in known.features), *(f.name for f in known.statics), *ahead]
    came = [*train.features, *train.statics, *(train.roles.known if train.roles else ())]
    if sorted(wanted) != sorted(came):
        raise BadInput(
            f"--from {origin} reads the features {_some(wanted)}, and the data have "
            f"{_some(came)}; wanted the same"
        )
    return replace(known, roles=train.roles)


def check_several(origin: Path, fitted: Any, names: np.ndarray | None) -> None:
    """Whether a fitted classifier tells as many labels for each sequence as the data have.

    Args:
        names: the labels, `[C]`, of which a sequence may have several; None: each has one.
    """
    if fitted.multilabel != (names is not None):
        one, other = ("several", "one") if fitted.multilabel else ("one", "several")
        raise BadInput(
            f"--from {origin} tells {one} of its labels for each sequence, and the data have "
            f"{other}; wanted the same"
        )
    if names is not None and fitted.classes.tolist() != names.tolist():
        raise BadInput(
            f"--from {origin} tells the labels {_some(fitted.classes.tolist())} apart, and the "
            f"data have {_some(names.tolist())}; wanted the same"
        )


def _some(names: Iterable[Any], most: int = 10) -> str:
    shown = list(map(repr, names))
    return ", ".join(shown if len(shown) <= most else [*shown[:most], f"… ({len(shown)})"])
