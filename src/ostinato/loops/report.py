"""How the loops of a function or a model were played."""

from __future__ import annotations

from dataclasses import dataclass

from ostinato.loops.run import Site


@dataclass(frozen=True)
class LoopReport:
    """How one loop was played when it ran last.

    Attributes:
        name: the function that it is in.
        file, line: where it is.
        text: its header, "for t in range(T)" for instance.
        native: whether a scan played its iterations; None if it did not run.
        reason: why it ran in Python, or "".
    """

    name: str
    file: str
    line: int
    text: str
    native: bool | None
    reason: str

    def __str__(self) -> str:
        state = "not run yet" if self.native is None else "native"
        if self.native is False or self.reason:
            state = f"in Python: {self.reason}"
        return f"{self.name}, {self.file}:{self.line} `{self.text}`: {state}"


def report(site: Site) -> LoopReport:
    """The report of one loop."""
    return LoopReport(
        site.name, site.file, site.source.line, site.source.text, site.native, site.reason
    )
