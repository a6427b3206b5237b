from __future__ import annotations

import numpy as np
import pytest
from estimator_examples import up_or_down

from ostinato_learn import SequenceClassifier, load

SMALL = {"hidden_size": 6, "iterations": 12, "batch_size": 16, "random_state": 3}
SMALL |= {"recipe": "notebook"}


def fitted(**parameters):
    return SequenceClassifier(**SMALL | parameters).fit(*up_or_down())


def test_an_ensemble_averages_the_probabilities_of_its_networks():
    X, _ = up_or_down()
    each = [fitted(random_state=3 + i).predict_proba(X) for i in range(3)]
    together = fitted(ensemble=3).predict_proba(X)
    # log and exp of probabilities in float32: 2⁻²³ of numbers of a few units, then of the result
    np.testing.assert_allclose(together, np.mean(each, axis=0), atol=1e-6)
    assert not np.allclose(each[0], each[1], atol=1e-3)


def test_a_saved_ensemble_answers_the_same(tmp_path):
    X, _ = up_or_down()
    model = fitted(ensemble=2, standardize=True)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.ensemble == 2 and len(again.net_.members) == 2


def test_a_warm_start_goes_on_from_every_network():
    X, y = up_or_down()
    model = fitted(ensemble=2, warm_start=True, iterations=1, learning_rate=1e-9)
    before = model.predict_proba(X)
    model.fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), before, atol=1e-5)
    with pytest.raises(ValueError, match="has ensemble=2, not 3"):
        model.set_params(ensemble=3).fit(X, y)


def test_standardising_is_part_of_the_model():
    X, y = up_or_down()
    model = fitted(standardize=True, iterations=60)
    far = SequenceClassifier(**SMALL | {"standardize": True, "iterations": 60}).fit(
        1000 * np.asarray(X) + 7000, y
    )
    np.testing.assert_allclose(
        far.predict_proba(1000 * np.asarray(X) + 7000), model.predict_proba(X), atol=1e-3
    )


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_what_is_no_number_of_networks_is_refused(value):
    with pytest.raises(ValueError, match=r"ensemble=.*: wanted a whole number, 1 or more"):
        fitted(ensemble=value)
