from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from ostinato_learn.training import Plan


def test_the_defaults_are_the_notebooks_experiment():
    plan = Plan()
    assert plan.total_iterations(60_000) == 5000
    assert (plan.optimizer, plan.learning_rate, plan.batch_size) == ("rmsprop", 0.001, 128)
    assert plan.eval_every == 1000


@pytest.mark.parametrize(
    ("epochs", "iterations"), [(1, 11), (2, 22), (0.5, 6), (1.5, 17), (0.001, 1)]
)
def test_epochs_are_rounded_up_to_iterations(epochs, iterations):
    assert Plan(epochs=epochs, batch_size=25).total_iterations(275) == iterations


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("iterations", 0, ValueError),
        ("iterations", 2.0, TypeError),
        ("iterations", True, TypeError),
        ("epochs", 0, ValueError),
        ("epochs", math.inf, ValueError),
        ("batch_size", 0, ValueError),
        ("batch_size", "128", TypeError),
        ("batch_size", None, TypeError),
        ("optimizer", "rms", ValueError),
        ("learning_rate", 0, ValueError),
        ("learning_rate", math.nan, ValueError),
        ("momentum", 1.0, ValueError),
        ("weight_decay", -1e-4, ValueError),
        ("clip_norm", 0.0, ValueError),
        ("schedule", "linear", ValueError),
        ("warmup", -1, ValueError),
        ("step_size", 0, ValueError),
        ("step_gamma", 0.0, ValueError),
        ("eval_every", 0, ValueError),
        ("patience", 0, ValueError),
        ("restore_best", "no", TypeError),
        ("seed", -1, ValueError),
        ("seed", 2**32, ValueError),
    ],
)
def test_a_bad_value_is_named_with_what_was_wanted(field, value, error):
    with pytest.raises(error, match=f"{field}={value!r}: wanted"):
        Plan(**{field: value})


def test_iterations_and_epochs_exclude_each_other():
    with pytest.raises(ValueError, match="iterations=5 and epochs=2 were"):
        Plan(iterations=5, epochs=2)


def test_momentum_of_adam_is_refused():
    with pytest.raises(ValueError, match=r"momentum=0\.9 with optimizer='adam'"):
        Plan(optimizer="adam", momentum=0.9)


def test_numbers_of_numpy_become_pythons_so_that_json_takes_them():
    plan = Plan(iterations=np.int64(7), learning_rate=np.float32(0.1), epochs=None)
    assert type(plan.iterations) is int and type(plan.learning_rate) is float
    again = json.loads(json.dumps(plan.as_dict()))
    assert Plan(**again) == plan
    assert plan.differences(again) == []


def test_differences_name_every_field_that_differs():
    plan = Plan(learning_rate=0.2)
    other = dataclasses.replace(plan, learning_rate=0.1, seed=1).as_dict()
    del other["warmup"]
    assert plan.differences(other) == [
        "learning_rate: 0.1, not 0.2",
        "seed: 1, not 0",
    ]
