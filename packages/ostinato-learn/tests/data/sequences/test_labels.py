from __future__ import annotations

import json

import numpy as np
import pytest

from ostinato_learn.data import LabelEncoder

LABELS = [
    np.array(["no", "yes", "ünsure"]),
    np.array(["no", "yes"], dtype=object),
    np.array([3, -7, 40]),
    np.array([3, 7], dtype=np.int8),
    np.array([False, True]),
    np.array([-1.5, 1.0]),
]


@pytest.mark.parametrize("labels", LABELS, ids=lambda a: a.dtype.str)
def test_there_and_back_and_through_json(labels):
    y = labels[np.arange(10) % len(labels)]
    encoder, numbers = LabelEncoder.fit(y)
    assert encoder.classes.tolist() == sorted(labels.tolist())
    assert len(encoder) == len(labels)
    saved = json.loads(json.dumps(encoder.as_json()))
    for each in (encoder, LabelEncoder.from_json(saved, "here")):
        assert each.classes.dtype == labels.dtype
        assert each.encode(y).tolist() == each.encode(y.tolist()).tolist() == numbers.tolist()
        assert each.decode(numbers).dtype == labels.dtype
        assert each.decode(numbers).tolist() == y.tolist()


def test_class_numbers_are_int64_also_of_nothing():
    encoder = LabelEncoder(np.array(["a", "b"]))
    assert encoder.encode({"b": 1.0}).tolist() == [1]  # of a mapping, its keys
    assert encoder.encode([]).dtype == encoder.encode(["a"]).dtype == np.int64


def test_a_label_that_is_no_class_is_named_with_the_classes():
    encoder, _ = LabelEncoder.fit(np.arange(12))
    with pytest.raises(ValueError, match=r"^mine has the label 99.* 0, .* 9, … \(12\)"):
        encoder.encode([3, 99, 100], name="mine")
    with pytest.raises(ValueError, match="the label None"):
        encoder.encode([None])
    with pytest.raises(ValueError, match="the label '3'"):
        encoder.encode(["3"])


def test_types_that_json_lacks_are_refused():
    for labels in (np.array(["2024-01-01"], "datetime64[D]"), np.array([1j, None])):
        with pytest.raises(ValueError, match="train with integers or strings"):
            LabelEncoder(labels).as_json()
    for dtype, values in (("V8", []), ("?!", []), ("<i8", 3), ("<i8", [[1], [2]])):
        with pytest.raises(ValueError, match=r"^here are of type"):
            LabelEncoder.from_json({"dtype": dtype, "values": values}, "here")
