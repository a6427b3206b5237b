"""IDX files as a user's own: sequences, and their labels beside them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from ostinato_learn.cli import main
from ostinato_learn.data import read_examples
from shared.reports import draw_by, label_alone


def write(path: Path, array: np.ndarray) -> Path:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def images(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    y = np.arange(n) % 2
    return generator.integers(0, 100, (n, 5, 4)) + 100 * y[:, None, None], y


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_labels_are_found_beside_the_images(tmp_path, ending):
    X, y = images()
    file = write(tmp_path / f"train-images-idx3-ubyte{ending}", X)
    assert read_examples(file).y is None
    write(tmp_path / f"train-labels-idx1-ubyte{ending}", y)
    examples = read_examples(file)
    assert np.array_equal(examples.X, X.astype(np.float32)) and np.array_equal(examples.y, y)


def test_axes_beyond_the_second_are_features(tmp_path):
    assert read_examples(write(tmp_path / "a.idx", np.zeros((3, 4, 5, 2)))).X.shape == (3, 4, 10)
    assert read_examples(write(tmp_path / "b.idx", np.zeros((3, 4)))).X.shape == (3, 4, 1)


@pytest.mark.parametrize(
    ("shapes", "wanted"),
    [(((7,),), "1 axes; wanted"), (((3, 4, 2), (2,)), r"labels of shape \[2\]; wanted \[3\]")],
)
def test_what_does_not_fit_is_named(tmp_path, shapes, wanted):
    file = write(tmp_path / "x-images-idx3-ubyte", np.zeros(shapes[0]))
    if len(shapes) > 1:
        write(tmp_path / "x-labels-idx1-ubyte", np.zeros(shapes[1]))
    with pytest.raises(ValueError, match=wanted):
        read_examples(file)


def test_a_damaged_file_is_named(tmp_path):
    file = write(tmp_path / "x-images-idx3-ubyte.gz", images()[0])
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-3]))
    with pytest.raises(ValueError, match=r"x-images-idx3-ubyte\.gz: the file is truncated"):
        read_examples(file)


def test_the_command_line_learns_from_them(tmp_path, capsys, monkeypatch):
    draw_by(monkeypatch, label_alone)
    X, y = images(80)
    file = write(tmp_path / "train-images-idx3-ubyte.gz", X)
    write(tmp_path / "train-labels-idx1-ubyte.gz", y)
    flags = ("--iterations", "60", "--hidden-size", "8", "--quiet", "--standardize")
    assert main(["train", str(file), "--output", str(tmp_path / "run"), *flags]) == 0
    assert "100.00 %" in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "run"), str(file)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 81
