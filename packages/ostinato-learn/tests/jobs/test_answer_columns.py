"""The columns of answers: one list for all files and streams."""

from __future__ import annotations

import numpy as np
import pytest

from ostinato_learn.jobs import answer_columns


def test_the_columns_of_a_label() -> None:
    assert answer_columns.label_columns() == ["prediction", "probability"]
    assert answer_columns.label_columns(known=True, classes=["a", "b"]) == [
        "label",
        "prediction",
        "probability",
        "probability_a",
        "probability_b",
    ]


def test_the_columns_of_a_number() -> None:
    assert answer_columns.number_columns() == ["prediction"]
    assert answer_columns.number_columns(known=True, levels=(0.1, 0.25), target="y") == [
        "value_y",
        "prediction_y",
        "q0.1_y",
        "q0.25_y",
    ]


def test_the_least_certain_of_several_decisions() -> None:
    proba = np.array([[0.75, 0.125], [0.5, 1.0]])
    assert answer_columns.least_certain(proba).tolist() == [0.75, 0.5]


@pytest.mark.parametrize("value", [1 / 3, 1e-30, 123456.789])
def test_a_float32_survives_its_text(value: float) -> None:
    value = float(np.float32(value))
    assert np.float32(answer_columns.number(value)) == np.float32(value)
