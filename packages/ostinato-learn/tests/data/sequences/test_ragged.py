import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato_learn.data import Ragged
from zoo.suites import draws


def sequences(min_size=1):
    """Lists of [T_i, F] arrays whose every value is different, empty ones among them."""

    @st.composite
    def draw_list(draw):
        n_features = draw(st.integers(1, 3))
        lengths = draw(st.lists(st.integers(0, 5), min_size=min_size, max_size=7))
        ends = np.cumsum([0, *lengths])
        values = np.arange(ends[-1] * n_features, dtype=np.float32).reshape(-1, n_features)
        return [values[a:b] for a, b in itertools.pairwise(ends)]

    return draw_list()


def assert_is(ragged, wanted):
    assert len(ragged) == len(wanted)
    for got, want in zip(ragged, wanted, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, want)


@draws()
@given(sequences(), st.data())
def test_indexing_agrees_with_a_list(arrays, data):
    ragged, n = Ragged.from_list(arrays), len(arrays)
    assert_is(ragged, arrays)
    i = data.draw(st.integers(-n, n - 1))
    np.testing.assert_array_equal(ragged[i], arrays[i])
    np.testing.assert_array_equal(ragged[np.int32(i)], arrays[i])

    cut = data.draw(st.slices(n))
    assert_is(ragged[cut], arrays[cut])

    chosen = data.draw(st.lists(st.integers(-n, n - 1), max_size=9))
    assert_is(ragged[chosen], [arrays[i] for i in chosen])
    assert_is(ragged[np.array(chosen, np.int64)], [arrays[i] for i in chosen])

    mask = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    assert_is(ragged[np.array(mask)], [a for a, m in zip(arrays, mask, strict=True) if m])


@draws()
@given(sequences())
def test_padded_holds_every_sequence_and_zeros(arrays):
    ragged = Ragged.from_list(arrays)
    X, lengths = ragged.padded()
    assert X.dtype == np.float32
    assert X.shape == (len(arrays), max(map(len, arrays)), ragged.n_features)
    assert X.shape[1] == ragged.max_length
    assert lengths.tolist() == ragged.lengths.tolist() == [len(a) for a in arrays]
    for row, array in zip(X, arrays, strict=True):
        np.testing.assert_array_equal(row[: len(array)], array)
        assert not row[len(array) :].any()


def test_single_sequences_and_plain_slices_share_memory():
    ragged = Ragged.from_list([np.ones((2, 3)), np.ones((4, 3)), np.ones((1, 3))])
    assert np.shares_memory(ragged[1], ragged.values)
    assert np.shares_memory(ragged[1:].values, ragged.values)
    assert not np.shares_memory(ragged[[1]].values, ragged.values)


def test_float32_values_are_not_copied():
    values = np.zeros((3, 2), np.float32)
    assert Ragged(values, [0, 1, 3]).values is values


def test_one_dimensional_sequences_are_one_feature():
    ragged = Ragged.from_list([[1, 2], [3]])
    assert ragged.n_features == 1
    assert ragged[0].tolist() == [[1.0], [2.0]]


def test_equals_compares_content():
    ragged = Ragged([[1], [2], [3]], [0, 1, 3])
    assert ragged.equals(Ragged.from_list([[1], [2, 3]]))
    assert not ragged.equals(Ragged.from_list([[1, 2], [3]]))
    assert not ragged.equals(Ragged.from_list([[1], [2, 4]]))
    assert not ragged.equals([[1], [2, 3]])


def test_no_sequences():
    none = Ragged.from_list([[1.0], [2.0]])[[]]
    assert len(none) == 0 and none.max_length == 0 and none.n_features == 1
    assert none.padded()[0].shape == (0, 0, 1)
    assert repr(none) == "Ragged(0 sequences of no steps, 1 features)"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (3, "index 3 is out of range for 3 sequences"),
        (-4, "index -4 is out of range for 3 sequences"),
        ([0, 7], "index 7 is out of range"),
        (np.array([True, False]), r"boolean index of shape \[2\] .* wanted shape \[3\]"),
        (np.array([0.5]), "float64"),
        (np.array([[0, 1]]), "1-D"),
    ],
)
def test_index_errors(index, message):
    with pytest.raises(IndexError, match=message):
        Ragged.from_list([[1], [2, 3], [4]])[index]


@pytest.mark.parametrize(
    ("values", "offsets", "message"),
    [
        (np.zeros(3), [0, 3], r"values are float64\[3\]; wanted numbers of shape"),
        (np.array([["a"]]), [0, 1], "values are <U1"),
        (np.zeros((3, 1)), [0, 2], "run from 0 to 2; wanted 0 to 3"),
        (np.zeros((3, 1)), [1, 3], "run from 1 to 3"),
        (np.zeros((3, 1)), [0, 2, 1, 3], "offsets decrease from 2 to 1 at entry 2"),
        (np.zeros((3, 1)), [0.0, 3.0], "offsets are float64"),
        (np.zeros((0, 1)), np.zeros(0, int), "offsets are int64"),
    ],
)
def test_constructor_refuses(values, offsets, message):
    with pytest.raises(ValueError, match=message):
        Ragged(values, offsets)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([], "the list is empty"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "sequence 1 has 4 features, sequence 0 has 3"),
        ([np.zeros((2, 3, 1))], r"sequence 0 has shape \[2, 3, 1\]"),
    ],
)
def test_from_list_refuses(arrays, message):
    with pytest.raises(ValueError, match=message):
        Ragged.from_list(arrays)
