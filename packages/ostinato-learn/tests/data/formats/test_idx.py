import gzip
import struct
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ostinato_learn.datasets import read_idx
from zoo.suites import draws

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def header(code, *sizes):
    return bytes([0, 0, code, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)


def written(array):
    code = CODES[array.dtype.str[1:]]
    return header(code, *array.shape) + array.astype(array.dtype.newbyteorder(">")).tobytes()


@draws()
@given(
    st.sampled_from(sorted(CODES)).flatmap(
        lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
    ),
    st.booleans(),
)
def test_round_trip(array, zipped):
    content = written(array)
    result = read_idx(gzip.compress(content) if zipped else content)
    assert result.dtype == array.dtype and result.dtype.isnative and result.flags.writeable
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("zipped", [False, True])
def test_from_a_path(tmp_path, zipped):
    array = np.arange(6, dtype=np.int16).reshape(2, 3) - 3
    path = tmp_path / "numbers"  # the content says what the file is, not its name
    path.write_bytes(gzip.compress(written(array)) if zipped else written(array))
    for source in (path, str(path)):
        np.testing.assert_array_equal(read_idx(source), array)


IMAGES = written(np.zeros((2, 28, 28), np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated: wanted 4 bytes of magic number, found 0"),
        (IMAGES[:3], "truncated: wanted 4 bytes of magic number, found 3"),
        (IMAGES[:11], "truncated: wanted 12 bytes of axis sizes, found 7"),
        (IMAGES[:-1], r"truncated: wanted 1568 bytes .*\(2×28×28 values of 1 bytes\), found 1567"),
        (IMAGES[:16], "truncated: wanted 1568 bytes after the header .* found 0"),
        (IMAGES + b"\0", "oversized: wanted 1568 bytes after the header .* found 1569"),
        (b"\x89PNG\r\n", r"not an IDX file: it begins with the bytes 89 50 4e 47; wanted 00 00"),
        (b"\0\0\x0a\1\0\0\0\0", "not an IDX file: it begins with the bytes 00 00 0a 01"),
        (b"\0\0\x08\xff" + bytes(255 * 4), "the header promises 255 axes; wanted at most 32"),
        (gzip.compress(IMAGES, mtime=0)[:-9], "not a whole gzip file"),
        (b"\x1f\x8b\x08junk and more junk", "not a whole gzip file"),
    ],
)
def test_refuses(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"^IDX data: .*{message}"):
        read_idx(content)
    path = tmp_path / "given.idx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"given.idx: .*{message}"):
        read_idx(path)


@contextmanager
def little_memory():
    """Asserts that what a header promises is not allocated."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("zipped", [False, True])
def test_an_absurd_header_allocates_nothing(zipped):
    content = header(0x0E, *[2**32 - 1] * 4) + bytes(100)
    content = gzip.compress(content) if zipped else content
    with little_memory(), pytest.raises(ValueError, match=r"wanted \d{40} bytes .* found 100"):
        read_idx(content)


def test_empty_axes_beside_absurd_ones():
    with pytest.raises(ValueError, match="IDX data: NumPy cannot hold the shape 0×429"):
        read_idx(header(0x08, 0, *[2**32 - 1] * 4))


@draws(300)
@given(
    st.binary(max_size=40), st.sampled_from([b"", b"\0\0", b"\0\0\x08\1\0\0\0", b"\x1f\x8b\x08"])
)
def test_any_bytes_give_an_array_or_a_value_error(tail, head):
    try:
        assert isinstance(read_idx(head + tail), np.ndarray)
    except ValueError as problem:
        assert str(problem).startswith("IDX data: ")


def test_a_missing_file():
    with pytest.raises(FileNotFoundError):
        read_idx("no/such/file")
