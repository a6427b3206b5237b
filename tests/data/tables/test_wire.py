"""Values for another process arrive as they were, and only as data."""

import pickle

import numpy as np
import pytest

from ostinato.data import Roles
from ostinato.data.tables import wire


def test_values_arrive_as_they_were():
    texts = np.array(["a", None, "ü"], object)
    sent = {
        ("y", 1): [np.float32([np.nan, -0.0]), np.dtype(np.float32), texts],
        "roles": Roles(features=("a", "b"), decimal=","),
        "scalar": np.datetime64("2024-01-01", "ns"),
        "none": (None, True, 1.5, float("inf"), [], np.zeros((0, 3), np.int64)),
    }
    found = wire.read(wire.written(sent), [Roles])
    assert repr(found) == repr(sent)
    assert found["roles"] == sent["roles"] and found[("y", 1)][2].dtype == object


def test_bytes_are_data_and_nothing_else():
    with pytest.raises(ValueError, match="pickle"):
        wire.read(pickle.dumps({"a": 1}))
    with pytest.raises(KeyError, match="Roles"):  # of a class that the reader does not name
        wire.read(wire.written(Roles()))
    with pytest.raises(TypeError, match="set cannot be given"):
        wire.written({1, 2})
