"""Printing results: text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ostinato.picture import plain

if TYPE_CHECKING:
    import numpy as np


def say(text: str) -> None:
    """Print a result, in ASCII where stdout's encoding cannot hold it."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = plain(text).encode(encoding, "replace").decode(encoding)
    print(text)


def say_json(value: Any) -> None:
    print(json.dumps(value, allow_nan=False))


def csv_text(header: list[str], rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def predictions_csv(
    classes: np.ndarray, proba: np.ndarray, y: np.ndarray | None, all_classes: bool = False
) -> str:
    """One line an example: index, label (if known), prediction and its probability.

    Args:
        classes: `[C]` labels.
        proba: `[N, C]` probabilities.
        y: `[N]` true labels, or None.
        all_classes: also a column for the probability of every class.
    """
    best = proba.argmax(axis=1)
    header = ["index", *(["label"] if y is not None else []), "prediction", "probability"]
    header += [f"probability_{label}" for label in classes] if all_classes else []
    rows = (
        [
            i,
            *([y[i]] if y is not None else []),
            classes[best[i]],
            f"{p[best[i]]:.6f}",
            *((f"{value:.6f}" for value in p) if all_classes else ()),
        ]
        for i, p in enumerate(proba)
    )
    return csv_text(header, rows)
