from __future__ import annotations

import inspect
import json
import math
import re
from dataclasses import asdict, dataclass, make_dataclass
from typing import Literal

import numpy as np
import pytest

from ostinato_learn import (
    LanguageModel,
    SequenceClassifier,
    SequenceForecaster,
    SequenceRegressor,
    SequenceTagger,
)
from ostinato_learn.hyperparameters import (
    Classifying,
    Declared,
    Fitting,
    HyperparameterError,
    Training,
    declarations,
    declare,
    documented,
)
from ostinato_learn.jobs.inputs.config import OPTIONS
from ostinato_learn.models import ClassifierNet
from ostinato_learn.training import Plan

ESTIMATORS = (
    SequenceClassifier,
    SequenceTagger,
    SequenceRegressor,
    SequenceForecaster,
    LanguageModel,
)
OWN = {
    "recipe": "task",
    "embedding_size": 100,
    "vocabulary_size": 20_000,
    "early_error": None,
    "ensemble": 1,
    "standardize": "auto",
    "verbose": 0,
    "warm_start": False,
}  # of the estimator
HYPERPARAMETERS = {
    each.name: each for kind in (Classifying, Fitting) for each in declarations(kind)
}


def defaults(cls: type) -> dict[str, object]:
    return {name: p.default for name, p in inspect.signature(cls).parameters.items()}


def test_the_classifier_has_every_hyperparameter_and_nothing_else():
    """With its default, or left to the recipe."""
    theirs = defaults(SequenceClassifier)
    theirs["seed"] = theirs.pop("random_state")  # as scikit-learn calls it
    own = {name: theirs.pop(name) for name in OWN}
    assert own == OWN
    left = {name for name, default in theirs.items() if default == "auto"}
    assert "cell" in left and "num_layers" not in left
    of_taggers = ("window",)
    wanted = {n: each.default for n, each in HYPERPARAMETERS.items() if n not in of_taggers}
    assert theirs == wanted | dict.fromkeys(left, "auto")


def test_the_network_has_every_hyperparameter_of_the_model_with_its_default():
    assert asdict(Classifying()).items() <= defaults(ClassifierNet).items()


def test_the_plan_has_those_of_the_training_and_nothing_else():
    assert defaults(Plan) == asdict(Training()) == Plan().as_dict()


def test_the_command_line_has_every_hyperparameter():
    shown = {o.name: o for o in OPTIONS.values() if o.section in ("model", "training")}
    assert shown.keys() == HYPERPARAMETERS.keys()
    for name, each in HYPERPARAMETERS.items():
        assert (shown[name].default, shown[name].help) == (each.default, each.help)


@pytest.mark.parametrize("cls", [Plan, ClassifierNet, SequenceClassifier])
def test_every_parameter_is_described(cls):
    assert "{hyperparameters}" not in cls.__doc__
    for name in inspect.signature(cls).parameters:
        assert inspect.getdoc(cls).count(f"\n    {name}: ") == 1
    assert max(map(len, cls.__doc__.splitlines())) <= 100


@pytest.mark.parametrize("cls", [*ESTIMATORS, Plan])
def test_every_default_is_described(cls):
    """As "Default: 3.", which for None may be a sentence with "by default"."""
    arguments = inspect.getdoc(cls).partition("\nArgs:\n")[2].partition("\n\n")[0]
    entries = re.split(r"^ {4}(?=\w+: )", arguments, flags=re.MULTILINE)[1:]
    described = {e.partition(":")[0]: " ".join(e.split()) for e in entries}
    for name, default in defaults(cls).items():
        in_words = default is None and "by default" in described[name].lower()
        assert in_words or described[name].endswith(f"Default: {default!r}."), described[name]


def test_a_description_of_ones_own_replaces_the_declared_one():
    @documented
    @dataclass
    class Mine:
        """Mine.

        Args:
            {hyperparameters}
            cell: my own words.
        """

        cell: str = "rnn"
        dropout: float = 0.0
        other: int = 0

    assert Mine.__doc__.count("cell: ") == 1 and "cell: my own words." in Mine.__doc__
    assert "\n    dropout: Dropout between layers" in inspect.getdoc(Mine)
    assert "other" not in Mine.__doc__


@dataclass(frozen=True)
class Kinds(Declared):
    whole: int = declare(3, "A whole number.", low=1, high=9)
    share: float = declare(0.5, "A share.", above=0, below=1)
    rate: float | None = declare(None, "A rate.", above=0)
    word: Literal["one", "two"] = declare("one", "A word.")
    flag: bool = declare(False, "A flag.")
    text: str | None = declare(None, "A text.")


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("whole", np.int64(1), 1),
        ("whole", 9, 9),
        ("share", np.float32(0.25), 0.25),
        ("rate", 2, 2.0),
        ("rate", None, None),
        ("word", np.str_("two"), "two"),
        ("flag", np.True_, True),
        ("text", "any", "any"),
    ],
)
def test_values_become_plain_so_that_json_takes_them(name, value, plain):
    kept = getattr(Kinds(**{name: value}), name)
    assert kept == plain and type(kept) is type(plain)
    json.dumps(kept)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("whole", 0, "a whole number from 1 to 9"),
        ("whole", 10, "a whole number from 1 to 9"),
        ("whole", 1.0, "a whole number from 1 to 9"),
        ("whole", True, "a whole number from 1 to 9"),
        ("whole", None, "a whole number from 1 to 9"),
        ("share", 0, "a number above 0 and below 1"),
        ("share", 1, "a number above 0 and below 1"),
        ("share", "0.5", "a number above 0 and below 1"),
        ("rate", math.inf, "a number above 0, or None"),
        ("rate", math.nan, "a number above 0, or None"),
        ("rate", 10**400, "a number above 0, or None"),
        ("word", "three", "one of 'one', 'two'"),
        ("word", 1, "one of 'one', 'two'"),
        ("flag", "no", "True or False"),
        ("flag", None, "True or False"),
        ("text", "", "text, or None"),
        ("text", 3, "text, or None"),
    ],
)
def test_other_values_are_refused_with_what_was_wanted(name, value, wanted):
    with pytest.raises(HyperparameterError) as caught:
        Kinds(**{name: value})
    assert str(caught.value) == f"{name}={value!r}: wanted {wanted}"
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, TypeError)


def test_a_default_out_of_its_range_is_seen_when_the_dataclass_is_made():
    Classifying(), Fitting()
    wrong = make_dataclass("Wrong", [("n", int, declare(0, "A number.", low=1))], bases=(Declared,))
    with pytest.raises(HyperparameterError, match="n=0: wanted a whole number, 1 or more"):
        wrong()
