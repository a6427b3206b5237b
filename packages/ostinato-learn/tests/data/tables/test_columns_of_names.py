"""Names: a value means the same whatever the other rows have, and in every kind of file."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest

from ostinato_learn.data import Preparation, Roles, stream_examples
from ostinato_learn.data.tables.names import as_name, known_names
from ostinato_learn.data.tables.read_examples import parse_examples

ROLES = Roles(shape="long", id="id", features=("event", "x"), categories=("event",))


def _csv(names):
    return "\n".join(["id,event,x", *(f"s,{name},1" for name in names), ""]).encode()


def _json(names):
    return "\n".join(json.dumps({"id": "s", "event": name, "x": 1}) for name in names).encode()


def _columns(preparation, examples):
    """Of each row, the names whose columns are 1."""
    names = preparation.features[0].words
    values = preparation.apply(examples)[0, :, : len(names)]  # of the only sequence
    return [[names[i] for i in np.flatnonzero(row)] for row in values]


@pytest.mark.parametrize(
    ("trained", "written"),
    [
        (["click", "home", "7", "007"], ["click", " home", "7", "7.0", "007", "Click", "new", ""]),
        (["1", "2", "30"], ["1", "1.0", "2", "+2", "30", "3e1", "3", ""]),
        (["40", "40.5", "S", "M"], ["40", "40.0", "40.5", "40.50", "S"]),
        (["1.1", "1.10", "2.0"], ["1.1", "1.10", "2", "1.100"]),
        (["true", "false"], ["True", "FALSE", "true", "yes"]),
        (["true", "maybe"], ["true", "TRUE", "maybe"]),
    ],
)
def test_a_name_does_not_depend_on_the_others(trained, written):
    preparation = Preparation.fit(parse_examples(_csv(trained), "a.csv", ROLES), missing="fill")
    names, number = known_names(preparation)
    assert number is None
    assert names is not None
    together = _columns(preparation, parse_examples(_csv(written), "b.csv", ROLES))
    for name, found in zip(written, together, strict=True):
        alone = _columns(preparation, parse_examples(_csv([name]), "b.csv", ROLES))
        assert alone == [found], name
        place = names.place(name)  # as a stream reads it
        assert found == ([] if math.isnan(place) or place < 0 else [list(names)[int(place)]]), name


def test_numbers_of_other_files_are_the_names_of_csv():
    csv = Preparation.fit(parse_examples(_csv(["1", "1.5", "20"]), "a.csv", ROLES), missing="fill")
    assert csv.features[0].words == ("1", "1.5", "20")
    for values in ([1, 20], [1.0, 1.5, 20.0], [20.0]):
        found = _columns(csv, parse_examples(_json(values), "b.jsonl", ROLES))
        assert found == [[as_name(value)] for value in values]
    truths = Preparation.fit(parse_examples(_json([True, False]), "a.jsonl", ROLES), missing="fill")
    found = _columns(truths, parse_examples(_csv(["true", "False"]), "b.csv", ROLES))
    assert found == [["True"], ["False"]]


LARGE = [12345678901234567890 + i for i in range(3)]
MERGED = {  # as numbers some of these were one
    "beyond int64": [str(n) for n in LARGE],
    "powers": ["5e3", "5000"],
    "versions": ["1.10", "1.1"],
    "infinite": ["1e999", "2e999"],
}


@pytest.mark.parametrize("ids", MERGED.values(), ids=MERGED)
def test_ids_that_are_written_otherwise_are_others(ids):
    file = "".join(["id,x\n", *(f"{name},1\n" for name in ids)]).encode()
    roles = Roles(shape="long", id="id", features=("x",))
    whole = parse_examples(file, "a.csv", roles)
    assert whole.ids.tolist() == ids
    blocks = list(stream_examples(io.BytesIO(file), roles))
    assert [i for block in blocks for i in block.ids.tolist()] == ids


def test_one_id_stays_one_beside_others():
    roles = Roles(shape="long", id="id", features=("x",))
    for other, ids in (("", [1]), ("1.10,1\n", [1.0, 1.1]), ("a,1\n", ["1", "a"])):
        file = f"id,x\n1.0,1\n1,2\n{other}".encode()
        assert parse_examples(file, "a.csv", roles).ids.tolist() == ids


def test_large_ids_of_other_files():
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    roles = Roles(shape="long", id="id", features=("x",))
    lines = "\n".join(json.dumps({"id": i, "x": 1}) for i in LARGE).encode()
    assert parse_examples(lines, "a.jsonl", roles).ids.tolist() == [str(i) for i in LARGE]
    for ids in (LARGE, [2**53, 2**53 + 1, 2**53 + 2]):
        table = pa.table({"id": pa.array(ids, pa.uint64()), "x": [1.0, 2.0, 3.0]})
        file = io.BytesIO()
        parquet.write_table(table, file)
        found = parse_examples(file.getvalue(), "a.parquet", roles).ids.tolist()
        assert found == (ids if ids is not LARGE else [str(i) for i in ids])


def test_a_large_whole_number_is_still_a_feature():
    lines = "\n".join(json.dumps({"id": "s", "x": x}) for x in (2**70, 1)).encode()
    examples = parse_examples(lines, "a.jsonl", Roles(shape="long", id="id", features=("x",)))
    assert examples.values[:, 0].tolist() == [2.0**70, 1.0]


def test_labels_keep_their_types():
    """Whole numbers, other distinct numbers, truth values; others are names."""
    for written, labels in (
        (["1", "2.0"], [1, 2]),
        (["0.5", "1.0"], [0.5, 1.0]),
        (["0.50", "1.00"], [0.5, 1.0]),
        (["0.50", "0.5", "1.0"], ["0.50", "0.5", "1"]),
        (["true", "False"], [True, False]),
        ([str(n) for n in LARGE], [str(n) for n in LARGE]),
    ):
        file = "".join(["id,x,y\n", *(f"s{i},1,{y}\n" for i, y in enumerate(written))]).encode()
        roles = Roles(shape="long", id="id", target="y", task="classify")
        assert parse_examples(file, "a.csv", roles).y.tolist() == labels
