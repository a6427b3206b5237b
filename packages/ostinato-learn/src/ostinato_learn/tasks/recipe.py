"""The hyperparameters that a user leaves open: by the task, and by the size of the data.

A task's `TaskSpec.recipe` names its network and how it is updated; length, batches and reports
follow from the data. 5,000 iterations are the notebook's ten epochs of MNIST, but thousands of
epochs of 100 examples. The command line and the estimators both ask here, with keys
"section.name" and those parameters that were given, which no recipe replaces.

Neither torch nor NumPy is imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from ostinato_learn import tasks
from ostinato_learn.hyperparameters import (
    DEFAULT_ITERATIONS,
    DEFAULT_WINDOW,
    WORDS_KNOWN,
    Training,
    Value,
)

Settings = Mapping[str, Value]  # "section.name" → value
Chosen = dict[str, Value]

RECIPES = ("task", "notebook")

EPOCHS = 30
PATIENCE = 5  # reports, if there are validation data and no length is given
# With fewer batches, 30 epochs are too few updates. On a file of Japanese Vowels (270 examples) the
# resulting batches of 32 reach 94.6 %, those of 128 reach 65.7 %.
BATCHES_AN_EPOCH = 8
WARM_UP = 0.05  # the share of the iterations over which the rate rises
SMALLEST_BATCH = 8
WINDOW, LONG = 128, 4  # steps of a window, and windows of a long sequence
REPORTS_AT_LEAST, REPORTS_AT_MOST = 20, 100

CHARACTERS = 5  # per word or word piece, about, to estimate the length of a training
UNITS = ((2_000_000, 512), (300_000, 256), (0, 128))  # of a language model, from so many tokens on
UPDATES_AN_EPOCH = 20  # of a language model at least, if the rows of a batch allow it
ROWS = (8, 32)
CHARACTERS_READ = 12e6  # in all epochs together
TEXT_EPOCHS = (4, 30)
LARGEST_EMBEDDING = 256

_LENGTH = {"training.iterations", "training.epochs"}
_NOTEBOOK: Settings = MappingProxyType({"data.standardize": False})

# What the functions below choose, in words.
_WARM_UP_IN_WORDS = {"training.warmup": "a twentieth of the updates, under the schedule cosine"}
_EXAMPLES_IN_WORDS = _WARM_UP_IN_WORDS | {
    "training.iterations": f"{DEFAULT_ITERATIONS}, where {EPOCHS} epochs are more",
    "training.epochs": f"{EPOCHS}, but {DEFAULT_ITERATIONS} updates at most",
    "training.batch_size": f"about an eighth of the examples, {SMALLEST_BATCH} to "
    f"{Training.batch_size}",
    "training.eval_every": "about once an epoch",
    "training.patience": f"{PATIENCE} if there are validation data and no length is given",
}
_STEPS_IN_WORDS = _EXAMPLES_IN_WORDS | {
    "training.window": f"{WINDOW} for fewer than {BATCHES_AN_EPOCH * SMALLEST_BATCH} sequences of "
    f"{LONG * WINDOW} steps or more on average",
}
_TEXTS_IN_WORDS = _WARM_UP_IN_WORDS | {
    "model.hidden_size": "128, for long texts 256 or 512",
    "training.epochs": f"{TEXT_EPOCHS[1]}, for long texts fewer, {TEXT_EPOCHS[0]} at least",
    "training.batch_size": f"{ROWS[0]}, for long texts up to {ROWS[1]}",
}
_IN_WORDS = {
    "forecast": {"training.warmup": "a twentieth of iterations, under the schedule cosine"},
    "language": _TEXTS_IN_WORDS,
    "tag": _STEPS_IN_WORDS,
}


def of_task(task: str, given: Settings, recipe: str = "task") -> Chosen:
    """A recipe, without the given parameters; those that are not in it keep their defaults.

    Args:
        task: the name of a task.
        given: the parameters that the user set.
        recipe: "task", or "notebook": the hyperparameters of docs/tutorial/rnn_mnist.ipynb.
    """
    whole = tasks.named(task).recipe
    if recipe == "notebook":
        whole = {k: v for k, v in whole.items() if k.startswith("data.")} | dict(_NOTEBOOK)
    found = {key: value for key, value in whole.items() if key not in given.keys() - _LENGTH}
    if any(given.get(key) is not None for key in _LENGTH):
        return {key: value for key, value in found.items() if key not in _LENGTH}
    if found.keys() & _LENGTH:  # one of the two
        found = dict.fromkeys(_LENGTH, None) | found
    return found


def for_examples(
    n: int, settings: Settings, given: Settings, validated: bool, steps: int | None = None
) -> Chosen:
    """What follows from the number of examples, without the given parameters.

    Args:
        n: the number of training examples.
        settings: those given, and of the recipe.
        given: the parameters that the user set, also to None.
        validated: whether there are validation data.
        steps: of all sequences together, if they may be learnt in windows, which are then the
            examples.
    """
    if steps is not None:
        window = given.get("training.window")
        if "training.window" not in given and is_long(n, steps):
            window = WINDOW
        windows = n if window is None else -(-steps // window)
        found = for_examples(windows, settings, given, validated)
        return found | {"training.window": window}
    key = "training.batch_size"
    batch = given[key] if key in given else _batch_size(n)
    batches = n / min(batch, n)  # an epoch
    length = {key: given.get(key) for key in _LENGTH}
    chosen: Chosen = {"training.batch_size": batch}
    if not any(length.values()):
        length = _length(batches)
        chosen |= length
        if validated and "training.patience" not in given:
            chosen["training.patience"] = PATIENCE
    total = length["training.iterations"] or (length["training.epochs"] or 0) * batches
    every = given.get("training.eval_every") or _eval_every(batches, total)
    return chosen | warm_up(total, settings, given) | {"training.eval_every": every}


def is_long(n: int, steps: int) -> bool:
    """Whether sequences are learnt in windows: they are long, and few for updates of batches."""
    return n < BATCHES_AN_EPOCH * SMALLEST_BATCH and steps >= LONG * n * WINDOW


def for_texts(characters: int, settings: Settings, given: Settings) -> Chosen:
    """What follows from the length of the texts of a language model, without the given parameters.

    A small text is learnt better, and sooner, by a small network that reads it often: of 160 kB of
    tunes an LSTM of 512 units reached 1.811 bits a character in 4 epochs, one of 128 units 1.537
    in 30 epochs and less time.

    Args:
        characters: the number of characters to learn from.
        settings: those given, and of the recipe, with "task.level".
        given: the parameters that the user set.
    """
    tokens, window = _tokens(characters, settings), _window(settings)
    units = next((units for least, units in UNITS if tokens >= least))
    rows = 2 ** int(math.log2(max(1.0, tokens / (UPDATES_AN_EPOCH * window))))
    epochs = min(max(round(CHARACTERS_READ / max(1, characters)), TEXT_EPOCHS[0]), TEXT_EPOCHS[1])
    chosen: Chosen = {
        "model.hidden_size": units,
        "training.batch_size": min(max(rows, ROWS[0]), ROWS[1]),
    }
    if settings["training.epochs"] is not None:
        chosen["training.epochs"] = float(epochs)
    return {key: value for key, value in chosen.items() if given.get(key) is None}


def updates_on_texts(characters: int, settings: Settings) -> int:
    """The number of updates of a language model, about."""
    iterations = settings["training.iterations"]
    if iterations is not None:
        return int(iterations)
    tokens = _tokens(characters, settings)
    an_update = settings["training.batch_size"] * _window(settings)
    return round((settings["training.epochs"] or 0) * tokens / an_update)


def of_tokens(level: str, hidden_size: int) -> dict[str, Value]:
    """The parameters of a language model beside those of its layers, by the level of its tokens."""
    are_words = level != "character"
    return {
        "embedding_size": min(LARGEST_EMBEDDING, hidden_size),
        "tied": are_words,
        "vocabulary_size": WORDS_KNOWN if are_words else None,  # None: all characters
    }


def warm_up(total: float, settings: Settings, given: Settings) -> Chosen:
    """A twentieth of `total` iterations to warm up, for the schedule cosine; {} if it is given."""
    if settings["training.schedule"] != "cosine" or "training.warmup" in given:
        return {}
    return {"training.warmup": round(WARM_UP * total)}


def in_words(task: str) -> dict[str, str]:
    """The value of each parameter of a recipe in words: "section.name" → "64"."""
    found = {key: repr(value) for key, value in tasks.named(task).recipe.items()}
    return found | _IN_WORDS.get(task, _EXAMPLES_IN_WORDS)


def rows(settings: Settings) -> list[tuple[str, str]]:
    """The network and its training in words: (name, description)."""

    def get(name: str) -> Value:
        return settings.get(name)

    layers = "" if get("model.layers") == 1 else f"{get('model.layers')} layers of "
    cell = get("model.cell")
    both = ", both directions" if get("model.bidirectional") else ""
    dropout = f", dropout {get('model.dropout'):g}" if get("model.dropout") else ""
    epochs, iterations = get("training.epochs"), get("training.iterations")
    length = f"{epochs:g} epochs" if epochs else f"{iterations:,} iterations"
    clip = get("training.clip_norm")
    windows = f", windows of {get('training.window')} steps" if get("training.window") else ""
    clipped = f", clipped at {clip:g}" if clip else ""
    rate = f"{get('training.learning_rate'):g} {get('training.schedule')}"
    name = cell if isinstance(cell, str) else getattr(cell, "__name__", str(cell))
    return [
        ("network", f"{layers}{name}, {get('model.hidden_size')} units{both}{dropout}"),
        ("length", f"{length}, {get('training.batch_size')} at a time{windows}"),
        ("updates", f"{get('training.optimizer')}, {rate}{clipped}"),
    ]


def _batch_size(n: int) -> int:
    """A power of two, so that an epoch has some batches; not above the notebook's."""
    fitting = 2 ** int(math.log2(max(1, n / BATCHES_AN_EPOCH)))
    return min(max(fitting, SMALLEST_BATCH), Training.batch_size)


def _length(batches: float) -> dict[str, Value]:
    if EPOCHS * batches <= DEFAULT_ITERATIONS:
        return {"training.iterations": None, "training.epochs": float(EPOCHS)}
    return {"training.iterations": DEFAULT_ITERATIONS, "training.epochs": None}


def _eval_every(batches: float, total: float) -> int:
    """About once an epoch, within the bounds for the number of reports."""
    once = min(batches, total / REPORTS_AT_LEAST)
    return max(1, round(once), math.ceil(total / REPORTS_AT_MOST))


def _tokens(characters: int, settings: Settings) -> float:
    return characters / (1 if settings["task.level"] == "character" else CHARACTERS)


def _window(settings: Settings) -> int:
    """The number of tokens that a language model reads before each update."""
    return settings["training.truncate"] or DEFAULT_WINDOW
