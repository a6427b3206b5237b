import numpy as np
import pytest

from ostinato_learn.data import Ragged, as_sequences
from ostinato_learn.data.formats.ts import parse_ts


def parse(text):
    return parse_ts(text.encode().splitlines(), "file.ts")


HEADER = """\
# A comment
@problemName Waves
@timeStamps false
@missing false
@univariate false
@dimensions 2
@equalLength true
@seriesLength 3
@classLabel true left right

@data
"""


def test_equal_lengths_are_an_array():
    X, y = parse(HEADER + "1,2,3:4,5,6:left\n# another comment\n 7, 8 ,9 : 10,11,1.2e1 : right \n")
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X[0], [[1, 4], [2, 5], [3, 6]])
    np.testing.assert_array_equal(X[1], [[7, 10], [8, 11], [9, 12]])
    assert y.dtype.kind == "U" and y.tolist() == ["left", "right"]


def test_unequal_lengths_are_ragged():
    X, y = parse("@equalLength false\n@classLabel true\n@data\n1,2:3,4:a\n5:6:b c\n")
    assert X.equals(Ragged.from_list([[[1, 3], [2, 4]], [[5, 6]]]))
    assert y.tolist() == ["a", "b c"]


def test_without_labels():
    X, y = parse("@univariate true\n@classLabel false\n@data\n1,2\n3,4\n")
    assert y is None
    np.testing.assert_array_equal(X[:, :, 0], [[1, 2], [3, 4]])


def test_regression_targets():
    _, y = parse("@targetlabel true\n@data\n1,2:0.25\n3,4:-1e3\n")
    assert y.dtype == np.float64 and y.tolist() == [0.25, -1000.0]


def test_missing_values_are_nan_and_refused_by_name():
    X, _ = parse("@missing true\n@classLabel true a\n@data\n1,2:3,4:a\n5,?:6,NaN:a\n")
    np.testing.assert_array_equal(X[1], [[5, 6], [np.nan, np.nan]])
    with pytest.raises(ValueError, match="X has NaN at example 1, step 1, feature 0"):
        as_sequences(X)


def test_names_are_case_insensitive_and_a_byte_order_mark_is_skipped():
    X, y = parse("\ufeff@CLASSLABEL TRUE A\n@DATA\n1,2:A\n")
    assert X.shape == (1, 2, 1) and y.tolist() == ["A"]


def test_comments_may_be_in_any_encoding():
    X, _ = parse_ts([b"# caf\xe9", b"@data", b"1,2"], "file.ts")
    assert X.shape == (1, 2, 1)


def test_what_the_header_leaves_open_the_first_example_decides():
    with pytest.raises(ValueError, match="line 3: found 1 dimensions; wanted 2, separated"):
        parse("@data\n1:2\n3\n")
    with pytest.raises(ValueError, match="line 4: found 1 values a dimension; wanted 2"):
        parse("@equalLength true\n@data\n1,2\n3\n")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,2,3:left", "found 1 dimensions; wanted 2 and a label"),
        ("1,2,3:1,2,3:1,2,3:left", "found 3 dimensions; wanted 2 and a label"),
        ("1,2,3:4,5:left", "dimension 2 has 2 values, dimension 1 has 3"),
        ("1,2:4,5:left", "found 2 values a dimension; wanted 3, since .* @equalLength true"),
        ("1,2,3:4,x,6:left", "dimension 2: could not convert string to float: 'x'"),
        ("1,2,3:4,,6:left", "dimension 2: could not convert string to float: ''"),
        ("1,2,3::left", "dimension 2 is empty"),
        ("1,2,3:4,5,6:up", "found the label 'up'; wanted one of @classLabel: left, right"),
        ("1,2,3:4,5,6:", "found the label ''"),
    ],
)
def test_a_bad_row_is_named_by_its_line(row, message):
    with pytest.raises(ValueError, match=f"^file.ts, line 13: {message}"):
        parse(HEADER + "1,2,3:4,5,6:left\n" + row + "\n1,2,3:4,5,6:right")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@timestamps true\n@data\n(0,1),(1,2)", "line 1: found @timestamps true; .* a table"),
        ("@classLabel\n@data\n1", "line 1: found nothing after @classLabel; wanted true or false"),
        ("@equalLength yes\n@data\n1", "line 1: found yes after @equalLength"),
        ("@dimensions two\n@data\n1", "line 1: found two after @dimensions; wanted a number"),
        ("@dimensions 0\n@data\n1", "line 1: found 0 after @dimensions"),
        ("# x\n1,2,3\n@data\n", "line 2: found '1,2,3' before @data"),
        ("@targetLabel true\n@data\n1,2:high", "line 3: found the target 'high'; wanted a number"),
        ("@classLabel true a\n@data\na", "line 3: found 0 dimensions; wanted at least 1 and a"),
        ("@classLabel true a\n", "there is no @data line"),
        ("", "there is no @data line"),
        ("@data\n\n# nothing\n", "no line follows @data"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(ValueError, match=f"^file.ts.*{message}"):
        parse(text)


def test_a_line_that_is_not_utf8_is_named():
    with pytest.raises(ValueError, match=r"file.ts, line 2: .*utf-8"):
        parse_ts([b"@data", b"1,2\xff"], "file.ts")
