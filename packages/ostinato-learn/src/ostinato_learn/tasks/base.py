"""`TaskSpec`: the description of a task. Neither torch nor NumPy is imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

# The recipes of all tasks begin with this.
SCHEDULE: dict[str, Any] = {
    "training.optimizer": "adamw",
    "training.clip_norm": 1.0,
    "training.schedule": "cosine",
}


@dataclass(frozen=True)
class MeasureSpec:
    """A measure in words.

    Attributes:
        words: its name for users.
        unit: "%" for a share, or "".
        lower: whether smaller is better.
        sided: whether one of two values is better; a coverage may be too large, too.
    """

    words: str
    unit: str = ""
    lower: bool = False
    sided: bool = True

    def shown(self, value: float) -> str:
        """A value as text."""
        return f"{100 * value:.2f} %" if self.unit == "%" else f"{value:.4f}"


@dataclass(frozen=True)
class TaskSpec:
    """The description of a task.

    Attributes:
        name: the name of its folder, of the flag that names the target, and of the key in [task].
        kind: the kind of its saved models, such as "sequence_classifier".
        does: a sentence for a model's card.
        uses: those parameters that it uses and some task does not, such as "data.group".
        recipe: its defaults for a user's file, if they differ from the notebook's.
        measures: name → words, in order. The first available one compares a model with its
            baselines.
        built_in: the data sets in the package for this task.
        learnt: parameters outside of [model] that the weights were learnt with, and their places in
            a saved model's configuration.
        drawn: parameters that decide the test part if no file and no column does.
        reads_tables, reads_arrays, reads_text: the kinds of sources that it accepts.
        rules_out: what the settings make impossible with the trained model, or None.
        several_targets: whether the flag may name several columns, a,b.
    """

    name: str
    kind: str
    does: str
    uses: frozenset[str]
    recipe: Mapping[str, Any]
    measures: Mapping[str, MeasureSpec]
    built_in: tuple[str, ...] = ()
    learnt: Mapping[str, str] = field(default_factory=dict)
    drawn: tuple[str, ...] = ()
    reads_tables: bool = True
    reads_arrays: bool = False
    reads_text: bool = False
    rules_out: Callable[[Any], str | None] = lambda settings: None
    several_targets: bool = False

    @property
    def target(self) -> str:
        """The key of the parameter that names the target."""
        return f"task.{self.name}"

    def first_measure(self, measured: Mapping[str, Any]) -> str:
        """The name of the measure that compares a model with others."""
        return next(name for name in self.measures if measured.get(name) is not None)

    def module(self, name: str) -> ModuleType:
        """A module of its folder, imported now."""
        return import_module(f"ostinato_learn.tasks.{self.name}.{name}")


# Parameters of the tasks that read sequences from a table; each adds its own.
OF_TABLES = frozenset(
    f"data.{name}"
    for name in (
        "shape",
        "id",
        "time",
        "time_format",
        "repeated",
        "every",
        "features",
        "categories",
        "sort",
    )
)
# Parameters of the tasks that learn from parts of a file.
OF_PARTS = frozenset(
    ("data.group", "data.split", "data.test_fraction", "training.validation_fraction")
)
# Parameters of the tasks that learn from prepared sequences.
OF_SEQUENCES = (
    OF_TABLES
    | OF_PARTS
    | {"data.missing", "data.standardize", "model.bidirectional", "training.similar_lengths"}
)


def ruled_out_by(settings: Any) -> str | None:
    """What the settings of a model of sequences make impossible; see `TaskSpec.rules_out`.

    The conditions are those of `ModelGraph.why_not_streamable` and of `stream_source.scaling_of`,
    which refuse the trained model.

    Args:
        settings: the configuration.
    """
    if settings.model.bidirectional:
        return (
            "the network reads in two directions: export --to c and stream refuse it; "
            "--no-bidirectional keeps both possible"
        )
    if settings.data.missing == "forward":
        return "with --missing forward, stream refuses the model; --missing mask and fill do not"
    return None
