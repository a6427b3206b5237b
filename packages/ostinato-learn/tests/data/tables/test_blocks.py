"""Blocks of a table hold together what the whole table holds."""

from __future__ import annotations

import gzip
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato_learn.data import Roles, read_examples, stream_examples
from ostinato_learn.data.tables import blocks
from zoo.suites import draws

pa = pytest.importorskip("pyarrow")
from pyarrow import ipc, parquet  # noqa: E402

LONG = Roles(id="id", time="t", features=("x", "kind"), target="note", task="tag")


class Pipe(io.RawIOBase):
    """As standard input: bytes come as they come, and nothing comes twice."""

    def __init__(self, content, size=7):
        self._file, self._size = io.BytesIO(content), size

    def readable(self):
        return True

    def seekable(self):
        return False

    def read(self, n=-1):
        return self._file.read(self._size if 0 <= n < self._size else n)


def rows_of(lengths):
    return [
        {"id": f"s{i}", "t": t, "x": i + t / 7, "kind": "uv"[(i + t) % 2], "note": f"a\n{t}, b"}
        for i, length in enumerate(lengths)
        for t in range(length)
    ]


def csv_of(rows, ends="\n"):
    lines = [",".join(rows[0])]
    for row in rows:
        note = row["note"].replace("\n", ends)
        lines.append(f'{row["id"]},{row["t"]},{row["x"]!r},{row["kind"]},"{note}"')
    return ends.join(lines).encode()


def contents(rows):
    """Name → content of files with these rows."""
    table = pa.Table.from_pylist(rows)
    packed, streamed = io.BytesIO(), io.BytesIO()
    parquet.write_table(table, packed, row_group_size=3)
    with ipc.new_stream(streamed, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=2):
            writer.write_batch(batch)
    found = {
        "a.csv": csv_of(rows) + b"\n\n",
        "windows.csv": b"\xef\xbb\xbf" + csv_of(rows, "\r\n"),
        "a.jsonl": "\n".join(json.dumps(row) for row in rows).encode(),
        "a.parquet": packed.getvalue(),
        "a.arrow": streamed.getvalue(),
    }
    return found | {f"{name}.gz": gzip.compress(content) for name, content in found.items()}


def bits(parts):
    """All examples, one after another, as plain values."""
    values = b"".join(part.values[:, 0].tobytes() for part in parts)
    kinds = [
        part.categories["kind"][int(code)] for part in parts for code in part.values[:, 1].tolist()
    ]
    ids = [one for part in parts for one in part.ids.tolist()]
    lengths = [n for part in parts for n in part.lengths.tolist()]
    tags = [tags.tolist() for part in parts for tags in part.y]
    times = [time.tolist() for part in parts for time in part.times]
    places = [
        part.place(row, 0).split(", ", 1)[1] for part in parts for row in range(len(part.values))
    ]
    return values, kinds, ids, lengths, tags, times, places


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(1, 300), st.integers(1, 4))
@draws(15)
def test_blocks_are_the_whole_in_parts(lengths, block, rows_of_block):
    rows = rows_of(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        patch.setattr(blocks, "ROWS", rows_of_block)
        for name, content in contents(rows).items():
            content = content.replace(b"a\r\n", b"a\n") if name == "windows.csv" else content
            file = Pipe(content) if block % 2 else io.BytesIO(content)
            parts = list(stream_examples(file, LONG, name=name))
            wanted = rows_of(lengths)
            assert [n for part in parts for n in part.lengths.tolist()] == lengths, name
            found = bits(parts)
            assert found[0] == np.array([row["x"] for row in wanted], np.float32).tobytes()
            assert found[1] == [row["kind"] for row in wanted]


@pytest.mark.parametrize("block", [20, 64, 200, 1 << 20])
def test_blocks_give_the_same_as_the_whole_file(tmp_path, monkeypatch, block):
    monkeypatch.setattr(blocks, "BLOCK", block)
    monkeypatch.setattr(blocks, "ROWS", max(1, block // 50))
    for name, content in contents(rows_of([3, 1, 4, 1, 5, 9, 2, 6])).items():
        path = tmp_path / name
        path.write_bytes(content)
        wanted = bits([read_examples(path, LONG)])
        parts = list(stream_examples(path, LONG))
        assert bits(parts) == wanted, name
        assert len(parts) == 1 if block > 10_000 else len(parts) > 2, name


def test_rows_without_an_id_are_numbered_on(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 16)
    text = "label,a,b\n" + "".join(f"u,{i},{i}\n" for i in range(20))
    parts = list(stream_examples(io.BytesIO(text.encode()), Roles("wide", features=("b", "a"))))
    assert np.concatenate([part.ids for part in parts]).tolist() == list(range(1, 21))
    assert len(parts) > 3


def test_what_is_found_out_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(blocks, "BLOCK", 16)
    text = "label,s0,s1\n" + "".join(f"u,{i},{i}\n" for i in range(20))
    assert sum(len(part) for part in stream_examples(io.BytesIO(text.encode()))) == 20
    assert len(caplog.messages) == 1


def test_a_key_that_no_line_of_a_block_has(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 16)
    text = '{"id": 1, "x": [1.0], "who": "u"}\n' + "".join(
        f'{{"id": {i}, "x": [1.0]}}\n' for i in range(2, 9)
    )
    roles = Roles("nested", "id", features=("x",), static=("who",))
    parts = list(stream_examples(io.BytesIO(text.encode()), roles))
    assert len(parts) > 3 and parts[0].statics["who"].tolist() == ["u"]
    assert np.isnan(parts[-1].statics["who"]).all()


HEADER = "id,t,x,kind,note\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            HEADER + "a,1,1,u,n\nb,1,1,u,n\nc,1,1,u,n\na,2,1,u,n\nd,1,1,u,n\n",
            "f.csv, line 5: the id 'a' comes back after other ids",
        ),
        (HEADER + "a,1,1,u,n\nb,1,1,u,n\nc,1,1,u\n", "f.csv, line 4: column 'note' is missing"),
        (HEADER + "a,1,1,u,n\nb,1,1,u,n\n\nc,1,1,u,n\n", "f.csv, line 4: an empty line"),
        (
            HEADER + 'a,1,1,u,n\nb,1,1,u,n\nc,1,1,u,"n\nd,1,1,u,n\n',
            "line 4, column 'note': .* quote",
        ),
        (
            HEADER + "a,1,1,u,n\nb,1,1,u,n\nc,1,inf,u,n\n",
            "line 4, column 'x': the value is infinite",
        ),
        (HEADER + "a,1,1,u,n\nb,1,1,u,n\nc,1,1,\ud800,n\n", "line 4: byte 7 is 0xed"),
        (HEADER + "a,1,1,u,n\nb,2,1,u,n\nb,1,1,u,n\n", "line 4, column 't': the time 1 follows 2"),
        (HEADER, "a header and no rows"),
        ("", "f.csv: the file is empty"),
        (HEADER.replace("x", "y") + "a,1,1,u,n\n", "there is no column 'x'"),
    ],
)
def test_errors_name_the_line_of_the_file(monkeypatch, text, wanted):
    monkeypatch.setattr(blocks, "BLOCK", 24)
    file = io.BytesIO(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=wanted):
        list(stream_examples(file, LONG, name="f.csv"))


@pytest.mark.parametrize("block", range(18, 60))
def test_an_empty_line_is_refused_wherever_a_block_ends(monkeypatch, block):
    monkeypatch.setattr(blocks, "BLOCK", block)
    text = HEADER + "a,1,1,u,n\nb,1,1,u,n\n\n\nc,1,1,u,n\nd,1,1,u,n\n"
    for roles in (LONG, Roles("wide", features=("t", "x"))):  # rows are put back, or are not
        with pytest.raises(ValueError, match=r"f\.csv, line 4: an empty line"):
            list(stream_examples(io.BytesIO(text.encode()), roles, name="f.csv"))


def test_what_a_stream_refuses(tmp_path):
    with pytest.raises(ValueError, match="sorted in the memory"):
        list(stream_examples(io.BytesIO(b""), Roles(sort=True)))
    content = gzip.compress(csv_of(rows_of([50])))[:-20]
    with pytest.raises(ValueError, match=r"f\.csv: not a whole gzip file"):
        list(stream_examples(Pipe(content), LONG, name="f.csv"))
    with pytest.raises(ValueError, match=r"f\.parquet"):
        list(stream_examples(io.BytesIO(b"PAR1 nothing"), LONG, name="f.parquet"))
    with pytest.raises(FileNotFoundError):
        list(stream_examples(tmp_path / "none.csv", LONG))


def test_few_rows_of_long_lists_are_a_block(tmp_path, monkeypatch):
    """Rows of a Parquet file are counted by their bytes: 4 KB each here."""
    monkeypatch.setattr(blocks, "BLOCK", 1 << 15)
    lists = [np.full(1000, i, np.float32) for i in range(60)]
    table = pa.table({"x": lists, "y": [i % 2 for i in range(60)]})
    parquet.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    roles = Roles("nested", features=("x",), target="y", task="classify")
    parts = list(stream_examples(tmp_path / "a.parquet", roles))
    assert sum(map(len, parts)) == 60
    assert max(map(len, parts)) <= 2 * (1 << 15) // 4000


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_single_series_that_the_memory_cannot_hold_is_refused(tmp_path, monkeypatch, name):
    table = pa.table({"time": range(20_000), "y": np.arange(20_000) / 7})
    if name == "a.csv":
        lines = [f"{t},{t / 7!r}" for t in range(20_000)]
        (tmp_path / name).write_text("\n".join(["time,y", *lines]))
    else:
        parquet.write_table(table, tmp_path / name)
    roles = Roles("long", time="time", target="y", task="forecast")
    monkeypatch.setattr(blocks, "BLOCK", 1 << 12)
    (whole,) = stream_examples(tmp_path / name, roles)
    assert len(whole) == 1 and len(whole.y[0]) == 20_000
    monkeypatch.setattr(blocks.environment, "memory", lambda: 8 * (1 << 17))
    with pytest.raises(ValueError, match=r"a\.\w+: a single sequence fills more than .* \(--id\)"):
        list(stream_examples(tmp_path / name, roles))
