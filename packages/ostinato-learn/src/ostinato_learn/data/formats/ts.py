"""The `.ts` text format of the UEA & UCR time series archive.

A header of lines that begin with `@`, then one line per example: dimensions separated by `:`, the
values of a dimension by `,`, and after a last `:` the class label or the regression target.

    @timestamps false
    @dimensions 2
    @classLabel true left right
    @data
    0.1,0.2,0.3:1,2,?:left

Lines that begin with `#` are comments, `?` is a missing value. Names are case-insensitive.

Values with times, `@timestamps true`, are refused.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ostinato_learn.data.sequences.as_sequences import Sequences, shape_sequences
from ostinato_learn.data.sequences.ragged import as_float32


def parse_ts(lines: Iterable[bytes], source: str) -> tuple[Sequences, np.ndarray | None]:
    """Examples and their labels.

    Args:
        lines: the file, line by line.
        source: its name, for error messages.

    Returns:
        `(X, y)`: X `[N, T, F]` float32, or a `Ragged` where lengths differ, with NaN for missing
        values; y `[N]` as strings (`@classLabel true`), as float64 (`@targetLabel true`), or None.

    Raises:
        ValueError: the file, the line and what was wanted there.

    Example:
        >>> from ostinato_learn.data.formats.ts import parse_ts
        >>> X, y = parse_ts([b"@classLabel true a b", b"@data", b"1,2:3,4:b"], "inline")
        >>> X.tolist(), y.tolist()
        ([[[1.0, 3.0], [2.0, 4.0]]], ['b'])
    """
    form = _Form()
    examples: list[np.ndarray] = []
    labels: list[str | float] = []
    in_data = False
    for number, raw in enumerate(lines, 1):
        line = raw.removeprefix(codecs.BOM_UTF8).strip()
        if not line or line.startswith(b"#"):
            continue
        try:
            text = line.decode("utf-8")
            if in_data:
                dimensions, label = form.split(text)
                examples.append(form.example(dimensions))
                labels.append(label)
            elif text.lower() == "@data":
                in_data = True
            else:
                form.declare(text)
        except ValueError as problem:
            raise ValueError(f"{source}, line {number}: {problem}") from None
    if not in_data:
        raise ValueError(f"{source}: there is no @data line; wanted a header that ends with one")
    if not examples:
        raise ValueError(f"{source}: no line follows @data; wanted one line per example")
    return shape_sequences(examples), None if form.label == "none" else np.array(labels)


@dataclass
class _Form:
    """What the header declares of every example; what it leaves open, the first example decides."""

    n_dimensions: int | None = None
    equal_length: bool = False
    n_steps: int | None = None  # the length of every example, if lengths are equal
    label: Literal["none", "class", "number"] = "none"
    classes: set[str] = field(default_factory=set)  # empty: any

    def declare(self, text: str) -> None:
        """Take in one header line."""
        if not text.startswith("@"):
            raise ValueError(
                f"found {_shortened(text)} before @data; wanted a header line that begins with @"
            )
        name, *values = text[1:].split()
        match name.lower():
            case "timestamps" | "timestamp":
                if _flag(name, values):
                    raise ValueError(
                        f"found @{name} true; times are not read from such files: wanted values "
                        "alone (false), or a table (CSV, Parquet) with a row for each step and a "
                        "column of times"
                    )
            case "univariate":
                if _flag(name, values):
                    self.n_dimensions = 1
            case "dimensions" | "dimension":
                self.n_dimensions = _count(name, values)
            case "equallength":
                self.equal_length = _flag(name, values)
            case "serieslength":
                self.n_steps = _count(name, values)
            case "classlabel":
                if _flag(name, values):
                    self.label, self.classes = "class", set(values[1:])
            case "targetlabel":
                if _flag(name, values):
                    self.label = "number"
        # Other names (@problemName, @missing) say nothing that the data do not.

    def split(self, text: str) -> tuple[list[str], str | float]:
        """A data line as the texts of its dimensions, and its label."""
        parts = [part.strip() for part in text.split(":")]
        label = "" if self.label == "none" else parts.pop()
        if self.n_dimensions is None:
            self.n_dimensions = len(parts)
        if len(parts) != self.n_dimensions or not parts:
            with_label = "" if self.label == "none" else " and a label"
            raise ValueError(
                f"found {len(parts)} dimensions; wanted {self.n_dimensions or 'at least 1'}"
                f"{with_label}, separated by ':'"
            )
        if self.label == "number":
            return parts, _number_of(label)
        if self.label == "class" and self.unknown(label):
            names = ", ".join(sorted(self.classes)) or "a name"
            raise ValueError(f"found the label {label!r}; wanted one of @classLabel: {names}")
        return parts, label

    def unknown(self, label: str) -> bool:
        return not label or (bool(self.classes) and label not in self.classes)

    def example(self, dimensions: list[str]) -> np.ndarray:
        """The values of one example, `[T, F]` float32."""
        columns = [_values(text, i) for i, text in enumerate(dimensions, 1)]
        n_steps = len(columns[0])
        for i, column in enumerate(columns, 1):
            if len(column) != n_steps:
                raise ValueError(
                    f"dimension {i} has {len(column)} values, dimension 1 has {n_steps}; "
                    "wanted the same number in all"
                )
        if self.equal_length:
            if self.n_steps is None:
                self.n_steps = n_steps
            if n_steps != self.n_steps:
                raise ValueError(
                    f"found {n_steps} values a dimension; wanted {self.n_steps}, "
                    "since the header says @equalLength true"
                )
        return as_float32(np.array(columns).T, lambda step, i: f"step {step}, dimension {i + 1}")


def _values(text: str, dimension: int) -> list[float]:
    if not text:
        raise ValueError(f"dimension {dimension} is empty; wanted values separated by ','")
    try:
        return [float(value) for value in text.replace("?", "nan").split(",")]
    except ValueError as problem:
        raise ValueError(
            f"dimension {dimension}: {problem}; wanted numbers (or ?) separated by ','"
        ) from None


def _number_of(label: str | float) -> float:
    try:
        return float(label)
    except ValueError:
        raise ValueError(
            f"found the target {label!r}; wanted a number, since the header says @targetLabel true"
        ) from None


def _flag(name: str, values: list[str]) -> bool:
    given = values[0].lower() if values else "nothing"
    if given not in ("true", "false"):
        raise ValueError(f"found {given} after @{name}; wanted true or false")
    return given == "true"


def _count(name: str, values: list[str]) -> int:
    if len(values) != 1 or not values[0].isdecimal() or int(values[0]) == 0:
        raise ValueError(f"found {' '.join(values) or 'nothing'} after @{name}; wanted a number")
    return int(values[0])


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
