"""The data sets that come with the package, and the check of their files."""

import hashlib
import sys

import numpy as np
import pytest

from ostinato_learn import datasets
from ostinato_learn.data import Ragged
from ostinato_learn.datasets import integrity
from ostinato_learn.datasets.integrity import FILES, SHA256, shipped
from ostinato_learn.datasets.mnist import permutation

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows():
    return datasets.mnist()


def test_mnist_shapes_and_values(rows):
    for (X, y), n in zip(rows, (60_000, 10_000), strict=True):
        assert X.shape == (n, 28, 28) and X.dtype == np.float32 and X.flags.c_contiguous
        assert X.min() == 0.0 and X.max() == 1.0
        assert y.shape == (n,) and y.dtype == np.int64
    assert np.bincount(rows.train.y).tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]
    assert rows.test.y[:8].tolist() == [7, 2, 1, 0, 4, 1, 4, 9]
    assert rows.train.X.mean() == pytest.approx(0.1307, abs=5e-5)  # the mean everyone knows
    np.testing.assert_array_equal(np.rint(rows.test.X * 255) / np.float32(255), rows.test.X)


@pytest.mark.parametrize("as_sequence", ["columns", "pixels", "permuted"])
def test_mnist_readings_rearrange_the_rows(rows, as_sequence):
    rearranged = {
        "columns": lambda images: images.swapaxes(1, 2),
        "pixels": lambda images: images.reshape(len(images), 784, 1),
        "permuted": lambda images: images.reshape(len(images), 784)[:, permutation(), None],
    }[as_sequence]
    got = datasets.mnist(as_sequence)
    for part, plain in zip(got, rows, strict=True):
        assert part.X.flags.c_contiguous and part.X.dtype == np.float32
        np.testing.assert_array_equal(part.X, rearranged(plain.X))
        np.testing.assert_array_equal(part.y, plain.y)


def test_the_permutation_never_changes():
    order = permutation()
    assert sorted(order) == list(range(784))
    digest = hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()
    assert digest == "96240fe27409981c3ed3e92c20d995f7103a94c2282307bc776923030113be74"


def test_mnist_refuses_unknown_readings():
    with pytest.raises(ValueError, match="'diagonal'; wanted one of rows, columns, pixels, perm"):
        datasets.mnist("diagonal")


def test_vowels():
    train, test = datasets.vowels()
    for (X, y), n, longest in ((train, 270, 26), (test, 370, 29)):
        assert isinstance(X, Ragged) and len(X) == len(y) == n and X.n_features == 12
        assert (X.lengths.min(), X.max_length) == (7, longest)
        assert np.isfinite(X.values).all()
        assert y.dtype == np.int64
    assert np.bincount(train.y).tolist() == [0] + [30] * 9
    assert np.bincount(test.y).tolist() == [0, 31, 35, 88, 44, 29, 24, 40, 50, 29]
    np.testing.assert_allclose(train.X[0][:2, 0], [1.860936, 1.891651], rtol=1e-6)
    np.testing.assert_allclose(train.X[0][0, :3], [1.860936, -0.207383, 0.261557], rtol=1e-6)


def test_austen():
    novels = datasets.austen()
    assert list(novels) == [
        "Sense and Sensibility",
        "Pride and Prejudice",
        "Mansfield Park",
        "Emma",
        "Northanger Abbey",
        "Persuasion",
    ]
    for title, text in novels.items():
        assert text.lower().startswith(title.lower()) and len(text) > 400_000 and "\r" not in text
    assert "Emma Woodhouse, handsome, clever, and rich" in novels["Emma"]
    assert sum(map(len, novels.values())) == 4_025_028


def test_every_shipped_file_has_a_digest_and_the_other_way_round():
    found = {path.relative_to(FILES).as_posix() for path in FILES.rglob("*") if path.is_file()}
    assert found == set(SHA256)
    for name in found:
        shipped(name)


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("mnist/t10k-labels-idx1-ubyte.gz", datasets.mnist),
        ("vowels/JapaneseVowels_TEST.ts.gz", datasets.vowels),
        ("austen/persuasion.txt.gz", datasets.austen),
    ],
)
def test_a_damaged_file_is_named(tmp_path, monkeypatch, name, load):
    for other in SHA256:
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).symlink_to(FILES / other)
    monkeypatch.setattr(integrity, "FILES", tmp_path)
    load()
    content = bytearray((FILES / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match=f"{name} is damaged: .* reinstall ostinato"):
        load()
    (tmp_path / name).unlink()
    with pytest.raises(OSError, match=f"{name} is missing; reinstall ostinato"):
        load()


@pytest.mark.process
def test_no_torch_is_needed():
    import subprocess

    code = (
        "import sys; from ostinato_learn import data, datasets; X, y = datasets.vowels().train; "
        "data.Batches(X, y, 8).next_batch(); data.as_sequences(X); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
