from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from ostinato_learn.data import Ragged, as_sequences


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.uint8, bool])
def test_any_real_dtype_becomes_float32(dtype):
    X = np.ones((2, 3, 4), dtype)
    result = as_sequences(X)
    assert result.dtype == np.float32 and result.flags.c_contiguous
    np.testing.assert_array_equal(result, X)


def test_a_fitting_array_is_not_copied():
    X = np.zeros((2, 3, 4), np.float32)
    assert as_sequences(X) is X
    assert as_sequences(X.transpose(0, 2, 1)).flags.c_contiguous


def test_two_axes_are_one_feature():
    X = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(as_sequences(X), X[:, :, None])
    np.testing.assert_array_equal(as_sequences(X.tolist()), X[:, :, None])


def test_a_list_of_different_lengths_is_ragged():
    arrays = [np.ones((2, 3)), np.zeros((5, 3))]
    result = as_sequences(arrays)
    assert isinstance(result, Ragged) and result.equals(Ragged.from_list(arrays))
    assert as_sequences([[1, 2, 3], [4]]).n_features == 1


def test_a_list_of_one_length_is_an_array():
    assert as_sequences([np.ones((2, 3)), np.zeros((2, 3))]).shape == (2, 2, 3)
    assert as_sequences([np.ones(4), np.zeros(4)]).shape == (2, 4, 1)


def test_ragged_passes_through():
    ragged = Ragged.from_list([[1.0], [2.0, 3.0]])
    assert as_sequences(ragged) is ragged


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    assert as_sequences(torch.ones(2, 3, 4)).shape == (2, 3, 4)
    assert isinstance(as_sequences([torch.ones(2, 3), torch.ones(4, 3)]), Ragged)


def test_tensors_that_numpy_does_not_take():
    torch = pytest.importorskip("torch")
    for X in (
        torch.ones(2, 3, 4, requires_grad=True) * 2,
        torch.full((2, 3, 4), 2.0, dtype=torch.bfloat16),
        [torch.full((3, 4), 2.0, dtype=torch.bfloat16, requires_grad=True)] * 2,
    ):
        np.testing.assert_array_equal(as_sequences(X), np.full((2, 3, 4), 2.0))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_a_masked_value_is_missing(dtype):
    X = np.ma.masked_equal(np.arange(24).reshape(2, 3, 4).astype(dtype), 7)
    with pytest.raises(ValueError, match="X has NaN at example 0, step 1, feature 3"):
        as_sequences(X)
    with pytest.raises(ValueError, match="X has NaN at example 0, step 1, feature 3"):
        as_sequences([X[0], X[1, :2]])
    X = np.ma.masked_equal(np.arange(24).reshape(2, 3, 4), 99)  # nothing is
    np.testing.assert_array_equal(as_sequences(X), X)


def object_array(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def test_an_object_array_of_arrays_is_what_a_list_of_them_is():
    arrays = [np.ones((2, 3)), np.zeros((5, 3)), np.zeros((5, 3))]
    assert as_sequences(object_array(arrays)).equals(Ragged.from_list(arrays))
    assert as_sequences(object_array(arrays[:2])[1:]).shape == (1, 5, 3)
    assert as_sequences(object_array([[1], [2, 3]])).equals(as_sequences([[1], [2, 3]]))


def test_an_object_array_of_numbers():
    X = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(as_sequences(X.astype(object)), as_sequences(X))
    exact = np.array([[Decimal("0.5"), Fraction(1, 4)]], dtype=object)
    assert as_sequences(exact).ravel().tolist() == [0.5, 0.25]


@pytest.mark.parametrize("X", [[[1.0, {}]], [object_array(["a", {}])]])
def test_objects_that_are_no_numbers(X):
    for each in (X, object_array(X)):
        with pytest.raises(TypeError, match=r"X\[0\] has an object that is not a number \("):
            as_sequences(each)


def test_text_among_numbers_is_not_read_as_a_number():
    with pytest.raises(ValueError, match="wanted real numbers"):
        as_sequences(np.array([[1.0, "2"]], dtype=object))


def test_a_sparse_matrix_says_what_to_pass():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"X is a sparse matrix.*pass X\.toarray\(\)"):
        as_sequences(sparse.eye(3))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros(3), r"X has shape \[3\]; wanted \[examples, steps, .* Reshape your data"),
        (np.zeros((1, 2, 3, 4)), r"X has shape \[1, 2, 3, 4\]"),
        (5.0, r"X has shape \[\]"),
        ([1.0, 2.0], r"X has shape \[2\]"),
        ([], "no examples"),
        (np.zeros((0, 3, 2)), "no examples"),
        (np.zeros((2, 0, 3)), "example 0 of X has no steps"),
        (np.zeros((2, 3, 0)), "no features"),
        ([np.zeros((2, 1)), np.zeros((0, 1))], "example 1 of X has no steps"),
        ([np.zeros((2, 1)), np.zeros((3, 2))], "sequence 1 has 2 features, sequence 0 has 1"),
        ([[[1, 2], [3]], [[4, 5]]], r"X\[0\] is a nested list whose parts differ in length"),
        (np.array([["a", "b"]]), "dtype <U1; wanted real numbers"),
        (np.zeros((2, 3), complex), "Complex data not supported: X has dtype complex128"),
        (np.zeros((2, 0)), r"0 feature\(s\) \(shape=\(2, 0\)\) while a minimum of 1"),
        (None, "dtype object"),
    ],
)
def test_refuses(X, message):
    with pytest.raises(ValueError, match=message):
        as_sequences(X)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_names_the_first_value_that_is_not_finite(value):
    X = np.zeros((4, 5, 3))
    X[2, 1, 2] = X[3, 0, 0] = value
    value = "NaN" if np.isnan(value) else value
    with pytest.raises(ValueError, match=f"X has {value} at example 2, step 1, feature 2"):
        as_sequences(X)
    with pytest.raises(ValueError, match=f"X has {value} at example 2, step 1, feature 2"):
        as_sequences([X[0, :2], X[1, :4], X[2], X[3]])


def test_the_step_of_a_ragged_sequence_after_an_end():
    with pytest.raises(ValueError, match="example 1, step 0, feature 0"):
        as_sequences([[1.0, 2.0], [np.nan]])


def test_beyond_float32_is_refused_without_a_warning(recwarn):
    message = r"X has -1e\+300 at example 1, step 0, feature 0, which overflows float32"
    for X in (np.array([[0.0, np.inf], [-1e300, np.nan]]), [[0.0, 1.0], [-1e300]]):
        with pytest.raises(ValueError, match=message):
            as_sequences(X)
    assert not recwarn.list
