"""Networks read arrays in any order of memory; forecasters with inputs that do not change."""

from __future__ import annotations

import numpy as np
import pytest
import saved_models as models

import ostinato_learn.runtime
from ostinato.engine import native
from ostinato_learn import SequenceForecaster

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason="needs the engine")


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (2, 1, 0), (0, 2, 1)])
def test_any_order_of_memory_has_the_same_bits(axes, tmp_path):
    models.classifier(tmp_path / "m", cell="gru")
    network = ostinato_learn.runtime.load(tmp_path / "m").network
    x = models.sequences()
    lying = np.ascontiguousarray(x.transpose(axes)).transpose(np.argsort(axes))
    assert (lying == x).all()
    np.testing.assert_array_equal(network.answers(lying), network.answers(x))


@pytest.mark.parametrize("n_series", [1, 4])
def test_forecasts_with_static_inputs_are_those_of_the_estimator(n_series, tmp_path):
    random = np.random.default_rng(0)
    series = [random.normal(size=n).cumsum() for n in range(30, 30 + n_series)]
    static = random.normal(size=(n_series, 3))
    estimator = SequenceForecaster(horizon=3, hidden_size=8, season=4, iterations=3, random_state=0)
    estimator.fit(series, static=static).save(tmp_path / "m")
    model = ostinato_learn.runtime.load(tmp_path / "m")
    for n in (1, n_series):
        ours = model.predict_quantiles(series[:n], static=static[:n])
        meant = estimator.predict_quantiles(series[:n], static=static[:n])
        np.testing.assert_allclose(ours, meant, rtol=0, atol=1e-5)  # values below 10, float32
