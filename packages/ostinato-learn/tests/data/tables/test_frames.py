"""Tables in memory give the examples of the same table in a file."""

from __future__ import annotations

import numpy as np
import pytest

from ostinato_learn.data import Roles, read_examples

pa = pytest.importorskip("pyarrow")

TEXT = """trip,when,speed,road,mode
a,2024-01-01 10:00,1.5,street,bike
a,2024-01-01 10:01,,path,bike
b,2024-01-01 09:00,11,street,car
b,2024-01-01 09:05,13,street,car
b,2024-01-01 09:10,9,,car
"""
ROLES = {
    "id": "trip",
    "time": "when",
    "features": ["speed", "road"],
    "target": "mode",
    "task": "classify",
}


def of_pandas(path):
    pandas = pytest.importorskip("pandas")
    return pandas.read_csv(path, parse_dates=["when"])


def of_index(path):
    """A frame whose ids and times are its index, and whose names are categories."""
    frame = of_pandas(path).astype({"road": "category"})
    return frame.set_index(["trip", "when"])


def of_filtered(path):
    """A frame whose rows have the numbers that they had before others were left out."""
    frame = of_pandas(path)
    frame.index = frame.index + 7
    return frame


def of_polars(path):
    return pytest.importorskip("polars").read_csv(path, try_parse_dates=True)


def of_lazy_polars(path):
    return of_polars(path).lazy()


def of_pyarrow(path):
    from pyarrow import csv

    return csv.read_csv(path, convert_options=csv.ConvertOptions(strings_can_be_null=True))


def of_hugging_face(path):
    datasets = pytest.importorskip("datasets.arrow_dataset")  # else the folder of these tests
    table = of_pyarrow(path)
    whole = datasets.Dataset(pa.concat_tables([table, table.slice(0, 1)]))
    return whole.select(range(len(table)))  # its indices are a mapping


@pytest.mark.parametrize(
    "made",
    [of_pandas, of_index, of_filtered, of_polars, of_lazy_polars, of_pyarrow, of_hugging_face],
)
def test_a_frame_gives_the_examples_of_a_file(tmp_path, made):
    path = tmp_path / "a.csv"
    path.write_text(TEXT)
    wanted, found = read_examples(path, **ROLES), read_examples(made(path), **ROLES)
    np.testing.assert_array_equal(found.values, wanted.values)
    for name in ("y", "ids"):
        assert getattr(found, name).tolist() == getattr(wanted, name).tolist()
    assert [each.tolist() for each in found.times] == [each.tolist() for each in wanted.times]
    assert (found.features, found.categories) == (wanted.features, wanted.categories)
    assert found.lengths.tolist() == wanted.lengths.tolist()


def test_what_is_no_table_is_refused(tmp_path):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match="the data are list; wanted the path of a file, or a table"):
        read_examples([[1.0, 2.0]], id="trip")
    with pytest.raises(ValueError, match=r"several tables, \['train'\], \['test'\]; wanted one"):
        read_examples({"train": 1, "test": 2})
    mixed = pandas.DataFrame({"id": [1, 2], "x": np.array([1, "a"], object)})
    with pytest.raises(ValueError, match=r"the data frame: .*x.*; wanted values of one kind"):
        read_examples(mixed, id="id")
    frame = pandas.DataFrame({"id": [1, 1], "x": [1.0, np.inf], "y": [0, 0]})
    with pytest.raises(ValueError, match="the data frame, row 2, column 'x': the value is inf"):
        read_examples(frame, Roles(id="id", task="classify"), target="y")
    with pytest.raises(TypeError, match="idd"):
        read_examples(frame, idd="id")
