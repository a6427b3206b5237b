"""Parameters and arguments that cannot be used."""

from __future__ import annotations

import numpy as np
import pytest
from estimator_examples import small, up_or_down


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cell": "cnn"}, "cell='cnn': wanted one of"),
        ({"iterations": 0}, "iterations=0: wanted"),
        ({"iterations": 5, "epochs": 1}, "iterations=5 and epochs=1"),
        ({"patience": 2}, "patience=2 without a validation set"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0: wanted a number"),
        ({"validation_fraction": "a"}, "validation_fraction='a': wanted a number"),
        ({"class_weight": {"left": 2}}, "class_weight has the label 'left', which was not trained"),
        ({"class_weight": "uniform"}, "class_weight='uniform': wanted 'balanced'"),
        ({"init": "zero"}, "init='zero': wanted one of"),
    ],
)
def test_a_bad_parameter_is_named_by_fit_and_not_before(parameters, message):
    X, y = up_or_down()
    model = small(**parameters)
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)


def test_bad_arguments_of_fit_are_named():
    X, y = up_or_down()
    for arguments, message in [
        ({"X": X, "y": y[:-1]}, "X has 90 examples and y has 89"),
        ({"X": X, "y": None}, "the target y is None"),
        ({"X": X, "y": ["up"] * 90}, "y has one class only, 'up'"),
        ({"X": X, "y": X[:, 0, 0]}, "Unknown label type"),
        ({"X": X, "y": y, "sample_weight": [1.0]}, r"sample_weight has shape \[1\]; wanted \[90\]"),
        ({"X": X, "y": y, "validation": (X[:, :, [0, 0]], y)}, "X has 2 features, but"),
        ({"X": X, "y": y, "validation": (X, y[:3])}, "X has 90 examples and y has 3"),
        ({"X": X, "y": y, "validation": (X[:1], ["left"])}, "y has the label 'left'"),
    ]:
        with pytest.raises(ValueError, match=message):
            small().fit(**arguments)
    with pytest.raises(ValueError, match=r"sample_weight has shape \[1\]; wanted \[90\]"):
        small(validation_fraction=0.2).fit(X, y, sample_weight=[1.0])
    with pytest.raises(ValueError, match=r"validation was given, and validation_fraction=0\.2"):
        small(validation_fraction=0.2).fit(X, y, validation=(X, y))


def test_bad_arguments_of_a_fitted_model_are_named():
    X, y = up_or_down()
    model = small(iterations=2).fit(X, y)
    for ask in (model.predict, model.predict_proba, lambda X: model.evaluate(X, y)):
        with pytest.raises(ValueError, match=r"X has 2 features, but .* expecting 1 features"):
            ask(X[:, :, [0, 0]])
    with pytest.raises(ValueError, match="y has the label 'left', which was not trained"):
        model.evaluate(X[:1], ["left"])
    with pytest.raises(ValueError, match="X has 90 examples and y has 1"):
        model.evaluate(X, ["up"])


def test_a_fit_that_fails_leaves_the_fitted_model_as_it_was():
    X, y = up_or_down()
    model = small(iterations=2).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="one class only"):
        model.fit(X, ["same"] * 90)
    assert np.array_equal(model.predict_proba(X), before)


@pytest.mark.parametrize("recipe", ["task", "notebook"])
@pytest.mark.parametrize(("value", "shown"), [(np.nan, "NaN"), (np.inf, "inf")])
def test_what_is_not_finite_is_refused_at_its_place(recipe, value, shown):
    """Also if features are scaled."""
    X, y = up_or_down()
    model = small(recipe=recipe, iterations=2).fit(X, y)
    X[3, 2, 0] = value
    with pytest.raises(ValueError, match=f"X has {shown} at example 3, step 2"):
        model.predict(X)
