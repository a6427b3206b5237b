"""The parts of the data of the command line: training, validation and test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ostinato_learn import environment
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import sources
from ostinato_learn.jobs.inputs.built_in import BUILT_IN
from ostinato_learn.jobs.inputs.config import Config

if TYPE_CHECKING:
    import numpy as np

    from ostinato_learn.data.sequences.examples import Examples
    from ostinato_learn.data.sequences.features import Missing
    from ostinato_learn.data.sequences.preparation import Preparation

# A loss on this number of sequences or fewer is partly luck.
REDRAWN = 500


@dataclass(frozen=True)
class Parts:
    """The training, validation and test examples.

    Attributes:
        learnable: training and validation part together, if the latter was drawn and has few
            sequences, so that it can be drawn again.
    """

    train: Examples
    test: Examples
    validation: Examples | None = None
    learnable: Examples | None = None


def load(settings: Config, preparation: Preparation | None = None) -> Parts:
    """The parts of a source with a label for each sequence or step.

    Without a --test file and a --split column, parts are drawn: a share of each class, and each
    --group whole.

    Args:
        preparation: that of the model trained with these settings, which knows the columns.

    Raises:
        BadInput, ValueError: the data cannot be read, or cannot be divided.
    """
    config = settings.data
    sources.check(config)
    source = sources.known(config.source)
    if source in BUILT_IN:
        return _with_validation(*sources.built_in(source, config.as_sequence), settings)
    trained = preparation.roles if preparation else None
    everything = sources.read_labelled(source, settings, trained=trained)
    if config.test is None:
        return _divided(everything, settings)
    if trained is None and everything.roles is not None and everything.roles.labels:
        kinds = everything.roles  # the labels that are learnt, and no others
        trained = replace(sources.roles(settings), labels=kinds.labels, between=kinds.between)
    test = sources.read_labelled(sources.known(config.test), settings, trained=trained)
    _check_alike(everything, test)
    return _with_validation(everything, test, settings)


def folds(settings: Config, k: int) -> Iterator[Parts]:
    """The parts of each fold: a share of each class, and each --group whole.

    The test part of a data set, a --split column or --test stays out of all folds.

    Raises:
        BadInput, ValueError: as for `load`, or a label would be tested without being learnt.
    """
    import numpy as np

    from ostinato_learn.data.sequences import splits

    examples = replace(_learnable(settings), parts=None)
    pairs = splits.folds(examples, k, settings.training.seed, stratify=splits.strata(examples))
    for number, (train, test) in enumerate(pairs, start=1):
        learnt, tested = (_labels_in(examples, part) for part in (train, test))
        new = np.setdiff1d(tested, learnt)
        if len(new):
            raise BadInput(
                f"the label {new.tolist()[0]!r} would be tested in fold {number} of {k} and is not "
                "among what it learns from; wanted each label in two folds: more examples of it, "
                "other --folds, or another --seed"
            )
    return (
        _with_validation(examples.select(train), examples.select(test), settings)
        for train, test in pairs
    )


def _learnable(settings: Config) -> Examples:
    """The labelled examples outside of the test part."""
    import numpy as np

    from ostinato_learn.data.sequences import splits

    config = settings.data
    sources.check(config)
    source = sources.known(config.source)
    if source in BUILT_IN:
        return sources.built_in(source, config.as_sequence)[0]
    everything: Examples = sources.read_labelled(source, settings)
    if everything.parts is None:
        return everything
    found = splits.split(everything, everything.parts)
    return everything.select(np.sort(np.concatenate([v for k, v in found.items() if k != "test"])))


def _divided(everything: Examples, settings: Config) -> Parts:
    import numpy as np

    from ostinato_learn.data.sequences import splits

    stratify = splits.strata(everything)
    if everything.parts is None and divided_in_time(settings, everything):
        rest, test = splits.in_time(everything, settings.data.test_fraction)
        fraction = settings.training.validation_fraction
        if not fraction:
            return Parts(rest, test)
        train, validation = splits.in_time(rest, fraction)
        return Parts(train, test, validation)
    if everything.parts is not None:
        found = splits.split(everything, everything.parts)
        if "test" not in found:
            raise BadInput(
                f"--split {settings.data.split}: no sequence is in the part test; wanted some, or "
                "--test FILE"
            )
    else:
        if stratify is not None and np.unique(stratify, return_counts=True)[1].max() < 2:
            raise BadInput(
                f"{settings.data.source}: no class has two examples, so no test part can be held "
                "out; give --test"
            )
        shares, seed = settings.data.test_fraction, settings.training.seed
        found = splits.split(everything, shares, seed, stratify=stratify)
    parts = {name: everything.select(indices) for name, indices in found.items()}
    if "validation" in parts:
        return Parts(parts["train"], parts["test"], parts["validation"])
    return _with_validation(parts["train"], parts["test"], settings)


def divided_in_time(settings: Config, everything: Examples) -> bool:
    """Whether the parts are stretches of each sequence, and not sequences."""
    from ostinato_learn.data.sequences import splits

    asked = settings.data.test_time
    if asked and (settings.data.group or settings.data.split or settings.data.test):
        raise BadInput(
            "--test-time tests on the ends of all sequences, and --group, --split and --test on "
            "others; wanted one of them"
        )
    return splits.are_few(everything) if asked is None else asked


def redrawn(parts: Parts, settings: Config, draw: int) -> Parts | None:
    """The parts with another draw of the validation part.

    None if the file determines it, if it has more than `REDRAWN` sequences, or if a label would be
    validated without being learnt.
    """
    if parts.learnable is None:
        return None
    found = _with_validation(parts.learnable, parts.test, settings, draw)
    assert found.validation is not None
    import numpy as np

    validation, train = (
        _labels_in(part, np.arange(len(part))) for part in (found.validation, found.train)
    )
    return None if len(np.setdiff1d(validation, train)) else found


def _labels_in(part: Examples, indices: np.ndarray) -> np.ndarray:
    """The labels of the sequences, or of the steps, at `indices`; none if each may have several.

    With several, a label that no sequence has is learnt, too.
    """
    from ostinato_learn.data.sequences.step_labels import label_counts

    if not hasattr(part.y, "dtype"):
        return label_counts(part.select(indices).y)[0]
    return part.y[indices] if part.y.ndim == 1 else part.y[:0, 0]


def _with_validation(train: Examples, test: Examples, settings: Config, draw: int = 0) -> Parts:
    """The parts, with a share of the training part for validation, if requested."""
    from ostinato_learn.data.sequences import splits

    fraction = settings.training.validation_fraction
    if not fraction:
        return Parts(train, test)
    rest, held_out = splits.held_out(train, fraction, settings.training.seed + draw)
    learnable = train if len(held_out) <= REDRAWN else None
    return Parts(train.select(rest), test, train.select(held_out), learnable)


def _check_alike(train: Examples, test: Examples) -> None:
    """Raise BadInput if the files of the training and the test part do not fit together."""
    wanted, came = sources.n_features(train.sequences), sources.n_features(test.sequences)
    if came != wanted and test.roles is None:
        raise BadInput(
            f"{test.source}: X has {came} features a step; wanted {wanted}, as in {train.source}"
        )


def preparation(train: Examples, missing: str, standardize: bool) -> Preparation:
    """How examples become the input of a network, learnt from the training part.

    One of the processes of a machine learns it for all: for examples in a file it takes two passes.

    Args:
        missing: see `DataConfig`.

    Raises:
        BadInput: missing values are described by column, and there is no forecast.
    """
    from ostinato_learn.data.sequences.preparation import Preparation
    from ostinato_learn.training import distributed

    def learnt() -> Preparation:
        return Preparation.fit(train, missing=how_missing(train, missing), standardize=standardize)

    ranks = distributed.current()
    if ranks.alone:
        return learnt()
    return Preparation.from_json(ranks.from_first_here(lambda: learnt().as_json()))


def how_missing(train: Examples, missing: str) -> dict[str, Missing]:
    """What a missing value is, by the name of the column; "" is all others.

    Raises:
        BadInput: see `preparation`.
    """
    parts = [part.rpartition("=") for part in missing.split(",")]
    found = {name.strip(): how.strip() for name, _, how in parts}
    is_forecast = train.roles is not None and train.roles.task == "forecast"
    if not is_forecast and (found.keys() != {""} or found[""] == "zero"):
        raise BadInput(
            f"--missing {missing} is for the inputs of forecasts; wanted error, mask, fill or "
            "forward"
        )
    return found  # type: ignore[return-value]  # the configuration has looked at them


def inputs(preparation: Preparation | None, part: Examples) -> Any:
    """The input of a network; the first process of a machine checks all values, for all."""
    if preparation is None:
        return part.X
    return preparation.apply(part, unseen=environment.rank_here() > 0)


def describe(parts: Parts) -> dict[str, Any]:
    """Sizes, for environment.json."""
    import numpy as np

    from ostinato_learn.data.sequences.step_labels import label_counts

    train, y = parts.train, parts.train.y
    labels = y if hasattr(y, "dtype") else label_counts(y)[0]
    several = labels.ndim == 2
    return {
        "n_train": len(train),
        "n_test": len(parts.test),
        "n_features": sources.n_features(train.sequences),
        "max_length": int(train.lengths.max()),
        "n_classes": labels.shape[1] if several else len(np.unique(labels)),
    }
