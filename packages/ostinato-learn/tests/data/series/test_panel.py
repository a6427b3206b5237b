from __future__ import annotations

import numpy as np
import pytest

from ostinato_learn.data import Ragged
from ostinato_learn.data.series.panel import Panel, as_panel

A, B = np.arange(5.0), np.arange(3.0) + 10


def same(one: Panel, other: Panel) -> bool:
    names = ("target", "offsets", "past", "future", "future_offsets", "static")
    return all(np.array_equal(getattr(one, n), getattr(other, n), equal_nan=True) for n in names)


@pytest.mark.parametrize(
    "X",
    [
        [A, B],
        (A.tolist(), B.tolist()),
        [A[:, None], B[:, None]],
        Ragged.from_list([A, B]),
        np.array([A, B], dtype=object),
        Panel.of([A, B]),
    ],
    ids=["arrays", "lists", "columns", "Ragged", "object array", "Panel"],
)
def test_series_of_different_lengths_come_in_many_forms(X):
    panel = as_panel(X)
    assert same(panel, Panel.of([A, B]))
    assert panel.lengths.tolist() == [5, 3]
    np.testing.assert_array_equal(panel.series(1), B)


@pytest.mark.parametrize(
    ("X", "n", "past"),
    [
        (np.zeros(7), 1, 0),
        ([1, 2, 3], 1, 0),
        (np.array([1, None, 3], dtype=object), 1, 0),
        (np.zeros((4, 7)), 4, 0),
        ([[1, 2], [3, 4]], 2, 0),
        (np.zeros((4, 7, 3)), 4, 2),
        ([np.zeros((4, 3)), np.zeros((2, 3))], 2, 2),
    ],
)
def test_what_the_axes_mean(X, n, past):
    panel = as_panel(X)
    assert (len(panel), panel.n_past, panel.n_future, panel.n_static) == (n, past, 0, 0)


def test_pandas_and_torch_are_read():
    torch = pytest.importorskip("torch")
    assert same(as_panel(torch.arange(5.0)), as_panel(A))
    pandas = pytest.importorskip("pandas")
    assert same(as_panel(pandas.Series(A, index=range(7, 12))), as_panel(A))
    assert same(as_panel(pandas.DataFrame([A, A])), as_panel(np.stack([A, A])))


class Dated(np.ndarray):
    """What is asked of a data frame with dates for rows."""

    index = np.array(["2026-11-27"], dtype="datetime64[ns]")


def test_a_data_frame_with_dates_for_rows_is_refused():
    with pytest.raises(ValueError, match=r"rows of X are dates.*pass X\.T"):
        as_panel(np.zeros((5, 2)).view(Dated))
    assert len(as_panel(np.zeros(5).view(Dated))) == 1  # one series over time


def test_inputs_beside_the_target():
    X = [np.stack([A, 2 * A], axis=1), np.stack([B, 2 * B], axis=1)]
    future = [np.arange(7.0), np.arange(5.0)]
    panel = as_panel(X, future=future, static=[[1, 0], [0, 1]])
    np.testing.assert_array_equal(panel.past[:, 0], np.concatenate([2 * A, 2 * B]))
    np.testing.assert_array_equal(panel.future[:, 0], np.concatenate(future))
    assert panel.future_offsets.tolist() == [0, 7, 12]
    assert (panel.n_past, panel.n_future, panel.n_static) == (1, 1, 2)
    alone = as_panel(A, future=np.zeros((7, 2)))
    assert (len(alone), alone.n_future) == (1, 2)


def test_before_is_the_panel_of_an_earlier_day():
    X = [np.stack([A, 2 * A], axis=1), np.stack([B, 2 * B], axis=1)]
    future = [np.arange(7.0), np.arange(5.0)]
    panel = as_panel(X, future=future, static=[1, 2])
    wanted = as_panel([x[:-2] for x in X], future=future, static=[1, 2])
    assert same(panel.before(2), wanted)
    with pytest.raises(ValueError, match="series 1 has 3 steps; wanted more than the 3"):
        panel.before(3)


@pytest.mark.parametrize("on_disk", [False, True])
def test_panels_are_joined(on_disk):
    X = [np.stack([A, 2 * A], axis=1), np.stack([B, 2 * B], axis=1)]
    future = [np.arange(7.0), np.arange(5.0)]
    parts = [as_panel([X[i]], future=[future[i]], static=[[1, 2][i]]) for i in (0, 1, 0)]
    wanted = as_panel([*X, X[0]], future=[*future, future[0]], static=[1, 2, 1])
    found = Panel.joined(parts, on_disk)
    assert same(found, wanted) and found.on_disk == on_disk


def test_values_keep_their_digits():
    assert as_panel([1e9 + 0.125, 1e9]).target[0] == 1e9 + 0.125


@pytest.mark.parametrize(
    ("X", "inputs", "message"),
    [
        ([], {}, "no series"),
        (np.zeros((0, 4)), {}, "no series"),
        (np.zeros(0), {}, "no series"),
        (3.0, {}, "wanted an array of series"),
        (np.zeros((2, 2, 2, 2)), {}, r"shape \[2, 2, 2, 2\]"),
        (np.zeros((2, 0)), {}, "0 feature"),
        ([A, []], {}, "series 1 of X has no steps"),
        ([A, [1, np.inf]], {}, "series 1, step 1, column 0 is inf"),
        ([A, [1, 1e39]], {}, r"1e\+39; wanted numbers that fit in float32"),
        ([np.zeros((2, 2)), np.zeros((2, 3))], {}, r"X\[1\] has 3 columns, X\[0\] has 2"),
        ([np.zeros((2, 2)), [[1, 2], [3, np.nan]]], {}, "past: series 1, step 1, column 0 is nan"),
        ([A, np.zeros((2, 2, 2))], {}, r"X\[1\] has shape \[2, 2, 2\]"),
        (["ab", "cd"], {}, "wanted real numbers"),
        ([A + 1j], {}, "Complex"),
        ([A, B], {"future": [A]}, "future is given for 1 series, and there are 2"),
        ([A, B], {"future": [A, B[:2]]}, r"future\[1\] has 2 steps and series 1 has 3"),
        ([A, B], {"future": [A, np.zeros((3, 2))]}, r"future\[1\] has 2 columns"),
        ([A, B], {"static": [1, 2, 3]}, r"static has shape \[3, 1\]"),
        ([A, B], {"static": [1, np.nan]}, r"static\[1, 0\] is nan"),
        (Panel.of([A]), {"static": [1]}, "X is a Panel"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(X, inputs, message):
    with pytest.raises(ValueError, match=message):
        as_panel(X, **inputs)


@pytest.mark.parametrize("X", [[{"a": 1}], np.array([{"a": 1}, 2], dtype=object)])
def test_what_is_no_number_is_refused(X):
    with pytest.raises(TypeError, match="not a number"):
        as_panel(X)


def test_past_has_as_many_steps_as_the_target():
    with pytest.raises(
        ValueError, match=r"past\[0\] has 4 steps and series 0 has 5; wanted as many"
    ):
        Panel.of([A], past=[A[:4]])
