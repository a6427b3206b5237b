"""Defaults that depend on the size of a user's own file; the built-in data sets keep theirs.

5,000 iterations are the notebook's ten epochs of MNIST, but thousands of epochs of 100 examples.
"""

from __future__ import annotations

import math
from pathlib import Path

from ostinato import tasks
from ostinato.cli.run.config import Config, Given
from ostinato.hyperparameters import DEFAULT_ITERATIONS, Training

EPOCHS = 30
PATIENCE = 5  # reports, if there is a validation part and no length is given
# With fewer batches, 30 epochs are too few updates. On a file of Japanese Vowels (270 examples) the
# resulting batches of 32 reach 94.6 %, those of 128 reach 65.7 %.
BATCHES_AN_EPOCH = 8
WARM_UP = 0.05  # the share of the iterations over which the rate rises
SMALLEST_BATCH = 8
REPORTS_AT_LEAST, REPORTS_AT_MOST = 20, 100

# The help of these flags says this instead of a default that is valid only for MNIST.
HELP = {
    "training.iterations": f"Default for a FILE: --epochs, but {DEFAULT_ITERATIONS} at most.",
    "training.epochs": f"Default for a FILE: {EPOCHS}.",
    "training.batch_size": "Default: 128; for a FILE of few examples, about an eighth of them.",
    "training.eval_every": "Default: 1000; for a FILE about once an epoch.",
    "training.patience": f"Default: none; {PATIENCE} for a FILE with validation and no length.",
    "model.bidirectional": "Default: yes for classifiers and taggers of a FILE.",
    "run.checkpoint_every": "Default: 1000; for a FILE at every report.",
}

ARRAYS = (".npz", ".ts", ".ts.gz")  # files that hold X and y; IDX files have them side by side
_LENGTH = {"training.iterations", "training.epochs"}


def holds_arrays(source: str) -> bool:
    """Whether a file itself says what X and y are."""
    from ostinato.data.formats.content import ending

    return source.endswith(ARRAYS) or ending(Path(source)) == ".idx"


def for_task(task: str, settings: Config, given: Given) -> Config:
    """The settings with the recipe of a task, except given parameters.

    mnist, and files that hold X and y, keep the notebook's.
    """
    source = settings.data.source or ""
    if source == "mnist" or holds_arrays(source):
        return settings
    set_by_person = {key for key, value in given.items() if value is not None}
    whole = tasks.named(task).recipe
    recipe = {key: value for key, value in whole.items() if key not in set_by_person}
    if set_by_person & _LENGTH:
        recipe = {key: value for key, value in recipe.items() if key not in _LENGTH}
    elif recipe.keys() & _LENGTH:  # one of the two
        recipe = dict.fromkeys(_LENGTH, None) | recipe
    return settings.updated(recipe)


def for_file(settings: Config, given: Given, n_examples: int) -> Config:
    """The settings with defaults for a file, except given parameters.

    Args:
        settings: resolved, with the defaults of the notebook.
        given: the parameters that the user set, also to None; no default replaces these.
        n_examples: the number of examples of the training part, with those for validation.
    """
    training = settings.training
    n = max(1, round(n_examples * (1 - training.validation_fraction)))
    batch = training.batch_size if "training.batch_size" in given else _batch_size(n)
    batches = n / min(batch, n)  # an epoch
    length = {k: given.get(f"training.{k}") for k in ("iterations", "epochs")}
    chosen: Given = {"training.batch_size": batch}
    if not any(length.values()):
        length = _length(batches)
        chosen |= {f"training.{name}": value for name, value in length.items()}
        if training.validation_fraction and "training.patience" not in given:
            chosen["training.patience"] = PATIENCE
    total = length["iterations"] or (length["epochs"] or 0) * batches
    settings = with_warm_up(settings, given, total)
    every = given.get("training.eval_every") or _eval_every(batches, total)
    chosen |= {"training.eval_every": every}
    if "run.checkpoint_every" not in given:
        chosen["run.checkpoint_every"] = every
    return settings.updated(chosen)


def with_warm_up(settings: Config, given: Given, total: float) -> Config:
    """The settings with a twentieth of `total` iterations to warm up, for the schedule cosine."""
    if settings.training.schedule != "cosine" or "training.warmup" in given:
        return settings
    return settings.updated({"training.warmup": round(WARM_UP * total)})


def _batch_size(n: int) -> int:
    """A power of two, so that an epoch has some batches; not above the notebook's."""
    fitting = 2 ** int(math.log2(max(1, n / BATCHES_AN_EPOCH)))
    return min(max(fitting, SMALLEST_BATCH), Training.batch_size)


def _length(batches: float) -> dict[str, float | None]:
    if EPOCHS * batches <= DEFAULT_ITERATIONS:
        return {"iterations": None, "epochs": float(EPOCHS)}
    return {"iterations": DEFAULT_ITERATIONS, "epochs": None}


def _eval_every(batches: float, total: float) -> int:
    """About once an epoch, within the bounds for the number of reports."""
    once = min(batches, total / REPORTS_AT_LEAST)
    return max(1, round(once), math.ceil(total / REPORTS_AT_MOST))
