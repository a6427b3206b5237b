"""Columns of data frames: of one with a row for each sequence, and of a list of frames."""

from __future__ import annotations

import numpy as np
import pytest

from ostinato_learn import SequenceClassifier, SequenceTagger, runtime
from ostinato_learn.data.tables.feature_names import check_columns, column_names


class Frame:
    """What counts of a data frame: names, and values as an array."""

    def __init__(self, values, columns):
        self.values, self.columns = np.asarray(values), columns
        self.shape, self.ndim = self.values.shape, self.values.ndim

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype or self.values.dtype)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, names):
        places = [self.columns.index(name) for name in names]
        return Frame(self.values[:, places], list(names))


@pytest.fixture
def frames():
    generator = np.random.default_rng(0)
    return [Frame(generator.normal(size=(n, 2)), ["p", "q"]) for n in (5, 7, 7, 6, 5, 9, 4, 8)]


def test_a_list_of_frames_has_the_names_that_all_have(frames):
    assert column_names(frames).tolist() == ["p", "q"]
    for nameless in (
        [],
        [[1.0, 2.0]],
        ["a text"],
        [["a", "word"]],
        [np.zeros((3, 2))],
        [Frame(np.zeros((3, 2)), [0, 1])],
        None,
    ):
        assert column_names(nameless) is None


def test_frames_that_differ_are_refused(frames):
    with pytest.raises(ValueError, match=r"X\[2\] has the columns \['q', 'p'\], X\[0\] has"):
        column_names([*frames[:2], frames[2][["q", "p"]]])
    with pytest.raises(ValueError, match=r"X\[1\] has no names of columns"):
        column_names([frames[0], np.zeros((3, 2))])


@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceTagger])
def test_a_model_refuses_frames_in_another_order(frames, kind, tmp_path):
    is_tagger = kind is SequenceTagger
    y = [np.arange(len(f)) % 2 for f in frames] if is_tagger else np.arange(len(frames)) % 2
    model = kind(hidden_size=4, iterations=2, random_state=0).fit(frames, y)
    assert model.feature_names_in_.tolist() == ["p", "q"]
    model.save(tmp_path / "model")
    swapped = [frame[["q", "p"]] for frame in frames]
    for answers in (model, runtime.load(tmp_path / "model")):
        assert len(answers.predict(frames)) == len(frames)
        with pytest.raises(ValueError, match="must be in the same order as they were in fit"):
            answers.predict(swapped)
        with pytest.warns(UserWarning, match="X does not have valid feature names"):
            answers.predict([frame.values for frame in frames])


def test_names_of_two_kinds():
    with pytest.raises(TypeError, match="all input features have string names"):
        check_columns(Frame(np.zeros((2, 2)), ["a", 1]), None)
