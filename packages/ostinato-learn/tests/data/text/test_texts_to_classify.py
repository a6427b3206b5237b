"""A row that is a text: its words are the steps."""

from __future__ import annotations

import io

import numpy as np
import pytest

from ostinato_learn.data import Preparation, Roles, read_examples, stream_examples
from ostinato_learn.data.text.words import Words, words_of

TEXTS = 'review,mood\nA fine film!,good\n"Dull, dull\nand long",bad\nFine.,good\n'


def read(tmp_path, text: str, roles: Roles):
    path = tmp_path / "file.csv"
    path.write_text(text, encoding="utf-8")
    return read_examples(path, roles)


def words(examples) -> list[list[str]]:
    (different,) = examples.categories.values()
    ends = np.cumsum(examples.lengths)[:-1]
    return [[different[int(i)] for i in part] for part in np.split(examples.values[:, 0], ends)]


def test_words_and_marks_in_small_letters():
    assert words_of("It's a no-brainer: WATCH it…") == [
        *["it's", "a", "no", "-", "brainer", ":", "watch", "it", "…"]
    ]


def test_the_words_of_a_text_are_the_steps(tmp_path):
    examples = read(tmp_path, TEXTS, Roles(target="mood", task="classify"))
    assert words(examples) == [
        ["a", "fine", "film", "!"],
        ["dull", ",", "dull", "and", "long"],
        ["fine", "."],
    ]
    assert examples.y.tolist() == ["good", "bad", "good"]
    assert examples.features == ("review",) and examples.roles.shape == "wide"


def test_a_preparation_gives_words_and_asks_for_the_column_by_name(tmp_path):
    examples = read(tmp_path, TEXTS, Roles(target="mood", task="classify"))
    preparation = Preparation.fit(examples)
    again = Preparation.from_json(preparation.as_json())
    found = again.apply(examples)
    assert isinstance(found, Words) and found.lengths.tolist() == [4, 5, 2]
    answers = read(tmp_path, "n,review\n1,Fine\n", again.roles.inputs())
    assert again.apply(answers).different == ("fine",)
    with pytest.raises(ValueError, match="'review'"):
        read(tmp_path, "text\nFine\n", again.roles.inputs())


def test_blocks_of_a_stream_have_the_same_words(tmp_path):
    lines = "".join(f"word{i} and word{i + 1},{'ab'[i % 2]}\n" for i in range(2000))
    whole = read(tmp_path, "text,label\n" + lines, Roles(target="label", task="classify"))
    roles = Preparation.fit(whole).roles.inputs()
    file = io.BytesIO(b"text\n" + "".join(f"word{i} once\n" for i in range(400)).encode())
    (part,) = stream_examples(file, roles)
    assert words(part)[399] == ["word399", "once"]


def test_words_in_rows_of_their_own_have_a_vocabulary_where_they_are_many(tmp_path):
    rows = "".join(f"{i // 3},w{i % 300},{'ab'[i // 3 % 2]}\n" for i in range(900))
    roles = Roles(id="s", features=("w",), target="y", task="classify")
    many = read(tmp_path, "s,w,y\n" + rows, roles)
    assert Preparation.fit(many).reads_words
    few = read(tmp_path, "s,w,y\n" + rows.replace("w1", "u"), roles)
    assert Preparation.fit(few).reads_words == (len(few.categories["w"]) > 256)


def test_a_missing_text_is_named(tmp_path):
    with pytest.raises(ValueError, match="line 3, column 'review': the text is missing"):
        read(tmp_path, "review,mood\nFine,good\n,bad\n", Roles(target="mood", task="classify"))
