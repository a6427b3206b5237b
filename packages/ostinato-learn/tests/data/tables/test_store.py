"""Examples in a file are, in every respect, those in memory."""

from __future__ import annotations

import gc
import io
import json
import os
import warnings
from dataclasses import replace

import numpy as np
import pytest

from ostinato_learn.data import (
    Batches,
    Examples,
    Preparation,
    Ragged,
    Roles,
    as_sequences,
    read_examples,
    store_examples,
    stream_examples,
)
from ostinato_learn.data.sequences import examples
from ostinato_learn.data.sequences.mapped import GrowingArray, Mapped, Series
from ostinato_learn.data.sequences.step_labels import CodedLabels, as_labels, label_counts
from ostinato_learn.data.tables import blocks, store
from ostinato_learn.data.tables.read_examples import parse_examples

pytest.importorskip("pyarrow")
ROLES = Roles(
    id="id", features=("x", "kind"), target="y", task="classify", group="who", static=("age",)
)


@pytest.fixture
def path(tmp_path):
    generator = np.random.default_rng(0)
    rows = ["id,x,kind,y,who,age"]
    for i in range(60):
        for _ in range(generator.integers(1, 9)):
            x = "" if generator.random() < 0.1 else repr(100 + generator.normal())
            kind = ["late", "mid", "early"][min(2, generator.integers(0, 1 + i // 15))]
            rows.append(f"s{i},{x},{kind},{i % 3},g{i // 4},{i / 7!r}")
    path = tmp_path / "a.csv"
    path.write_text("\n".join(rows))
    return path


@pytest.fixture
def both(path, monkeypatch):
    """The same examples in memory and, read in small blocks, in a file."""
    monkeypatch.setattr(blocks, "BLOCK", 300)
    monkeypatch.setattr(examples, "BLOCK", 50)
    stored = store_examples(stream_examples(path, ROLES))
    assert isinstance(stored.sequences, Mapped)
    return read_examples(path, ROLES), stored


def test_all_but_times_is_the_same(both):
    memory, stored = both
    assert stored.sequences.lengths.tolist() == memory.lengths.tolist() and len(stored) == 60
    for name in ("ids", "y", "groups"):
        assert getattr(stored, name).tolist() == getattr(memory, name).tolist()
    assert stored.statics["age"].tobytes() == memory.statics["age"].tobytes()
    assert stored.values.tobytes() == memory.values.tobytes()
    assert stored.categories == memory.categories


@pytest.mark.parametrize("missing", ["mask", "fill", "forward"])
def test_preparation_is_the_same_to_the_last_bit(both, missing):
    memory, stored = both
    chosen = np.random.default_rng(1).permutation(60)[:40]
    wanted = Preparation.fit(memory.select(chosen), missing=missing)
    train = stored.select(chosen)
    found = Preparation.fit(train, missing=missing)
    assert isinstance(train.sequences, Mapped) and found.features == wanted.features
    assert found.statics == wanted.statics
    X, Y = wanted.apply(memory), found.apply(stored)
    assert isinstance(Y, Mapped) and Y.n_features == X.n_features
    assert Y.values.tobytes() == X.values.tobytes()
    assert (
        found.apply(train).values.tobytes() == wanted.apply(memory.select(chosen)).values.tobytes()
    )


def test_batches_are_the_same(both):
    memory, stored = both
    preparation = Preparation.fit(memory, missing="fill")
    X, Y = preparation.apply(memory), preparation.apply(stored)
    assert as_sequences(Y) is Y
    a, b = Batches(X, memory.y, 7, seed=3), Batches(Y, stored.y, 7, seed=3)
    for _ in range(20):
        (x, labels), (y, others) = a.next_batch(), b.next_batch()
        assert isinstance(y, Ragged) and not isinstance(y, Mapped)
        assert x.equals(y) and labels.tolist() == others.tolist()


@pytest.mark.parametrize(
    "index", [3, -1, slice(2, 5), slice(None, None, -7), [5, 5, 0], np.arange(60) % 3 == 0, []]
)
def test_indexing_is_that_of_ragged(both, index):
    X, Y = both[0].sequences, both[1].sequences
    if isinstance(index, int):
        assert Y[index][:, 0].tobytes() == X[index][:, 0].tobytes()
    else:
        assert Y[index].values[:, 0].tobytes() == X[index].values[:, 0].tobytes()
        assert Y[index].offsets.tolist() == X[index].offsets.tolist()
    assert [len(x) for x in Y] == X.lengths.tolist()
    with pytest.raises(IndexError, match="out of range for 60 sequences"):
        Y[[60]]


def test_what_is_refused_has_its_place(both):
    memory, stored = both
    absent = int(np.flatnonzero(np.isnan(memory.values[:, 0]))[0])
    with pytest.raises(ValueError, match=r"step \d+ from line \d+ on, column 'x': .*missing"):
        Preparation.fit(stored)
    sequence = int(np.searchsorted(np.cumsum(memory.lengths), absent, side="right"))
    line = memory.places.numbers[int(memory.lengths[:sequence].sum())]
    step = absent - int(memory.lengths[:sequence].sum()) + 1
    with pytest.raises(ValueError, match=f"a.csv, step {step} from line {line} on, column 'x'"):
        Preparation.fit(stored.select(np.arange(60)))
    with pytest.raises(ValueError, match="no examples to store"):
        store_examples([])


@pytest.mark.parametrize("kinds", [["1", "2", "red", "blue"], ["red", "blue", "2", "1"]])
def test_numbers_in_one_part_and_words_in_another_are_refused(tmp_path, monkeypatch, kinds):
    """Numbers would be taken for places among the words."""
    monkeypatch.setattr(blocks, "BLOCK", 100)
    rows = [f"s{i // 2},{kinds[i // 50]},{i // 2 % 3}" for i in range(199)]
    (tmp_path / "a.csv").write_text("\n".join(["id,kind,y", *rows]))
    roles = Roles(id="id", features=("kind",), target="y", task="classify")
    refused = "'kind' has numbers in some rows and words in others|'kind': '.*' is not a number"
    with pytest.raises(ValueError, match=refused):
        store_examples(stream_examples(tmp_path / "a.csv", roles))
    named = replace(roles, categories=("kind",))
    stored = store_examples(stream_examples(tmp_path / "a.csv", named))
    memory = read_examples(tmp_path / "a.csv", named)
    one, other = Preparation.fit(stored), Preparation.fit(memory)
    np.testing.assert_array_equal(one.apply(stored).values, other.apply(memory).values)


def test_values_that_another_process_looks_at_are_not_read(both, monkeypatch):
    _, stored = both
    preparation = Preparation.fit(stored, missing="fill")
    wanted = preparation.apply(stored).values.tobytes()
    with monkeypatch.context() as patch:
        patch.setattr(Mapped, "_gather", None)
        unseen = preparation.apply(stored, unseen=True)
        with pytest.raises(TypeError):
            preparation.apply(stored)
    assert unseen.values.tobytes() == wanted


def test_unknown_words_are_reported_once(both, caplog):
    memory, stored = both
    preparation = Preparation.fit(memory.select(np.arange(15)), missing="fill")
    caplog.clear()
    prepared = preparation.apply(stored)
    assert len(caplog.messages) == 1 and "values of 'kind' were not in the training" in caplog.text
    prepared[[59]]
    assert len(caplog.messages) == 1


def test_training_from_a_file_gives_the_same_weights(both):
    torch = pytest.importorskip("torch")
    from ostinato_learn.hyperparameters import Architecture
    from ostinato_learn.tasks.classify.fit import Labelled, fit
    from ostinato_learn.training.plan import Plan

    memory, stored = both
    preparation = Preparation.fit(memory, missing="mask")
    nets = []
    for examples_ in (memory, stored):
        given = Labelled.of(preparation.apply(examples_), examples_.y)
        model = Architecture(cell="gru", hidden_size=4)
        plan = Plan(iterations=6, batch_size=8, eval_every=3)
        nets.append(fit(given, model, plan)[0].net.state_dict())
    for name, weights in nets[0].items():
        assert torch.equal(weights, nets[1][name]), name


def test_words_are_renumbered_a_little_at_a_time(path, monkeypatch):
    asked = []

    def slowly(descriptor, content):  # at most 2 GiB at once on Linux, 7 bytes here
        asked.append(len(content))
        return write(descriptor, bytes(content)[:7])

    write = os.write
    monkeypatch.setattr(os, "write", slowly)
    monkeypatch.setattr(blocks, "BLOCK", 300)
    monkeypatch.setattr(store, "AT_ONCE", 20)
    found = store_examples(stream_examples(path, ROLES))
    assert found.values.tobytes() == read_examples(path, ROLES).values.tobytes()
    assert max(asked[-2:]) <= 20 * 2 * 4


def test_a_file_that_nobody_holds_is_closed_without_a_warning(path):
    """That of examples that are gone, and that of a table which was refused half-way."""
    descriptors = []

    class Noted(GrowingArray):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            descriptors.append(self.descriptor)

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("error", ResourceWarning)  # pytest makes it an error of this test
        patch.setattr(store, "GrowingArray", Noted)
        stored = store_examples(stream_examples(path, ROLES))
        refused = (each for each in [read_examples(path, ROLES), None])
        with pytest.raises(AttributeError):
            store_examples(refused)
        # It needs its file no more.
        assert len(descriptors) == 2 and stored.sequences[1].shape[1] == 2
        gc.collect()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


TAGGED = Roles(id="id", features=("x", "kind"), target="y", task="tag", group="who")
KINDS = {"names": lambda i: "zya"[i % 3], "numbers": lambda i: 9 - i % 4, "of both": str}


@pytest.mark.parametrize("features", [("x", "kind"), ("kind",)])
@pytest.mark.parametrize("labels", KINDS)
def test_a_label_for_each_step(path, tmp_path, monkeypatch, labels, features):
    """With words beside numbers, and words alone, which have a vocabulary."""
    head, *rows = path.read_text().splitlines()
    lines = [row.split(",") for row in rows]
    for i, line in enumerate(lines):
        line[2] = line[2] or "mid"
        line[3] = str(KINDS[labels](i))
    if labels == "of both":
        lines[-1][3] = "x"
    path.write_text("\n".join([head, *(",".join(line) for line in lines)]))
    roles = replace(TAGGED, features=features)
    memory = read_examples(path, roles)
    monkeypatch.setattr(blocks, "BLOCK", 300)
    monkeypatch.setattr(examples, "BLOCK", 50)
    stored = store_examples(stream_examples(path, roles))
    assert isinstance(stored.sequences, Mapped) and isinstance(stored.y, CodedLabels)
    chosen = np.random.default_rng(2).permutation(60)[:30]
    for one, other in ((stored, memory), (stored.select(chosen), memory.select(chosen))):
        assert one.values.tobytes() == other.values.tobytes()
        assert one.categories == other.categories
        assert [y.tolist() for y in one.y] == [y.tolist() for y in other.y]
        assert one.loaded().y[3].dtype.kind == other.y[3].dtype.kind
        as_labels(one.y, one.lengths)
        (block, *_), names = list(one.blocks()), other.y[:1]
        assert isinstance(block.y, list) and block.y[0].tolist() == names[0].tolist()
    found, wanted = (
        Preparation.fit(each.select(chosen), missing="fill") for each in (stored, memory)
    )
    assert found == wanted
    a, b = wanted.apply(memory), found.apply(stored)
    if features == ("kind",):
        assert a.different == b.different
        assert a[chosen].places.values.tolist() == b[chosen].places.values.tolist()
    else:
        assert a[chosen].values.tobytes() == b[chosen].values.tobytes()


LABELS = {
    "truth values and names": ("true", "false", "True", "unknown"),
    "decimals and names": ("1.50", "2.0", "1.5", "x"),
    "integers in two ways": ("1", "2.0", "1.0", "2"),
    "integers and decimals": ("10", "9", "+9", "9.5"),
    "truth values": ("true", "FALSE", "True", "false"),
}


@pytest.mark.parametrize("task", ["tag", "classify"])
@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_typed_when_all_are_known(tmp_path, monkeypatch, kind, task):
    """A label of the last rows decides what those of the first mean."""
    labels = LABELS[kind]
    rows = [f"s{i // 3},{i},{labels[i // 3 % 2 + 2 * (i >= 150)]}" for i in range(180)]
    (tmp_path / "a.csv").write_text("\n".join(["id,x,y", *rows]))
    roles = Roles(id="id", features=("x",), target="y", task=task)
    memory = read_examples(tmp_path / "a.csv", roles)
    monkeypatch.setattr(blocks, "BLOCK", 300)
    monkeypatch.setattr(store, "AT_ONCE", 20)
    stored = store_examples(stream_examples(tmp_path / "a.csv", roles))
    assert stored.values.tobytes() == memory.values.tobytes()
    if task == "classify":
        assert (stored.y.dtype, stored.y.tolist()) == (memory.y.dtype, memory.y.tolist())
        return
    assert [y.tolist() for y in stored.y] == [y.tolist() for y in memory.y]
    (names, counts), (others, wanted) = label_counts(stored.y), label_counts(memory.y)
    assert (names.dtype, names.tolist()) == (others.dtype, others.tolist())
    assert counts.tolist() == wanted.tolist()


@pytest.mark.parametrize("written", ["2024-05-{:02} 10:00:00.25", "{}.5"])
def test_times_of_steps_that_have_answers(tmp_path, monkeypatch, written):
    rows = [f"s{i // 4},{written.format(1 + i % 4)},{i},{'ab'[i % 2]}" for i in range(80)]
    (tmp_path / "a.csv").write_text("\n".join(["id,time,x,y", *rows]))
    roles = Roles(id="id", time="time", features=("x",), target="y", task="tag")
    memory = read_examples(tmp_path / "a.csv", roles)
    monkeypatch.setattr(blocks, "BLOCK", 300)
    stored = store_examples(stream_examples(tmp_path / "a.csv", roles))
    assert isinstance(stored.times, Series)
    for one, other in ((stored, memory), (stored.select([5, 2]), memory.select([5, 2]))):
        assert [t.dtype for t in one.times] == [t.dtype for t in other.times]
        assert [t.tolist() for t in one.loaded().times] == [t.tolist() for t in other.times]


def test_times_are_of_one_kind():
    def part(times):
        X, y = np.zeros((1, 2, 1), np.float32), [np.array(["a", "b"])]
        roles = Roles("long", "id", "t", ("x",), "y", "tag")
        return Examples(X, y, ("x",), times=[np.array(times)], roles=roles, source="b.csv")

    dates = np.array(["2024-05-01", "2024-05-02"], "M8[ns]")
    with pytest.raises(ValueError, match=r"b.csv: the times are dates in some rows and numbers in"):
        store_examples([part([1.0, 2.0]), part(dates)])


def test_some_are_drawn_the_same_each_time(both):
    memory, stored = both
    assert memory.some(7) is memory
    some = stored.some(200)
    assert not isinstance(some.sequences, Mapped) and 10 < len(some) < 30
    assert (
        some.ids.tolist()
        == stored.some(200).ids.tolist()
        == sorted(some.ids.tolist(), key=stored.ids.tolist().index)
    )
    assert len(stored.some(10**6)) == 60


@pytest.mark.parametrize("written", ["a list", "a text"])
def test_labels_of_a_sequence_are_learnt_from_all_rows(tmp_path, monkeypatch, written):
    labels = [["rain", "wind"], ["rain"], [], ["wind"]] * 10 + [["snow"], ["fog", "rain"], ["calm"]]
    y = [each if written == "a list" else "|".join(each) for each in labels]
    lines = [json.dumps({"x": [1.0, i], "y": each}) for i, each in enumerate(y)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    roles = Roles("nested", features=("x",), target="y", task="classify")
    memory = read_examples(tmp_path / "a.jsonl", roles)
    monkeypatch.setattr(blocks, "BLOCK", 200)
    stored = store_examples(stream_examples(tmp_path / "a.jsonl", roles))
    assert stored.roles.labels == memory.roles.labels == ("calm", "fog", "rain", "snow", "wind")
    assert stored.y.tolist() == memory.y.tolist()


def test_a_stream_of_arrays_and_of_equal_lengths():
    X = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    parts = [
        Examples(X[:3], np.array([0, 1, 0]), ("a", "b")),
        Examples(X[3:], np.array([2]), ("a", "b")),
    ]
    stored = store_examples(parts)
    assert np.array(list(stored.X)).tobytes() == X.tobytes() and stored.y.tolist() == [0, 1, 0, 2]
    file = io.BytesIO()
    np.save(file, X)
    assert (
        store_examples(stream_examples(io.BytesIO(file.getvalue()))).values.tobytes() == X.tobytes()
    )


def test_the_future_of_stored_series():
    text = b"t,y,price,load\n1,1,10,5\n2,2,20,6\n3,,30,\n"
    roles = Roles(
        time="t", target="y", task="forecast", features=("price", "load"), known=("price",)
    )
    memory = parse_examples(text, "f.csv", roles)
    stored = store_examples(stream_examples(io.BytesIO(text), roles))
    assert isinstance(stored.y, Series)
    for one, other in ((stored.y, memory.y), (stored.times, memory.times)):
        assert [each.tobytes() for each in one] == [each.tobytes() for each in other]
    preparation = Preparation.fit(stored)
    assert preparation.features == Preparation.fit(memory).features
    found = preparation.apply(stored)[0]
    assert found.tobytes() == preparation.apply(memory).tobytes() and found[2, 1] == 0
