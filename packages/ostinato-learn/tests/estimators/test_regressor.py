"""`SequenceRegressor`: numbers for sequences, their quantiles, and what it is compared with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import estimator_checks_generator

import ostinato_learn
from ostinato_learn import SequenceRegressor, runtime
from ostinato_learn.tasks.regress import baselines
from ostinato_learn.tasks.regress.graph import head
from ostinato_learn.tasks.regress.loss import Regression
from ostinato_learn.tasks.regress.model import as_targets, measures

# A 2-D X is [examples, steps] to this estimator, as to SequenceClassifier.
OTHER = {
    "check_n_features_in",
    "check_n_features_in_after_fitting",
    "check_sample_weight_equivalence_on_dense_data",
}


def sums(n: int = 60, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 6, 2)).astype(np.float32)
    return X, 1000 + 50 * X[:, :, 0].sum(1) + noise * rng.normal(size=n)


def small(**parameters) -> SequenceRegressor:
    return SequenceRegressor(**{"hidden_size": 6, "iterations": 5, "random_state": 0} | parameters)


CASES = {
    "one": (lambda y: y, {}),
    "several, quantiles": (
        lambda y: np.stack([y, -y / 7], 1),
        {"loss": "quantiles", "readout": "mean"},
    ),
    "both ways": (lambda y: y[:, None], {"loss": "absolute", "bidirectional": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_answers_in_the_units_of_its_targets_with_the_same_bits_everywhere(tmp_path, case):
    of, parameters = CASES[case]
    X, y = sums()
    model = small(**parameters).fit(X, of(y))
    found = model.predict_quantiles(X)
    assert model.predict(X).shape == of(y).shape
    assert (np.diff(found, axis=2) >= 0).all()
    model.save(tmp_path / "m")
    again = ostinato_learn.load(tmp_path / "m")
    assert again.get_params() == model.get_params()
    for saved in (again, runtime.load(tmp_path / "m")):
        np.testing.assert_array_equal(saved.predict_quantiles(X), found)
        assert saved.evaluate(X, of(y)) == model.evaluate(X, of(y))
    assert runtime.verify(tmp_path / "m").n_different == 0
    fitted = model._fitted()  # the module in torch, in float32: 2^-23 of 1000, over a few steps
    with torch.no_grad():
        out = head(model.net_, False)(model.net_(torch.from_numpy(fitted.prepared(X))))
    np.testing.assert_allclose(found.reshape(len(X), -1), out.numpy(), rtol=2e-5, atol=1e-3)


def test_it_learns_a_sum_and_knows_its_noise():
    X, y = sums(400, noise=20.0)
    model = SequenceRegressor(hidden_size=16, loss="quantiles", iterations=300, random_state=0)
    measured = model.fit(X[:300], y[:300]).evaluate(X[300:], y[300:])
    assert measured["r2"] > 0.8  # 0.97 is what the noise leaves
    assert 0.6 < measured["coverage"] < 0.95  # 0.8, ± 0.04 by chance, of 100
    assert model.score(X[300:], y[300:]) == measured["r2"]


def test_a_stream_ends_with_what_predict_says(tmp_path):
    X, y = sums()
    small(bidirectional=False).fit(X, np.stack([y, y / 2], 1)).save(tmp_path / "m")
    model = runtime.load(tmp_path / "m")
    answer = model.stream().push(X[0])
    assert answer.label == tuple(model.predict(X[:1])[0].tolist())


def test_words_and_sequences_of_different_lengths():
    texts = ["good film", "bad film", "a good good film", "awful"] * 5
    model = small().fit(texts, [1.0, -1.0, 2.0, -2.0] * 5)
    assert model.predict(["good film"]).shape == (1,)
    X, y = sums()
    ragged = [x[: 3 + i % 4] for i, x in enumerate(X)]
    model = small(validation_fraction=0.2).fit(ragged, y)
    alone = np.concatenate([model.predict([x]) for x in ragged])
    np.testing.assert_array_equal(model.predict(ragged), alone)


@pytest.mark.parametrize("loss", ["squared", "absolute", "quantiles"])
def test_losses_are_those_of_plain_numbers(loss):
    rng = np.random.default_rng(0)
    z, y, levels = rng.normal(size=(4, 2, 3)), rng.normal(size=(4, 2)), (0.1, 0.5, 0.9)
    task = Regression.__new__(Regression)
    task.kind, task.levels = loss, torch.tensor(levels, dtype=torch.float64)
    found = task.losses(torch.tensor(z), torch.tensor(y)).numpy()
    for i in range(4):
        errors = [y[i, k] - z[i, k, q] for k in range(2) for q in range(3)]
        first = [y[i, k] - z[i, k, 0] for k in range(2)]
        wanted = {
            "squared": [e * e for e in first],
            "absolute": [abs(e) for e in first],
            "quantiles": [max(q * e, (q - 1) * e) for e, q in zip(errors, levels * 2, strict=True)],
        }[loss]
        assert found[i] == pytest.approx(np.mean(wanted), rel=1e-12)


def test_sample_weights_count_and_a_warm_start_goes_on():
    X, y = sums()
    weights = np.r_[np.ones(30), np.zeros(30)]
    half = small().fit(X, y, sample_weight=weights).predict(X)
    other = np.r_[y[:30], y[59:29:-1]]  # the same mean and deviation
    np.testing.assert_array_equal(small().fit(X, other, sample_weight=weights).predict(X), half)
    assert not np.array_equal(small().fit(X, other).predict(X), half)
    model = small(warm_start=True).fit(X, y)
    before = model.net_.state_dict()["readout.weight"].clone()
    assert not torch.equal(model.fit(X, y).net_.state_dict()["readout.weight"], before)
    with pytest.raises(ValueError, match="has loss='squared', not 'absolute'"):
        model.set_params(loss="absolute").fit(X, y)


def test_simple_methods():
    X, y = sums(200)
    found = baselines.of_all(X[:150], y[:150, None], X[150:], y[150:, None])
    assert found["always the mean"]["r2"] <= 0
    assert found["ridge regression on summaries"]["r2"] > 0.9
    assert measures(np.array([1.0, 3.0]), np.array([2.0, 3.0])) == {
        "r2": 0.5,
        "mae": 0.5,
        "rmse": pytest.approx(0.5**0.5),
    }
    assert measures(np.ones(3), np.ones(3))["r2"] is None


def test_what_cannot_be_learnt_is_named():
    X, y = sums(10)
    model = small().fit(X, y)
    for call, message in [
        (lambda: small(loss="cubic").fit(X, y), "loss='cubic'"),
        (lambda: small(loss="quantiles", quantiles=(0.1,)).fit(X, y), "0.5, the median"),
        (lambda: small().fit(X, y[:5]), r"y has shape \[5\]; wanted \[10\]"),
        (lambda: small().fit(X, np.where(y > y.mean(), np.nan, y)), r"y\[\d\] is nan"),
        (lambda: small().fit(X, ["a"] * 10), r"y\[0\] is 'a'; wanted a number"),
        (lambda: small().fit(X, [[1.0]] * 9 + [[1.0, 2.0]]), "y is no array of numbers"),
        (lambda: model.predict(X[:, :, :1]), "SequenceRegressor is expecting 2 features"),
        (lambda: model.evaluate(X, np.stack([y, y], 1)), r"wanted \[10\]"),
        (lambda: as_targets([[1.0]], 1, 2), r"wanted \[1, 2\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("estimator", "check"),
    estimator_checks_generator(small(iterations=2, standardize=False)),
    ids=lambda x: getattr(getattr(x, "func", None), "__name__", ""),
)
def test_scikit_learn(estimator, check):
    if check.func.__name__ in OTHER:
        pytest.skip("X of two axes is sequences of one number")
    check(estimator)
