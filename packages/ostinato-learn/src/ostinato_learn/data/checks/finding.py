"""`Finding`: one thing that a check has found, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["serious", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One finding of a check of the data.

    Attributes:
        severity: "serious": results on these data mislead, or training fails; "warning": check it;
            "note": for information.
        code: the kind of the finding, for programs: lower-case words joined by "-".
        message: what was found, in a sentence.
        count: the number of sequences (or columns, classes, steps: as the message says) concerned.
        places: the places of the first three.
        remedy: what to do.

    Example:
        >>> from ostinato_learn.data.checks import Finding
        >>> finding = Finding("note", "lengths", "2 sequences have one step", 2, ("sequence 3",))
        >>> finding.as_json()["places"]
        ['sequence 3']
    """

    severity: Severity
    code: str
    message: str
    count: int
    places: tuple[str, ...] = ()
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """The attributes by name, as JSON has them."""
        return {**asdict(self), "places": list(self.places)}


def share(count: int, total: int) -> str:
    """`12 of 60 (20 %)`"""
    percent = 100 * count / total
    digits = 0 if percent >= 10 or percent == 0 else 1 if percent >= 0.1 else 3
    return f"{count:,} of {total:,} ({percent:.{digits}f} %)"


def plural(count: int, noun: str) -> str:
    """`1 class`, `2 classes`"""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{'' if count == 1 else ending}"
