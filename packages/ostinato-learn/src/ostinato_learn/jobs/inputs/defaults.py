"""Defaults for a user's own file, from `tasks.recipe`; the built-in data sets keep theirs."""

from __future__ import annotations

from pathlib import Path

from ostinato_learn.hyperparameters import DEFAULT_ITERATIONS
from ostinato_learn.jobs.inputs.built_in import has_sizes, known_of
from ostinato_learn.jobs.inputs.config import Config, Given
from ostinato_learn.tasks import recipe

# The help of these flags says this instead of a default that is valid only for MNIST.
HELP = {
    "training.iterations": f"Default for a FILE: --epochs, but {DEFAULT_ITERATIONS} at most.",
    "training.epochs": f"Default for a FILE: {recipe.EPOCHS}.",
    "training.batch_size": "Default: 128; for a FILE of few examples, about an eighth of them.",
    "training.eval_every": "Default: 1000; for a FILE about once an epoch.",
    "training.patience": (
        f"Default: none; {recipe.PATIENCE} for a FILE with validation and no length."
    ),
    "model.bidirectional": "Default: yes for classifiers and taggers of a FILE.",
    "run.checkpoint_every": "Default: 1000; for a FILE at every report.",
}

ARRAYS = (".npz", ".ts", ".ts.gz")  # files that hold X and y; IDX files have them side by side


def holds_arrays(source: str) -> bool:
    """Whether a file itself says what X and y are."""
    from ostinato_learn.data.formats.content import ending

    return source.endswith(ARRAYS) or ending(Path(source)) == ".idx"


def for_task(task: str, settings: Config, given: Given) -> Config:
    """The settings with the recipe of a task, or the notebook's, except given parameters.

    Files that hold X and y keep the notebook's network unless a recipe is chosen.
    """
    source = settings.data.source or ""
    asked = settings.run.recipe or known_of(source).recipe
    if asked is None and holds_arrays(source):
        return settings
    return settings.updated(recipe.of_task(task, given, asked or "task"))


def for_file(
    settings: Config, given: Given, n: int, validated: bool, steps: int | None = None
) -> Config:
    """The settings with defaults for a file, except given parameters.

    Args:
        settings: resolved, with the recipe of the task.
        given: the parameters that the user set, also to None; no default replaces these.
        n: the number of examples to learn from.
        validated: whether there are some for validation.
        steps: see `recipe.for_examples`.
    """
    if has_sizes(settings):
        return settings
    chosen = recipe.for_examples(n, dict(settings.items()), given, validated, steps)
    if "run.checkpoint_every" not in given:
        chosen["run.checkpoint_every"] = chosen["training.eval_every"]
    return settings.updated(chosen)


def with_warm_up(settings: Config, given: Given, total: float) -> Config:
    """The settings with a twentieth of `total` iterations to warm up, for the schedule cosine."""
    return settings.updated(recipe.warm_up(total, dict(settings.items()), given))
