"""The same data give the same bits from every format, packed or not, in every shape."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato_learn.data import Roles, read_examples
from ostinato_learn.data.formats.arrow import parse_arrow, parse_parquet
from ostinato_learn.data.tables.read_examples import parse_examples
from zoo.suites import draws

pa = pytest.importorskip("pyarrow")
from pyarrow import feather, ipc, parquet  # noqa: E402

LONG = Roles(id="who", time="t", features=("a", "b"), target="label", task="classify")
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=5)


@st.composite
def tables(draw):
    """Rows of a long table: who, t, a, b, label; b may be missing."""
    names = draw(st.lists(TEXTS.map("n{}".format), min_size=1, max_size=4, unique=True))
    labels = draw(
        st.sampled_from([["up", "down"], [3, -7], [2**40, 0], [0.5, 1.5], ['say "a"', "b, c"]])
    )
    numbers = st.floats(-1e38, 1e38) | st.integers(-(2**60), 2**60).map(float)
    rows = []
    for i, name in enumerate(names):
        for t in range(draw(st.integers(1, 3))):
            b = draw(st.none() | st.floats(-1e3, 1e3, width=32))
            rows.append({"who": name, "t": t, "a": draw(numbers), "b": b, "label": labels[i % 2]})
    return rows


def nested(rows):
    """The same rows, a row for each sequence."""
    found = {}
    for row in rows:
        one = found.setdefault(row["who"], {"who": row["who"], "t": [], "a": [], "b": []})
        for name in "tab":
            one[name].append(row[name])
        one["label"] = row["label"]
    return list(found.values())


def write_csv(path, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_all(folder, rows):
    """Files of all formats with these rows."""
    write_csv(folder / "a.csv", rows)
    write_csv(folder / "a.tsv", rows, "\t")
    windows = (folder / "a.csv").read_bytes()
    (folder / "windows.csv").write_bytes(b"\xef\xbb\xbf" + windows)  # its lines end with \r\n
    for shape, content in (("long", rows), ("nested", nested(rows))):
        lines = "\n".join(json.dumps(row) for row in content)
        (folder / f"{shape}.jsonl").write_text(lines)
        table = pa.Table.from_pylist(content)
        parquet.write_table(table, folder / f"{shape}.parquet", row_group_size=2)
        feather.write_feather(table, str(folder / f"{shape}.feather"), compression="zstd")
        with ipc.new_stream(str(folder / f"{shape}.arrow"), table.schema) as stream:
            stream.write_table(table)
    for path in list(folder.iterdir()):
        folder.joinpath(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    return sorted(folder.iterdir())


def bits(examples):
    """All that belongs to examples, as bytes and plain values."""
    times = [time.tolist() for time in examples.times]
    kind = examples.y.dtype.kind
    return examples.values.tobytes(), examples.lengths.tolist(), kind, examples.y.tolist(), times


@given(tables())
@draws(20)
def test_the_same_bits_from_every_format(rows):
    wanted_a = np.array([row["a"] for row in rows]).astype(np.float32)
    wanted_b = np.array([np.nan if row["b"] is None else row["b"] for row in rows], np.float32)
    with tempfile.TemporaryDirectory() as folder:
        found = {path.name: read_examples(path, LONG) for path in write_all(Path(folder), rows)}
    assert len(found) == 22
    first = found["a.csv"]
    assert first.values[:, 0].tobytes() == wanted_a.tobytes()
    assert np.array_equal(first.values[:, 1], wanted_b, equal_nan=True)
    assert first.y.tolist() == list({row["who"]: row["label"] for row in rows}.values())
    assert first.ids.tolist() == list(dict.fromkeys(row["who"] for row in rows))
    for name, examples in found.items():
        assert bits(examples) == bits(first), name
        assert examples.ids.tolist() == first.ids.tolist(), name


@given(
    st.lists(
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3
        ),
        min_size=1,
        max_size=4,
    )
)
@draws(20)
def test_wide_tables_and_arrays_give_the_same_bits(values):
    X = np.array(values, np.float32)
    y = np.arange(len(X)) % 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [
            {"label": int(label), **{f"t{i}": float(v) for i, v in enumerate(row)}}
            for label, row in zip(y, X, strict=True)
        ]
        write_csv(folder / "a.csv", rows)
        parquet.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
        np.savez(folder / "a.npz", X=X, y=y)
        np.save(folder / "a.npy", X)
        series = [
            f"{','.join(map(str, row.tolist()))}:{label}" for row, label in zip(X, y, strict=True)
        ]
        header = ["@classLabel true 0 1", "@data"]
        (folder / "a.ts").write_text("\n".join(header + series))
        (folder / "b.npz.gz").write_bytes(gzip.compress((folder / "a.npz").read_bytes()))
        tables = [
            read_examples(folder / name, Roles(shape="wide", target="label"))
            for name in ("a.csv", "a.parquet")
        ]
        arrays = [read_examples(folder / name) for name in ("a.npz", "a.ts", "b.npz.gz", "a.npy")]
    for examples in tables + arrays:
        assert examples.X.tobytes() == X.tobytes()
        assert examples.X.shape == (len(X), 3, 1)
    for examples in tables + arrays[:3]:
        assert examples.y.astype(int).tolist() == y.tolist()
    assert arrays[-1].y is None


def test_content_without_a_name_tells_its_kind(tmp_path):
    rows = [{"who": "p", "t": t, "a": t / 7, "b": None, "label": "up"} for t in range(3)]
    paths = [path for path in write_all(tmp_path, rows) if path.suffix not in (".gz", ".tsv")]
    wanted = bits(read_examples(tmp_path / "a.csv", LONG))
    for path in paths:
        assert bits(parse_examples(path.read_bytes(), "standard input", LONG)) == wanted, path.name
    np.savez(tmp_path / "a.npz", X=np.zeros((2, 3)))
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    (tmp_path / "a.ts").write_text("@data\n1,2,3\n4,5,6\n")
    for name in ("a.npz", "a.npy", "a.ts"):
        examples = parse_examples((tmp_path / name).read_bytes(), "standard input")
        assert examples.X.shape == (2, 3, 1)


def test_dates_are_the_same_from_text_and_from_arrow(tmp_path):
    dates = ["2024-01-31", "2024-02-01 23:59:00", "2024-02-02T00:00:00.5"]
    write_csv(tmp_path / "a.csv", [{"t": date, "x": 1} for date in dates])
    stamps = np.array(dates, "datetime64[ns]")
    parquet.write_table(pa.table({"t": stamps, "x": [1, 1, 1]}), tmp_path / "a.parquet")
    zoned = pa.array(stamps, pa.timestamp("us", "Europe/Berlin"))
    parquet.write_table(pa.table({"t": zoned, "x": [1, 1, 1]}), tmp_path / "b.parquet")
    write_csv(tmp_path / "b.csv", [{"t": "2024-01-31T02:00:00+02:00", "x": 1}])
    for name in ("a.csv", "a.parquet", "b.parquet"):
        examples = read_examples(tmp_path / name, Roles(time="t", target="x", task="forecast"))
        assert examples.times[0].tolist() == stamps.tolist(), name
    examples = read_examples(tmp_path / "b.csv", Roles(time="t", target="x", task="forecast"))
    assert examples.times[0].tolist() == stamps[:1].tolist()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2024/01/31", "2024-01-31"),
        ("2024/01/31 08:15", "2024-01-31T08:15"),
        ("2024-01-31 08:15:00 UTC", "2024-01-31T08:15"),
        ("2024-01-31 08:15:00.5Z", "2024-01-31T08:15:00.5"),
        ("2024-01-31 08:15:00 +02:00", "2024-01-31T06:15"),
        ("2024-01-31T08:15:00-0330", "2024-01-31T11:45"),
    ],
)
def test_dates_that_can_be_read_in_one_way(tmp_path, text, wanted):
    write_csv(tmp_path / "a.csv", [{"t": text, "x": 1}])
    examples = read_examples(tmp_path / "a.csv", Roles(time="t", target="x", task="forecast"))
    assert examples.times[0][0] == np.datetime64(wanted, "ns")


@pytest.mark.parametrize(
    ("kind", "values", "wanted"),
    [
        ("int8", [1, 2, 3], [1, 2, 3]),
        ("uint64", [1, 2, 2**63], [1, 2, 2**63]),
        ("int32", [1, None, 3], [1, np.nan, 3]),
        ("float16", [0.5, 2, None], [0.5, 2, np.nan]),
        ("bool", [True, False, True], [1, 0, 1]),
        ("bool", [True, None, True], [1, np.nan, 1]),
        ("decimal128(9, 2)", ["1.25", "2.00", "-3.75"], [1.25, 2, -3.75]),
        ("null", [None, None, None], [np.nan] * 3),
    ],
)
def test_types_of_arrow(tmp_path, kind, values, wanted):
    import decimal

    if kind.startswith("decimal"):
        column = pa.array([decimal.Decimal(value) for value in values], pa.decimal128(9, 2))
    elif kind == "float16":
        column = pa.array([v if v is None else np.float16(v) for v in values], pa.float16())
    else:
        column = pa.array(values, getattr(pa, {"bool": "bool_"}.get(kind, kind))())
    parquet.write_table(pa.table({"x": column, "y": [1, 2, 3]}), tmp_path / "a.parquet")
    roles = Roles(shape="long", features=("x",), target="y", task="tag")
    found = read_examples(tmp_path / "a.parquet", roles).values[:, 0]
    assert np.array_equal(found, np.array(wanted, np.float32), equal_nan=True)


def test_labels_mean_the_same_in_text_and_typed(tmp_path):
    """1 and 1.0 are one label, "007" is a name, true is a truth value."""
    columns = {
        "whole": (["1", "1.0", "2"], [1.0, 1.0, 2.0], [1, 1, 2]),
        "names": (["007", "7", "8"], ["007", "7", "8"], ["007", "7", "8"]),
        "truth": (["true", "False", "TRUE"], [True, False, True], [True, False, True]),
        "mixed": (["NA", "1", "b"], ["NA", "1", "b"], ["NA", "1", "b"]),
    }
    write_csv(
        tmp_path / "a.csv",
        [{"x": 1, **{name: column[0][i] for name, column in columns.items()}} for i in range(3)],
    )
    typed = {name: column[1] for name, column in columns.items()}
    parquet.write_table(pa.table({"x": [1, 1, 1], **typed}), tmp_path / "a.parquet")
    for path in (tmp_path / "a.csv", tmp_path / "a.parquet"):
        for name, (_, _, wanted) in columns.items():
            roles = Roles(shape="wide", features=("x",), target=name)
            found = read_examples(path, roles).y
            assert found.tolist() == wanted, (path.name, name)
            assert type(found.tolist()[0]) is type(wanted[0])


def test_further_arrays_of_an_npz_file(tmp_path, caplog):
    path = tmp_path / "a.npz"
    further = {"name": ["a", "b", "c"], "who": [1, 1, 2], "part": ["Train", "val", "test"]}
    np.savez(path, X=np.zeros((3, 4, 2)), y=np.arange(3), **further)
    examples = read_examples(path, Roles(id="name", group="who", split="part"))
    assert examples.ids.tolist() == ["a", "b", "c"] and examples.groups.tolist() == [1, 1, 2]
    assert examples.parts.tolist() == ["train", "validation", "test"] and not caplog.messages
    for roles, wanted in [
        (Roles(id="nam"), r"a\.npz: there is no array 'nam'; the arrays are X, y, name, who, part"),
        (Roles(id="who"), r"a\.npz: the id 1 is that of 2 examples, first of example 0"),
        (Roles(split="name"), r"a\.npz: example 0: 'a' is not a part: wanted train"),
        (Roles(group="X"), r"a\.npz: X has shape \[3, 4, 2\]; wanted \[3\]"),
        (Roles(features=("X",)), "a file of arrays has none"),
    ]:
        with pytest.raises(ValueError, match=wanted):
            read_examples(path, roles)


@pytest.mark.parametrize("kind", ["parquet", "feather", "stream"])
def test_arrow_keeps_nothing_of_pythons_memory(monkeypatch, kind):
    """Its threads may free the input when the interpreter ends, and abort if it is Python's."""
    table, file = pa.table({"x": np.arange(1000.0), "y": ["a"] * 1000}), io.BytesIO()
    if kind == "parquet":
        parquet.write_table(table, file)
    elif kind == "feather":
        feather.write_feather(table, file)
    else:
        with ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    content, kept, reader = file.getvalue(), [], pa.BufferReader

    def keep(source):
        kept.append(reader(source))
        return kept[-1]

    monkeypatch.setattr(pa, "BufferReader", keep)
    before = sys.getrefcount(content)
    parse = parse_parquet if kind == "parquet" else parse_arrow
    assert parse(content, "inline")["x"].numbers().tolist() == list(range(1000))
    assert kept
    assert sys.getrefcount(content) == before
