"""Numbers and times of sequences in a file are those that were written, to the last bit."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest

from ostinato.data.stored import series as stored_series
from ostinato.data.stored.sequences import Files, Stored
from ostinato.data.stored.series import StoredSeries, as_columns

LENGTHS = np.array([3, 1, 4])
NUMBERS = np.array([0.1, np.nan, -0.0, 1e300, 5e-324, 2**53 + 1, np.pi, -7])
NANOSECONDS = np.arange(8) * 10**17 + 123_456_789
SERIES = {
    "numbers": np.split(NUMBERS, [3, 4]),
    "dates": np.split(NANOSECONDS.astype("M8[ns]"), [3, 4]),
}


@pytest.mark.parametrize("at_once", [1, 1 << 20])
@pytest.mark.parametrize("kind", SERIES)
def test_they_are_what_was_written(monkeypatch, kind, at_once):
    monkeypatch.setattr(stored_series, "AT_ONCE", at_once)
    series = SERIES[kind]
    columns = np.column_stack([np.arange(8, dtype=np.float32), as_columns(series)])
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(np.ascontiguousarray(columns).tobytes())
        rows = Stored(Files([file]), np.cumsum(LENGTHS) - LENGTHS, LENGTHS, 3)
        found = StoredSeries(rows, 1, series[0].dtype.str)
        assert len(found) == 3 and found.width == 3
        assert [each.tobytes() for each in found] == [each.tobytes() for each in series]
        assert found[2].dtype == series[0].dtype and found[2].tobytes() == series[2].tobytes()
        some = found.take(np.array([2, 0]))
        assert [each.tobytes() for each in some] == [series[i].tobytes() for i in (2, 0)]
