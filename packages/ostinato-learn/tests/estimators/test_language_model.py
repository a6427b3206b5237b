"""`LanguageModel` for people: parameters, scikit-learn, saving."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

from ostinato_learn import LanguageModel, load
from ostinato_learn.tasks.language.estimator import held_out
from ostinato_learn.tasks.language.fit import Reading
from ostinato_learn.tasks.language.net import LanguageArchitecture
from ostinato_learn.training import Plan

TEXTS = ["the cat sat on the mat. " * 4, "a dog and a cat, a dog. " * 4, "the man and the cat."]
CHECKED = []


def small(**parameters) -> LanguageModel:
    defaults = {
        "hidden_size": 8,
        "iterations": 40,
        "batch_size": 4,
        "truncate": 12,
        "learning_rate": 0.02,
        "embedding_size": 32,
        "tied": False,
    }
    return LanguageModel(**defaults | parameters)


def weights(model):
    return [w.numpy().tobytes() for w in model.net_.state_dict().values()]


class OfNumbers(LanguageModel):
    """Reads rows of numbers as texts, since of an estimator of texts scikit-learn checks one thing
    only. How X is validated is this class's own; all else is checked of `LanguageModel`."""

    def fit(self, X, y=None):
        return super().fit(self._texts(X, reset=True))

    def predict(self, X):
        check_is_fitted(self)
        return np.array([ord(text) for text in super().predict(self._texts(X))])

    def score(self, X, y=None):
        check_is_fitted(self)
        return super().score(self._texts(X))

    def _texts(self, X, reset=False):
        return [" ".join(f"{v:.0f}" for v in x) for x in validate_data(self, X, reset=reset)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = False, True
        return tags


@parametrize_with_checks([small(iterations=2)])
def test_scikit_learn_knows_that_it_reads_texts(estimator, check):
    check(estimator)


@parametrize_with_checks([OfNumbers(**small(iterations=2).get_params())])
def test_it_is_an_estimator_of_scikit_learn(estimator, check):
    CHECKED.append(check.func.__name__)
    check(estimator)


def test_so_many_checks_ran():
    """scikit-learn's own number depends on its version; none is expected to fail."""
    assert len(CHECKED) >= 35
    assert {"check_fit_idempotent", "check_methods_subset_invariance"} <= set(CHECKED)


def test_parameters_are_those_of_the_declarations():
    names = LanguageModel().get_params().keys()
    for kind in (LanguageArchitecture, Reading, Plan):
        others = {"bidirectional", "init", "seed", "similar_lengths", "window"}
        for name in kind.__dataclass_fields__.keys() - others:
            assert name in names, name
    assert "{" not in LanguageModel.__doc__ and "clip_norm: " in LanguageModel.__doc__


def test_it_is_fitted_measured_and_asked():
    model = small(level="word").fit(TEXTS)
    measured = model.evaluate(TEXTS)
    assert model.score(TEXTS) == -measured["bits_per_character"]
    assert measured["perplexity"] == pytest.approx(math.exp(measured["loss"]))
    assert measured["vocabulary_size"] == len(model.vocabulary_) == model.net_.config["n_tokens"]
    for text in ("the cat", "the xyz"):  # a word that it does not know is a word
        assert model.predict([text]).tolist() == [model.suggest(f"{text} ", 1)[0].text]
    assert [s.text for s in model.suggest("the c", 1)] == ["cat"]
    assert model.generate("the", 5).n_tokens <= 5
    assert model.n_iter_ == 40 and model.history_.outcome == "finished"


@pytest.mark.parametrize("random_state", [0, np.int64(7), np.random.RandomState(3)])
def test_the_same_random_state_gives_the_same_bits(random_state):
    one, other = (
        weights(
            small(iterations=4, dropout=0.4, random_state=copy.deepcopy(random_state)).fit(TEXTS)
        )
        for _ in range(2)
    )
    assert one == other
    assert weights(small(iterations=4, dropout=0.4, random_state=8).fit(TEXTS)) != one


def test_saved_pickled_and_copied_it_answers_the_same(tmp_path):
    model = small(level="word", tied=True, embedding_size=5).fit(TEXTS)
    model.suggest("the c")
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.get_params() == model.get_params() and again.n_iter_ == model.n_iter_
    for each in (again, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert each.evaluate(TEXTS) == model.evaluate(TEXTS)
        assert each.generate("the", 9) == model.generate("the", 9)
        assert each.suggest("the ca") == model.suggest("the ca")


def test_parameters_set_after_fit_are_for_the_next_fit():
    model = small(iterations=4).fit(TEXTS)
    before = model.score(TEXTS)
    model.set_params(hidden_size=3, level="word")
    assert model.score(TEXTS) == before
    assert model.fit(TEXTS).net_.config["hidden_size"] == 3


def test_a_warm_start_goes_on():
    model = small().fit(TEXTS)
    first = model.history_["loss"][0]
    assert model.set_params(warm_start=True).fit(TEXTS).history_["loss"][0] < 0.7 * first
    with pytest.raises(ValueError, match="hidden_size=8, not 9"):
        model.set_params(hidden_size=9).fit(TEXTS)


def test_clone_grid_search_and_cross_validation():
    model = small(iterations=4)
    assert clone(model).get_params() == model.get_params()
    scores = cross_val_score(model, TEXTS * 2, cv=2, error_score="raise")
    assert (scores < 0).all()
    search = GridSearchCV(model, {"hidden_size": [2, 12]}, cv=2, error_score="raise").fit(TEXTS * 2)
    assert search.best_estimator_.score(TEXTS) < 0


def test_a_share_is_kept_for_validation():
    model = small(iterations=4, eval_every=2, validation_fraction=0.2).fit(TEXTS)
    assert "validation_bits_per_character" in model.history_.reports[0]
    model = small(iterations=4).fit(TEXTS, validation=["the cat"])
    assert "validation_perplexity" in model.history_.reports[0]


def test_whole_documents_are_held_out_where_there_are_enough():
    documents = [f"text {i}" for i in range(20)]
    kept, validation = held_out(documents, 0.25, seed=0)
    assert len(validation) == 5 and sorted(kept + validation) == sorted(documents)
    assert held_out(documents, 0.25, seed=0) == (kept, validation)
    assert held_out(documents, 0.25, seed=1) != (kept, validation)
    kept, ends = held_out(documents[:3], 0.25, seed=0)
    assert [a + b for a, b in zip(kept, ends, strict=True)] == documents[:3]
    with pytest.raises(ValueError, match=r"validation_fraction=0\.1 leaves nothing on one side"):
        held_out(["a"], 0.1, seed=0)


def test_a_column_of_a_data_frame_is_a_list_of_texts():
    pandas = pytest.importorskip("pandas")
    column = pandas.DataFrame({"text": TEXTS}, index=[5, 3, 9])["text"]
    model = small(iterations=4)
    assert weights(model.fit(column)) == weights(clone(model).fit(TEXTS))
    assert small(iterations=4, validation_fraction=0.3).fit(column).score(column) < 0
    assert model.fit(column.to_frame()).score(column.to_frame()) < 0  # its only column of texts


def test_errors():
    for parameters, message in [
        ({"level": "line"}, "level='line': wanted one of"),
        ({"truncate": 0}, "truncate=0: wanted"),
        ({"tied": True, "embedding_size": 0}, "tied=True with embedding_size=0"),
        ({"patience": 2}, "patience=2 without a validation set"),
        ({"validation_fraction": 1.0}, r"validation_fraction=1\.0: wanted"),
        ({"vocabulary_size": 2}, "vocabulary_size=2: wanted"),
    ]:
        with pytest.raises(ValueError, match=message):
            small(**parameters).fit(TEXTS)
    with pytest.raises(ValueError, match="validation was given, and validation_fraction"):
        small(validation_fraction=0.2).fit(TEXTS, validation=TEXTS)
    with pytest.raises(TypeError, match="X is str; wanted a list of texts"):
        small().fit("one text")
    for ask in ("score", "evaluate", "predict", "suggest", "save"):
        with pytest.raises(NotFittedError):
            getattr(small(), ask)("m")
