"""One number of a stream and a column of them in a file are read alike."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato_learn.data.formats.dialect import MISSING, Dialect
from ostinato_learn.data.formats.numbers import number, parsed

DIALECTS = (
    Dialect(),
    Dialect(thousands=","),
    Dialect(separator=";", decimal=","),
    Dialect(separator=";", decimal=",", thousands="."),
    Dialect(thousands="'"),
)
written = st.one_of(
    st.from_regex(r"\A[ ]?[+-]?[0-9]{1,4}([.,'][0-9]{3}){0,2}([.,][0-9]{0,3})?[ ]?\Z"),
    st.from_regex(r"\A[+-]?[0-9]{0,3}[.,]?[0-9]{0,3}([eE][+-]?[0-9]{1,2})?\Z"),
    st.sampled_from(("true", "FALSE", "inf", "-Infinity", "1_000", "٣", "0x10", "1e", "+", "++1")),
    st.sampled_from(MISSING),
)


@given(text=written, dialect=st.sampled_from(DIALECTS))
def test_a_column_of_one_text_is_read_as_the_text(text, dialect):
    column = parsed(pa.chunked_array([[text]], pa.string()), dialect)
    try:
        one = number(text, dialect)
    except ValueError:
        assert column is None
    else:
        assert column is not None
        np.testing.assert_array_equal(column, [one])


@pytest.mark.parametrize(
    ("text", "dialect", "value"),
    [
        ("1,234.5", Dialect(thousands=","), 1234.5),
        ("1.234,5", Dialect(separator=";", decimal=",", thousands="."), 1234.5),
        ("+7", Dialect(), 7),
        ("TRUE", Dialect(), 1),
        ("gone", Dialect(na=("gone",)), math.nan),
        ("N/A", Dialect(), math.nan),
    ],
)
def test_a_number_is_read(text, dialect, value):
    np.testing.assert_array_equal(number(text, dialect), value)


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("1.5", Dialect(separator=";", decimal=",")),
        ("12,34", Dialect(thousands=",")),
        ("1_000", Dialect()),
        ("٣", Dialect()),
        ("yes", Dialect()),
    ],
)
def test_what_is_no_number_is_refused(text, dialect):
    with pytest.raises(ValueError, match="is not a number"):
        number(text, dialect)
