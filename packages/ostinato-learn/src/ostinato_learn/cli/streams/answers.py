"""The answers of `ostinato stream`, as CSV or JSON.

A piece of output is at most `PIECE` bytes of whole lines, and one write: a pipe takes it whole or
not at all, also if the process is killed (POSIX: PIPE_BUF is 4096 on Linux).
"""

from __future__ import annotations

import csv
import io
import json
import os
import select
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ostinato_learn.jobs.answer_columns import (
    label_columns,
    least_certain,
    number,
    number_columns,
    share,
)

PIECE = 4096
PATIENCE = 0.2  # seconds between two checks for a signal

Line = Callable[[str, int, str, float], str]  # from key, step, label and probability


@dataclass
class KeyedStream:
    """The stream of one key.

    Attributes:
        key: None, without keys.
        stream: None once the key is done.
        shown: the key as it is written in an answer.
        label: the label of the last answer that was written.
        answered: whether there was an answer.
    """

    key: str | None
    stream: Any
    shown: str
    label: Any = None
    answered: bool = False


@dataclass(frozen=True)
class Form:
    """The format of an answer.

    Attributes:
        json: whether it is a line of JSON; else of CSV.
        key: the name of the key's column, or None.
        numbers: whether answers are numbers, without a probability.
    """

    json: bool
    key: str | None
    numbers: bool = False

    def header(self) -> str | None:
        """The header of CSV; None for JSON."""
        if self.json:
            return None
        names = [] if self.key is None else [self.key]
        return _csv([*names, "step", *(number_columns() if self.numbers else label_columns())])

    def key_text(self, key: str | None) -> str:
        """The beginning of all answers of a key."""
        if self.json:
            name = json.dumps(self.key, ensure_ascii=False)
            return "{" if key is None else f"{{{name}: {json.dumps(key, ensure_ascii=False)}, "
        return "" if key is None else _csv([key])[:-1] + ","

    def label_text(self, label: Any) -> str:
        """The label; in CSV several labels are joined by semicolons."""
        value = plain(label)
        if self.json:
            return json.dumps(value, ensure_ascii=False)
        return _csv([";".join(map(str, value)) if isinstance(value, list) else value])[:-1]

    def line(self) -> Line:
        """Writes an answer, from the texts of key and label, the step and the probability."""
        if self.numbers and self.json:
            return lambda key, n, label, _: f'{key}"step": {n}, "prediction": {label}}}\n'
        if self.numbers:
            return lambda key, n, label, _: f"{key}{n},{label}\n"
        if self.json:
            return lambda key, n, label, p: (
                f'{key}"step": {n}, "prediction": {label}, "probability": {share(p)}}}\n'
            )
        return lambda key, n, label, p: f"{key}{n},{label},{share(p)}\n"


def plain(label: Any) -> Any:
    """A label, or a tuple of several, for JSON and CSV: numbers and texts of NumPy as Python's."""
    if isinstance(label, tuple):
        return [plain(each) for each in label]
    if isinstance(label, float):
        return float(number(label))
    return label.item() if hasattr(label, "item") else label


def probability_of(answer: Any) -> float:
    """The probability of the label; with several labels, that of the least certain decision for or
    against a label."""
    if isinstance(answer.label, tuple):
        return float(least_certain(answer.proba))
    return max(answer.proba.tolist())  # faster than NumPy's for a few classes


def _csv(fields: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue()


def show(lines: list[str], stopped: Callable[[], bool] = lambda: False) -> bool:
    """Write lines to stdout at once; False if `stopped` while they wait for their reader.

    A piece is written when there is room for it, so that no write waits: at a signal every line is
    written whole or not at all.

    Raises:
        BrokenPipeError: the reader has closed the pipe.
    """
    out = sys.stdout
    text = "".join(lines)
    limit = PIECE if text.isascii() else PIECE // 4  # bytes of a character in UTF-8
    at = 0
    while at < len(text):
        while not _has_room(PATIENCE):
            if stopped():
                return False
        end = len(text) if len(text) - at <= limit else text.rfind("\n", at, at + limit) + 1
        if end <= at:  # the line is longer
            end = text.index("\n", at) + 1
        out.write(text[at:end])
        out.flush()
        at = end
    return True


def _has_room(seconds: float) -> bool:
    """Whether stdout accepts a piece within this number of seconds."""
    if os.name == "nt":  # select works only on sockets there
        return True
    try:
        handle = sys.stdout.fileno()
    except (AttributeError, OSError):  # it is not a file
        return True
    return bool(select.select([], [handle], [], seconds)[1])
