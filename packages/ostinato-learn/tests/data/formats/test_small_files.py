"""Small files that ask for much time or memory: read in linear time, or refused by a limit."""

from __future__ import annotations

import gzip
import io
import json
import time

import numpy as np
import pytest

from ostinato_learn import data
from ostinato_learn.cli.streams.columns import StreamColumns
from ostinato_learn.data import Examples, Roles, read_examples, stream_examples
from ostinato_learn.data.formats import content
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.data.tables.feature_names import in_order
from ostinato_learn.data.tables.roles import resolve
from ostinato_learn.data.tables.table import Table, Typed

pa = pytest.importorskip("pyarrow")
from pyarrow import feather, parquet  # noqa: E402

SECONDS = 2  # of the processor; linear readers take a twentieth, quadratic ones took 5 and more


class Name(str):
    """A column's name that counts how often it is compared with another one."""

    compared = 0

    def __eq__(self, other):
        Name.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.mark.parametrize(
    "roles",
    [
        {"shape": "wide", "target": "y"},
        {"shape": "long", "id": "id", "task": "classify", "target": "y"},
        {"shape": "long", "id": "id", "task": "forecast", "target": "y", "every": True},
    ],
)
def test_finding_roles_compares_each_name_a_few_times(roles):
    n, roles = 300, dict(roles)
    names = [Name(f"x{i}") for i in range(n)]
    values = {"id": np.array([1, 1, 2]), "y": np.arange(3), **dict.fromkeys(names, np.ones(3))}
    columns = {name: Typed(name, str, column) for name, column in values.items()}
    if roles.pop("every", False):  # each column has each of the roles that a list of columns has
        roles |= dict.fromkeys(("features", "known", "categories"), tuple(names))
    Name.compared = 0
    full = resolve(Roles(**roles), Table("a.csv", "line", np.arange(3), columns))
    assert len(full.features) == n
    assert Name.compared <= 30 * n


def prepared(names):
    X = np.arange(2.0 * len(names)).reshape(1, 2, -1)
    Preparation.fit(Examples(X, features=names)).apply(Examples(X, features=names[::-1]))


class Frame:
    def __init__(self, names):
        self.columns = list(map(str, names))

    def __array__(self, dtype=None, copy=None):
        return np.ones((2, len(self.columns)))


@pytest.mark.parametrize(
    "find",
    [
        prepared,
        lambda names: in_order(Frame(names), names[::-1]),
        lambda names: StreamColumns.named(names, None, names[::-1], len(names)),
    ],
    ids=["a file", "a data frame", "a stream"],
)
def test_columns_of_a_model_are_found_with_few_comparisons(find):
    names = tuple(Name(f"x{i}") for i in range(300))
    Name.compared = 0
    find(names)
    assert Name.compared <= 30 * len(names)


def packed(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def table_of(n):
    return pa.table({f"x{i}": [1.0, 2.0] for i in range(n)})


WIDE = {
    ".csv": lambda n: b",".join(b"x%d" % i for i in range(n)) + 2 * (b"\n1" + b",1" * (n - 1)),
    ".jsonl": lambda n: 2 * (json.dumps({f"x{i}": 1.0 for i in range(n)}) + "\n").encode(),
    ".parquet": lambda n: packed(lambda file: parquet.write_table(table_of(n), file)),
    ".arrow": lambda n: packed(lambda file: feather.write_feather(table_of(n), file)),
}


@pytest.mark.parametrize("read", [read_examples, lambda *given: list(stream_examples(*given))])
@pytest.mark.parametrize("ending", WIDE)
def test_a_table_has_a_limit_of_columns(tmp_path, monkeypatch, ending, read):
    monkeypatch.setattr(content, "MAX_COLUMNS", 20)
    path = tmp_path / f"a{ending}"
    path.write_bytes(WIDE[ending](20))
    assert read(path, Roles(shape="wide"))
    path.write_bytes(WIDE[ending](21))
    with pytest.raises(ValueError, match=r"21 columns; wanted at most 20: write a row for each"):
        read(path, Roles(shape="wide"))


def numbered(n, row):
    return "".join(f"{row(i)}\n" for i in range(n)).encode()


QUICK = {
    "a new key in each row.jsonl": numbered(10_000, lambda i: f'{{"k{i}": 1}}'),
    "a new key in each object.jsonl": (
        '{"x": [' + ", ".join(f'{{"k{i}": 1}}' for i in range(10_000)) + "]}"
    ).encode(),
    "a key twice.jsonl": json.dumps({f"k{i}": 1 for i in range(40_000)}).encode()[:-1]
    + b', "k39999": 2}',
    "empty lists.jsonl": json.dumps({f"k{i}": [] for i in range(10_000)}).encode(),
    "long keys of objects.jsonl": json.dumps(
        {"k" * 100_000: {f"k{i}": 1 for i in range(10_000)}}
    ).encode(),
    "lists in lists.jsonl": b'{"a": ' + b"[" * 400 + b"1" + b"]" * 400 + b"}",
    "digits.csv": b"1" * 30_000 + b"x,y\n1,2\n",
    "one name twice.arrow": packed(
        lambda file: feather.write_feather(
            pa.table([pa.array([1])] * 32_001, [*map(str, range(32_000)), "31999"]), file
        )
    ),
    "lists of objects.parquet": packed(
        lambda file: parquet.write_table(
            pa.table({f"x{i}": [[{"a": 1}]] for i in range(1100)}), file
        )
    ),
    "colons.ts": b"@classLabel true a b\n@data\n" + b"1:" * 100_000 + b"a\n",
}


@pytest.mark.parametrize("name", QUICK)
def test_a_small_file_takes_little_time(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(QUICK[name])
    began = time.process_time()
    try:
        read_examples(path, None if path.suffix == ".ts" else Roles(shape="wide"))
    except ValueError as problem:
        assert str(problem).startswith(str(path))
    assert time.process_time() - began < SECONDS


def zeros(write):
    return packed(lambda file: write(file, np.zeros((1000, 2000))))


BOMBS = {
    "a.npz": packed(lambda file: np.savez_compressed(file, X=np.zeros((1000, 2000)))),
    "a.npy.gz": gzip.compress(zeros(np.save)),
    "a.ts.gz": gzip.compress(b"@data\n" + b"1," * 10**6 + b"1\n"),
    "a.parquet.gz": gzip.compress(b"PAR1" + bytes(10**7)),
    "a-images-idx3-ubyte.gz": gzip.compress(
        b"\0\0\x08\3" + np.array([100, 100, 1000], ">u4").tobytes() + bytes(10**7)
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_unpacks_to_too_much_is_refused_by_every_reader(tmp_path, monkeypatch, name):
    monkeypatch.setattr(content, "MAX_UNPACKED", 1 << 20)
    monkeypatch.setattr("ostinato_learn.data.tables.blocks.CHUNK", 1 << 16)
    path = tmp_path / name
    path.write_bytes(BOMBS[name])
    readers = [read_examples, lambda path: list(stream_examples(path))]
    if name in ("a.npz", "a.ts.gz"):
        readers.append(data.read)
    elif "idx" in name:
        readers.append(data.formats.idx.read_idx)
    for read in readers:
        with pytest.raises(ValueError, match=r"bytes of (gzip|\.npz) unpack to more than 1"):
            read(path)
    with pytest.raises(ValueError, match="unpack to more than"):
        list(stream_examples(io.BytesIO(BOMBS[name]), name=name))


@pytest.mark.parametrize("write", [pa.ipc.new_file, pa.ipc.new_stream])
def test_packed_batches_are_read_as_long_as_there_is_memory(tmp_path, monkeypatch, write):
    path = tmp_path / "a.arrow"
    batch = pa.record_batch({"x": np.zeros(10**5)})
    packed = pa.ipc.IpcWriteOptions(compression="zstd")
    with write(str(path), batch.schema, options=packed) as writer:
        for _ in range(20):
            writer.write_batch(batch)
    assert path.stat().st_size < batch.nbytes / 10
    monkeypatch.setattr("os.sysconf", lambda name: 1024)  # pages, and bytes of a page
    with pytest.raises(ValueError, match="GB as arrays; this machine has"):
        read_examples(path, Roles(shape="wide"))


def test_keys_that_some_lines_lack_are_no_bomb(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(numbered(300, lambda i: json.dumps({"y": i % 2, f"k{i}": 1})))
    assert read_examples(path, Roles(shape="wide", target="y", features=("k7",))).X.shape[0] == 300
