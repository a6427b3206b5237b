"""How a CSV file is written, recognised where one reading makes sense and left alone elsewhere."""

from __future__ import annotations

import logging

import pytest

from ostinato_learn.data import read_examples
from ostinato_learn.data.formats.dialect import Dialect
from ostinato_learn.data.formats.recognize import recognised

RECOGNISED = {
    "a German export": (
        "id;Größe;art\r\na;1.180,32;süß\r\n".encode("cp1252"),
        ".csv",
        Dialect(";", ",", "cp1252", thousands="."),
    ),
    "decimal commas": (b"id;x\na;1,5\na;-2,25\n", ".csv", Dialect(";", ",")),
    "quoted decimal commas": (b'id,x\na,"1,5"\n', ".csv", Dialect(decimal=",")),
    "decimals of one column say what points of another are": (
        b"id;x;y\na;1,5;1.180\n",
        ".csv",
        Dialect(";", ",", thousands="."),
    ),
    "a marker among numbers": (b"id;x\na;1,5\na;n.v.\na;2\n", ".csv", Dialect(";", ",")),
    "whole thousands beside hundreds": (
        b"id;x\na;950\na;1.180\n",
        ".csv",
        Dialect(";", ",", thousands="."),
    ),
    "the same in English": (b"id;x\na;950\na;1,180\n", ".csv", Dialect(";", thousands=",")),
    "millions": (b"id;x\na;1.180.320\n", ".csv", Dialect(";", ",", thousands=".")),
    "thousands of English": (b"id;x;y\na;1,180.5;0.5\n", ".csv", Dialect(";", thousands=",")),
    "a comma in a name": (b"id;x, cm\na;1\na;2\n", ".csv", Dialect(";")),
    "tabs and quotes": (b'"id"\t"x"\n"a"\t"b ""c"", d"\n', ".csv", Dialect("\t")),
    "commas": (b"id,x\na,1\n", ".tsv", Dialect(",")),
    "UTF-16": ("id,x\nü,1\n".encode("utf-16"), ".csv", Dialect(encoding="utf-16")),
    "below comments": (b"# by a logger\nid;x\na;1,5\n", ".csv", Dialect(";", ",")),
}


@pytest.mark.parametrize("case", RECOGNISED)
def test_one_reading(case):
    content, kind, wanted = RECOGNISED[case]
    assert recognised(content, kind, "f", Dialect()) == wanted


UNCHANGED = {
    "plain": b"id,x\na,1.5\n",
    "two separators": b"id;x|y\na;1|2\n",
    "another letter in each encoding": "id,x\nè,1\n".encode("cp1252"),
    "of DOS": "id,x\nä,1\n".encode("cp437"),
    "of the Macintosh": "id,x\nä,1\n".encode("mac_roman"),
    "Russian": "id,x\nгод,1\n".encode("cp1251"),
    "codes that a comma separates": b"id,codes\na,1;2\nb,3;4\n",
}


@pytest.mark.parametrize("case", UNCHANGED)
def test_no_reading_or_two(case):
    assert recognised(UNCHANGED[case], ".csv", "f", Dialect()) == Dialect()


@pytest.mark.parametrize(
    "numbers",
    [
        ["1,180"],
        ["1.180"],
        ["950", "1.185"],
        ["1.180", "2.000"],
        ["9", "1.180", "0.500"],
        ["1,5;1.25"],
        ["1,5;0.180"],
        ["1.180,32;1,180.32"],
    ],
)
def test_numbers_with_two_readings_are_unchanged(numbers):
    content = "\n".join(["id;x" + ";y" * numbers[0].count(";"), *(f"a;{n}" for n in numbers)])
    assert recognised(content.encode(), ".csv", "f", Dialect()) == Dialect(";")


def test_what_was_given_is_kept():
    content = "id;x\nü;1.180,32\n".encode("cp1252")
    given = Dialect("|", ".", "latin-1")
    assert recognised(content, ".csv", "f", given) == given
    fixed = ("decimal", "encoding", "separator", "thousands")
    assert recognised(content, ".csv", "f", Dialect(), fixed) == Dialect()


def test_it_is_said_in_one_line(tmp_path, caplog):
    path = tmp_path / "a.csv"
    path.write_bytes("id;Größe\na;1.180,32\na;2,5\nb;3\n".encode("cp1252"))
    with caplog.at_level(logging.WARNING):
        found = read_examples(path, id="id")
    assert "read as: ; decimal , thousands . cp1252" in caplog.messages[0]
    assert found.values[:, 0].tolist() == pytest.approx([1180.32, 2.5, 3])  # float32
    assert found.roles.decimal == ","
    with pytest.raises(ValueError, match="Größe"):
        read_examples(path, id="id", decimal=".")
