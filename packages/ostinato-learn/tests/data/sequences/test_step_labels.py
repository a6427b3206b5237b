"""What a user gives a tagger: sequences and the labels of their steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ostinato_learn.data import Ragged
from ostinato_learn.data.sequences.step_labels import as_labels, as_steps, lengths_of, width_of
from ostinato_learn.data.text.words import Words


@pytest.mark.parametrize(
    ("X", "lengths", "width", "is_one"),
    [
        (np.zeros((4, 3, 2)), [3, 3, 3, 3], 2, False),
        (torch.zeros(4, 3, 2), [3, 3, 3, 3], 2, False),
        ([np.zeros((3, 2)), np.zeros((5, 2))], [3, 5], 2, False),
        ([[1.0, 2.0], [3.0, 4.0]], [2, 2], 1, False),
        ([np.zeros(3), np.zeros(5)], [3, 5], 1, False),
        (Ragged.from_list([np.zeros((3, 2)), np.zeros((5, 2))]), [3, 5], 2, False),
        (np.zeros((7, 2)), [7], 2, True),
        (torch.zeros(7, 2), [7], 2, True),
        ([["a", "b"], ["c"]], [2, 1], None, False),
        ((("a", "b"), ("c",)), [2, 1], None, False),
        ([np.array(["a", "b"]), np.array(["c"])], [2, 1], None, False),
        (np.array([["a", "b"], ["c", "d"]]), [2, 2], None, False),
        (["a", "b", "c"], [3], None, True),
        (np.array(["a", "b", "c"]), [3], None, True),
        (np.array(["a", "b", "c"], dtype=object), [3], None, True),
    ],
)
def test_the_forms_of_sequences(X, lengths, width, is_one):
    sequences, one = as_steps(X)
    assert lengths_of(sequences).tolist() == lengths
    assert width_of(sequences) == width
    assert one == is_one
    assert isinstance(sequences, Words) == (width is None)


def test_an_object_array_of_sequences():
    X = np.empty(2, dtype=object)
    X[:] = [np.ones((2, 1)), np.zeros((3, 1))]
    assert lengths_of(as_steps(X)[0]).tolist() == [2, 3]
    X[:] = [["a", "b"], ["c"]]
    assert lengths_of(as_steps(X)[0]).tolist() == [2, 1]


def test_a_data_frame_is_one_sequence():
    pandas = pytest.importorskip("pandas")
    X, is_one = as_steps(pandas.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4, 5, 6]}))
    assert is_one and X.tolist() == [[[1, 4], [2, 5], [3, 6]]]


def test_labels_are_arrays_of_their_steps():
    lengths = np.array([2, 1])
    assert [a.tolist() for a in as_labels([["x", "y"], ["x"]], lengths)] == [["x", "y"], ["x"]]
    assert [a.tolist() for a in as_labels([[1, 2], [True]], lengths)] == [[1, 2], [True]]
    assert as_labels(np.array([[[0], [1]]]), np.array([2]))[0].tolist() == [0, 1]
    tags = as_labels([["B-x", "E-x"], ["S-x"]], lengths, "iobes")
    assert [a.tolist() for a in tags] == [["B-x", "I-x"], ["B-x"]]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "the target y is None"),
        ([["x", "y"]], "X has 2 sequences and y has 1 sequences"),
        ("xy", "X has 2 sequences and y is 'xy'"),
        (5, "X has 2 sequences and y is 5"),
        ([["x", "y"], ["x", "y"]], r"sequence 1 has 1 steps in X and labels of shape \[2\] in y"),
        ([["x", "y"], "x"], r"sequence 1 has 1 steps in X and labels of shape \[\] in y"),
        ([["x", "y"], [["x"], ["y", "z"]]], "sequence 1 of y is nested"),
        ([[0.5, 1.0], [1.0]], "Unknown label type: sequence 0 of y has labels of float64, as 0.5"),
        ([[None, "x"], ["y"]], "Unknown label type: sequence 0 of y has labels of object"),
        ([["x", "y"], [1]], "the labels of sequence 0 are strings and those of sequence 1 are not"),
    ],
)
def test_labels_that_cannot_be_used_are_named(y, message):
    with pytest.raises(ValueError, match=message):
        as_labels(y, np.array([2, 1]))


def test_tags_that_are_none_of_the_scheme_are_named_with_their_sequence():
    with pytest.raises(ValueError, match="sequence 1 of y: the tag 'I-x' at step 0 belongs to no"):
        as_labels([["B-x", "I-x"], ["I-x"]], np.array([2, 1]), "iob2")


@pytest.mark.parametrize("X", [[], np.zeros((0, 3)), np.zeros((2, 0, 3)), [[1.0], []], np.zeros(3)])
def test_sequences_that_cannot_be_used_are_refused(X):
    with pytest.raises(ValueError):
        as_steps(X)
