"""The data sets of the package, by name, and what is known of each without a look at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ostinato_learn.jobs.inputs.config import Config


@dataclass(frozen=True)
class BuiltIn:
    """A data set of the package.

    Args:
        studied: whether it is large, its recipe has the right sizes, and it has no serious findings
            (`data.checks`): then none of this is computed, nor are baselines.
        recipe: the default of `run.recipe`; None: the task's.
        images: whether --as-sequence says how its images are read.
    """

    studied: bool = False
    recipe: Literal["task", "notebook"] | None = None
    images: bool = False


BUILT_IN = {
    "mnist": BuiltIn(studied=True, recipe="notebook", images=True),
    "vowels": BuiltIn(),
    "austen": BuiltIn(studied=True),
}
_FILE = BuiltIn()


def known_of(source: str | None) -> BuiltIn:
    """What is known of a data set; nothing of a file."""
    return BUILT_IN.get(source or "", _FILE)


def has_sizes(settings: Config) -> bool:
    """Whether the recipe is one whose sizes do not follow from the data."""
    asked = settings.run.recipe
    return asked == "notebook" or (asked is None and known_of(settings.data.source).studied)
