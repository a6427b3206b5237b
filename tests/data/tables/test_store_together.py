"""What several processes store together is, in each of them, what one process stores."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from ostinato.data import Preparation, Roles, store_examples, stream_examples
from ostinato.data.sequences.mapped import Mapped
from ostinato.data.sequences.step_labels import CodedLabels
from ostinato.data.tables import blocks, store
from ostinato.data.tables.store import store_together

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

from zoo.suites import one_in  # noqa: E402

pytestmark = pytest.mark.skipif(not store.is_possible(), reason="needs Linux's /proc")

LONG = Roles(id="id", features=("x", "kind"), target="y", task="classify", group="who",
             static=("age", "town"))  # fmt: skip
WORDS = ["late", "mid", "early", "never"]


def together(path, roles, of):
    """The examples in each of several processes, which are threads here."""
    sent = [b""] * of
    barriers = [threading.Barrier(of, timeout=20) for _ in range(4)]  # two for each exchange

    def store(number):
        rest = iter(barriers)

        def exchange(content):
            sent[number] = content
            next(rest).wait()
            everything = list(sent)
            next(rest).wait()
            return everything

        try:
            return store_together(path, roles, number, of, exchange)
        except BaseException:
            for barrier in rest:  # in those before, others may still be on their way out
                barrier.abort()
            raise

    with ThreadPoolExecutor(of) as pool:
        return list(pool.map(store, range(of)))


def long_table(n=60, seed=0):
    generator = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        for _ in range(generator.integers(1, 9)):
            row = {"id": f"s{i}", "y": "abc"[i % 3], "who": i // 4, "age": i / 7 if i % 5 else None}
            row["x"] = None if generator.random() < 0.1 else 100 + generator.normal()
            row["kind"] = WORDS[min(3, generator.integers(0, 1 + i // 10))]  # others come later
            row["town"] = "uvw"[i % 3] if i % 4 else None
            rows.append(row)
    return pa.Table.from_pylist(rows)


def assert_same(found, wanted):
    """All that examples hold, and what becomes of it."""
    assert isinstance(found.X, Mapped)
    assert found.values.tobytes() == wanted.values.tobytes()
    assert found.lengths.tolist() == wanted.lengths.tolist()
    for name in ("features", "categories", "roles", "source"):
        assert getattr(found, name) == getattr(wanted, name), name
    assert (found.times is None) == (wanted.times is None)
    for one, other in zip(found.times or (), wanted.times or (), strict=True):
        assert one.dtype == other.dtype and one.tolist() == other.tolist()
    if isinstance(wanted.y, CodedLabels):
        assert found.y.classes.tolist() == wanted.y.classes.tolist()
        assert found.y.classes.dtype == wanted.y.classes.dtype
        assert found.y.numbered(None).values.tolist() == wanted.y.numbered(None).values.tolist()
    for name in ("ids", "groups", "parts", *(["y"] if hasattr(wanted.y, "dtype") else [])):
        a, b = getattr(found, name), getattr(wanted, name)
        assert (a is None and b is None) or (a.dtype, a.tolist()) == (b.dtype, b.tolist()), name
    assert found.statics.keys() == wanted.statics.keys()
    for name, values in found.statics.items():
        np.testing.assert_array_equal(values, wanted.statics[name])
        assert values.dtype == wanted.statics[name].dtype
    for i in (0, len(found) // 2, len(found) - 1):
        row = int(found.lengths[:i].sum())
        assert found.place(row, 0) == wanted.place(row, 0)


@pytest.mark.parametrize("task", ["classify", "tag"])
@pytest.mark.parametrize("of", [1, 2, 3, 9])
@pytest.mark.parametrize("group", one_in(4, [7, 40, 10_000]))
def test_long_tables(tmp_path, monkeypatch, task, of, group):
    monkeypatch.setattr(blocks, "BLOCK", 3000)
    monkeypatch.setattr(blocks, "ROWS", 20)
    monkeypatch.setattr(store, "AT_ONCE", 11)
    table, roles = long_table(), LONG
    if task == "tag":
        roles = replace(LONG, target="step", task="tag", time="time")
        table = table.append_column("time", pa.array(range(len(table))))
        steps = [f"l{min(9, i // 20) * 7 % 10}" for i in range(len(table))]  # others come later
        table = table.append_column("step", pa.array(steps))
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=group)
    wanted = store_examples(stream_examples(tmp_path / "a.parquet", roles))
    chosen = np.random.default_rng(1).permutation(60)
    for found in together(tmp_path / "a.parquet", roles, of):
        assert_same(found, wanted)
        assert found.X[chosen].values.tobytes() == wanted.X[chosen].values.tobytes()
        one, other = (Preparation.fit(e, missing="fill") for e in (found, wanted))
        assert one == other


@pytest.mark.parametrize("task", ["classify", "tag"])
@pytest.mark.parametrize("named", [False, True])
def test_tables_whose_rows_are_sequences(tmp_path, task, named):
    n = 23
    lists = [[float(i)] * (i % 4 + 1) for i in range(n)]
    names, labels = [f"n{i}" for i in range(n)], [i % 2 for i in range(n)]
    if task == "tag":
        labels = [["BA"[i // 9 % 2]] * (i % 4 + 1) for i in range(n)]
    parts = ["train", "test"] * 11 + ["train"]
    table = pa.table({"name": names, "x": lists, "y": labels, "part": parts})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    roles = Roles("nested", "name" if named else None, features=("x",), target="y",
                  task=task, split="part")  # fmt: skip
    wanted = store_examples(stream_examples(tmp_path / "a.parquet", roles))
    for found in together(tmp_path / "a.parquet", roles, 3):
        assert_same(found, wanted)


@pytest.mark.parametrize("named", [False, True])
def test_series_in_the_columns_of_a_table(tmp_path, monkeypatch, named):
    """Such series tell no places in the file."""
    monkeypatch.setattr(blocks, "ROWS", 4)
    rows = [{"name": f"n{i}"} | {f"t{k}": float(10 * i + k) for k in range(5)} for i in range(23)]
    rows[3]["t4"] = None
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)
    steps = tuple(f"t{k}" for k in range(5))
    roles = Roles("wide", "name" if named else None, features=steps, task="forecast")
    wanted = store_examples(stream_examples(path, roles))
    for found in together(path, roles, 3):
        assert_same(found, wanted)
        assert found.lengths[3] == 4 and found.y[22].tolist() == [220, 221, 222, 223, 224]
    if named:
        rows[20]["name"] = "n2"
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)
        with pytest.raises(ValueError, match=r"a\.parquet: the id 'n2' comes back"):
            together(path, roles, 3)


def test_several_labels_are_those_of_all_shares(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 50)
    monkeypatch.setattr(blocks, "ROWS", 4)
    labels = [["rain", "wind"]] * 8 + [["snow"]] * 8 + [["calm", "rain"]] * 8
    table = pa.table({"x": [[float(i)] for i in range(24)], "y": labels})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    roles = Roles("nested", features=("x",), target="y", task="classify")
    wanted = store_examples(stream_examples(tmp_path / "a.parquet", roles))
    assert wanted.roles.labels == ("calm", "rain", "snow", "wind")
    for found in together(tmp_path / "a.parquet", roles, 3):
        assert_same(found, wanted)


@pytest.mark.parametrize("task", ["classify", "tag"])
@pytest.mark.parametrize("last", ["1", "2.5", "x"])
def test_a_file_without_row_groups_is_read_by_the_first(tmp_path, monkeypatch, task, last):
    monkeypatch.setattr(blocks, "BLOCK", 60)
    labels = [*(("0", "1", "1.0")[i // 3 % 3] for i in range(27)), *[last] * 3]
    lines = ["id,x,y", *(f"s{i // 3},{i},{label}" for i, label in enumerate(labels))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    roles = Roles(id="id", features=("x",), target="y", task=task)
    wanted = store_examples(stream_examples(tmp_path / "a.csv", roles))
    for found in together(tmp_path / "a.csv", roles, 2):
        assert_same(found, wanted)


def test_an_id_that_comes_back_in_another_share_is_refused(tmp_path):
    ids = ["a", "a", "b", "c", "a", "d"]
    table = pa.table({"id": ids, "x": [1.0] * 6, "y": [0, 0, 1, 1, 0, 1]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    roles = Roles(id="id", features=("x",), target="y", task="classify")
    with pytest.raises(ValueError, match=r"a\.parquet, row 5: the id 'a' comes back after other"):
        together(tmp_path / "a.parquet", roles, 2)


def test_a_process_that_ends_first_is_still_read(tmp_path):
    """All refuse the same id, each by itself: not one may miss the file of another that has."""
    ids = ["a", "a", "b", "c", "a", "d"]
    table = pa.table({"id": ids, "x": [1.0] * 6, "y": [0, 0, 1, 1, 0, 1]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    roles = Roles(id="id", features=("x",), target="y", task="classify")
    sent, barrier, ended = [b""] * 2, threading.Barrier(2, timeout=20), threading.Event()

    def refusal(number):
        n_exchanges = 0

        def exchange(content):
            nonlocal n_exchanges
            sent[number] = content
            barrier.wait()
            everything = list(sent)
            barrier.wait()
            n_exchanges += 1
            if number == 0 and n_exchanges == 2:
                assert ended.wait(20)
            return everything

        try:
            store_together(tmp_path / "a.parquet", roles, number, 2, exchange)
        except (ValueError, OSError) as problem:
            return type(problem), str(problem)

    def first_to_end():
        said = refusal(1)
        gc.collect()  # closes its file, as the end of a process does
        ended.set()
        return said

    with ThreadPoolExecutor(2) as pool:
        slower, faster = pool.submit(refusal, 0), pool.submit(first_to_end)
        assert slower.result() == faster.result()
    assert faster.result()[0] is ValueError
