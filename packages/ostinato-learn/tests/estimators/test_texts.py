"""`SequenceClassifier` on texts and on lists of words."""

from __future__ import annotations

import numpy as np
import pytest

from ostinato_learn import SequenceClassifier, load


def texts(n: int) -> tuple[list[str], list[str]]:
    """Whether a text praises: by one word among others, which "not" before it turns round."""
    generator = np.random.default_rng(0)
    X, y = [], []
    for _ in range(n):
        words = generator.choice(["film", "story", "actor", "music"], generator.integers(3, 9))
        good, turned = generator.random(2) < 0.5
        verdict = (["not"] if turned else []) + ["great" if good != turned else "dull"]
        place = int(generator.integers(0, len(words) + 1))
        X.append(" ".join([*words[:place], *verdict, *words[place:]]))
        y.append("good" if good else "bad")
    return X, y


@pytest.fixture(scope="module")
def model() -> SequenceClassifier:
    made = SequenceClassifier(
        recipe="notebook",
        cell="gru",
        hidden_size=16,
        embedding_size=8,
        vocabulary_size=50,
        batch_size=20,
        iterations=150,
        optimizer="adam",
        learning_rate=0.02,
        validation_fraction=0.1,
    )
    return made.fit(*texts(200))


def test_order_is_learnt_which_a_bag_of_words_has_not(model):
    X, y = texts(260)
    assert model.score(X[200:], y[200:]) > 0.95
    assert model.predict(["The story: NOT great", "music not dull"]).tolist() == ["bad", "good"]


def test_texts_lists_of_words_and_a_saved_model_give_the_same_bits(model, tmp_path):
    X, _ = texts(20)
    model.save(tmp_path / "model")
    expected = model.predict_proba(X)
    for again in (
        load(tmp_path / "model").predict_proba(X),
        model.predict_proba([text.split() for text in X]),
        model.predict_proba(np.array(X, dtype=object)),
    ):
        assert np.array_equal(again, expected)
    alone = np.concatenate([model.predict_proba([text]) for text in X])
    assert np.abs(alone - expected).max() < 1e-6  # the readout is PyTorch's, by batch


@pytest.mark.parametrize(
    ("X", "wanted"),
    [
        (np.zeros((2, 3, 1)), "trained with words"),
        (["fine", 3], "X has 3 at example 1; wanted a text"),
        ([["a", 1]], "X has 1 at example 0, step 1"),
        (["fine", " "], "example 1 of X has no steps"),
    ],
)
def test_what_is_no_text_is_refused(model, X, wanted):
    with pytest.raises((ValueError, TypeError), match=wanted):
        model.predict(X)


def test_numbers_and_words_are_not_mixed_up():
    X = np.random.default_rng(0).normal(size=(20, 3, 2))
    model = SequenceClassifier(hidden_size=4, iterations=2).fit(X, np.arange(20) % 2)
    with pytest.raises(ValueError, match="X has words, but the model was trained with num"):
        model.predict(["a text"])


def test_several_labels_and_an_ensemble():
    X, y = texts(60)
    several = np.array(
        [[label == "good", "music" in text] for text, label in zip(X, y, strict=True)]
    )
    model = SequenceClassifier(hidden_size=4, iterations=5).fit(X, several.astype(int))
    assert model.predict(X[:3]).shape == (3, 2)
    together = SequenceClassifier(hidden_size=4, iterations=5, ensemble=2).fit(X, y)
    assert together.predict_proba(X).shape == (60, 2)
