import gzip
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato_learn.data import Ragged, read
from zoo.suites import draws

TS = b"@classLabel true a b\n@data\n1,2:3,4:a\n5:6:b\n"


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_npz_arrays(tmp_path):
    X, y = np.arange(12.0).reshape(2, 3, 2), np.array(["a", "b"])
    X_read, y_read = read(saved(tmp_path / "a.npz", X=X, y=y, other=np.zeros(3)))
    assert X_read.dtype == np.float32
    np.testing.assert_array_equal(X_read, X)
    assert y_read.tolist() == ["a", "b"]


def test_arrays_that_are_not_read_are_named(tmp_path, caplog):
    path = saved(tmp_path / "a.npz", X=np.zeros((2, 3)), Y=[0, 1], offsets=[0, 2])
    read(path)
    assert caplog.messages == [f"{path}: ignored the arrays Y, offsets"]
    caplog.clear()
    read(saved(path, X=np.zeros((2, 3)), y=[0, 1]))
    assert not caplog.messages


def test_npz_two_axes_without_labels(tmp_path):
    X, y = read(str(saved(tmp_path / "a.NPZ.npz", X=np.zeros((4, 5)))))
    assert X.shape == (4, 5, 1) and y is None


def test_npz_ragged(tmp_path):
    ragged = Ragged.from_list([[1.0, 2.0], [3.0]])
    path = saved(tmp_path / "a.npz", values=ragged.values, offsets=ragged.offsets, y=[1, 0])
    X, y = read(path)
    assert X.equals(ragged) and y.tolist() == [1, 0]


@pytest.mark.parametrize("zipped", [False, True])
def test_ts(tmp_path, zipped):
    path = tmp_path / ("a.TS.gz" if zipped else "a.ts")
    path.write_bytes(gzip.compress(TS) if zipped else TS)
    X, y = read(path)
    assert X.equals(Ragged.from_list([[[1, 3], [2, 4]], [[5, 6]]])) and y.tolist() == ["a", "b"]


def test_ts_errors_name_file_and_line(tmp_path):
    path = tmp_path / "a.ts"
    path.write_bytes(TS + b"7:8:c\n")
    with pytest.raises(ValueError, match=r"a\.ts, line 5: found the label 'c'"):
        read(path)


@pytest.mark.parametrize(
    "content", [gzip.compress(TS, mtime=0)[:-12], b"plain text", b"\x1f\x8bjunk", b""]
)
def test_damaged_gzip(tmp_path, content):
    path = tmp_path / "a.ts.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.ts\.gz: (not a whole gzip file|the file is empty)"):
        read(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 3))}, "found the arrays x; wanted X"),
        ({"values": np.zeros((2, 3))}, "found the arrays values; wanted X"),
        ({}, "found the arrays none"),
        ({"X": np.zeros(3)}, r"X has shape \[3\]"),
        ({"X": np.array([None, "a"])}, "X is an array of Python objects.* as values=.* offsets="),
        ({"X": np.zeros((2, 3)), "y": np.array([None, "a"])}, "y is an array of Python .*astype"),
        (
            {"X": np.full((1, 1), 1e300)},
            r"X has 1e\+300 at example 0, step 0, feature 0, which overf",
        ),
        ({"X": np.array([["a"]])}, "X has dtype <U1"),
        ({"X": np.zeros((3, 2)), "y": np.zeros(2)}, "X has 3 examples and y has 2 entries"),
        ({"X": np.zeros((3, 2)), "y": np.array(1)}, "X has 3 examples and y has a single value"),
        (
            {"values": np.zeros((3, 1)), "offsets": [0, 9]},
            "Ragged: offsets run from 0 to 9; wanted 0 to 3",
        ),
    ],
)
def test_npz_refuses(tmp_path, arrays, message):
    path = saved(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"a\.npz: {message}"):
        read(path)


def test_what_is_no_archive(tmp_path):
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(
        ValueError, match=r"not an \.npz archive; wanted a file made by numpy\.savez"
    ):
        read(path)


def test_unknown_ending_and_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"a\.csv: unknown kind of file; wanted the ending .npz"):
        read(tmp_path / "a.csv")
    for name in ("a.npz", "a.ts", "a.ts.gz"):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / name)


def _archive(compressed):
    file = io.BytesIO()
    X, y = np.arange(24.0).reshape(4, 3, 2), np.array(["a", "b", "a", "b"])
    (np.savez_compressed if compressed else np.savez)(file, X=X, y=y)
    return file.getvalue()


ARCHIVES = {compressed: _archive(compressed) for compressed in (False, True)}


@draws(300)
@given(st.data())
def test_damage_to_an_archive_is_a_value_error_or_harmless(tmp_path_factory, data):
    """Whatever happens to the bytes, no other exception (and no pickle) comes out."""
    content = bytearray(ARCHIVES[data.draw(st.booleans())])
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(content)
    try:
        read(path)
    except ValueError as problem:
        assert "damaged.npz" in str(problem)
