"""Files with random damage: each is read, or refused with a `ValueError` that names the file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random

import numpy as np
import pytest

from ostinato_learn.data import Preparation, Roles, read_examples, stream_examples

pa = pytest.importorskip("pyarrow")
from pyarrow import feather, ipc, parquet  # noqa: E402

LONG = Roles(id="id", time="t", features=("x", "kind"), target="y", task="classify")
ROWS = [
    {"id": f"p{i // 3}", "t": i % 3, "x": i / 7, "kind": "uv"[i % 2], "y": "ab"[i // 3 % 2]}
    for i in range(12)
]
SNIPPETS = [
    b",", b"\n", b'"', b"\r", b"\t", b"\0", b"\xff", b"1e999", b"nan", b"[", b"}", b"null", b"(",
    b":", b"9" * 400, b"true", "é".encode(), b"\xef\xbb\xbf", b" ",
]  # fmt: skip


def in_memory(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def whole_files():
    """Name → content, and the roles of its columns."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(ROWS[0]), quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows(ROWS)
    table = pa.Table.from_pylist(ROWS)

    def stream(file):
        with ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)

    tables = {
        "a.csv": text.getvalue().encode(),
        "a.jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
        "a.parquet": in_memory(lambda file: parquet.write_table(table, file)),
        "a.feather": in_memory(lambda file: feather.write_feather(table, file)),
        "a.arrow": in_memory(stream),
    }
    tables |= {f"{name}.gz": gzip.compress(content) for name, content in tables.items()}
    X, y = np.ones((3, 4, 2)), np.arange(3)
    arrays = {
        "a.npz": in_memory(lambda file: np.savez_compressed(file, X=X, y=y)),
        "a.npy": in_memory(lambda file: np.save(file, X)),
        "a.ts": b"@timestamps false\n@classLabel true a b\n@data\n0.5,1,2:a\n3,?,5:b\n",
    }
    return [(*pair, LONG) for pair in tables.items()] + [(*pair, None) for pair in arrays.items()]


def damaged(content, choose):
    """Some bytes changed, left out, put in or doubled; or the end cut off."""
    content = bytearray(content)
    for _ in range(choose.choice([1, 1, 2, 5])):
        at = choose.randrange(len(content) + 1)
        end = at + choose.randrange(1, 20)
        match choose.randrange(5):
            case 0:
                content[at : at + 1] = bytes([choose.randrange(256)])
            case 1:
                del content[at:end]
            case 2:
                content[at:at] = choose.choice(SNIPPETS)
            case 3:
                content[at:at] = content[end : end + 30]
            case 4:
                del content[-choose.randrange(1, 30) :]
    return bytes(content)


@pytest.mark.parametrize("name", [name for name, _, _ in whole_files()])
def test_damage(tmp_path, name):
    choose = random.Random(name)
    content, roles = next((c, r) for n, c, r in whole_files() if n == name)
    path = tmp_path / name
    for _ in range(40):
        path.write_bytes(damaged(content, choose))
        for read in (lambda *given: [read_examples(*given)], stream_examples):
            try:
                for part in read(path, roles):
                    Preparation.fit(part, missing="mask").apply(part)
            except ValueError as error:
                assert str(error).startswith(str(path))
    assert list(tmp_path.iterdir()) == [path]
