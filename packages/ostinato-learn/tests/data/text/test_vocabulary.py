from __future__ import annotations

import json

import numpy as np
import pytest

from ostinato_learn.data.text.vocabulary import END, LEVELS, SPECIAL, UNKNOWN, Vocabulary

TEXT = "She said: \"Don't go -- not yet, Mr. Smith-Jones (it's £5).\"\n\tWhy? 100% naïve… 😀"


def fitted(level, documents, size=None):
    if level == "piece":
        pytest.importorskip("tokenizers")
        size = size or 300
    return Vocabulary.fit(documents, level, size)


@pytest.mark.parametrize("level", ["character", "piece"])
def test_characters_and_pieces_give_every_text_back(level):
    vocabulary = fitted(level, [TEXT, "and more of it"])
    for text in (TEXT, "", "go", "\n"):
        numbers = vocabulary.encode(text)
        assert numbers.dtype == np.int32
        assert vocabulary.decode(numbers) == text
        assert not np.isin(numbers, [END, UNKNOWN]).any()


def test_pieces_know_every_text_also_an_end_written_out():
    vocabulary = fitted("piece", ["abc"])
    for text in ("<end>", "語 �", "<|endoftext|>", "\x00\x01"):
        assert vocabulary.decode(vocabulary.encode(text)) == text
        assert vocabulary.encode(text).min() >= SPECIAL


def test_characters_are_numbered_in_the_order_of_their_code_points():
    vocabulary = Vocabulary.fit(["cab", "😀a"], "character")
    assert vocabulary.strings == ("", "", "a", "b", "c", "😀")
    assert vocabulary.encode("a😀z").tolist() == [2, 5, UNKNOWN]
    assert vocabulary.decode([2, END, UNKNOWN]) == "a�"


def test_encoding_equals_a_dictionary():
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(32, 500, 200))) for _ in range(3)]
    vocabulary = Vocabulary.fit(texts[:2], "character")
    numbers = {text: i for i, text in enumerate(vocabulary.strings) if text}
    wanted = [numbers.get(c, UNKNOWN) for c in texts[2]]
    assert vocabulary.encode(texts[2]).tolist() == wanted
    assert UNKNOWN in wanted


def test_words_are_cut_and_joined():
    vocabulary = Vocabulary.fit([TEXT] * 2, "word")
    numbers = vocabulary.encode(TEXT)
    words = [vocabulary.strings[i] for i in numbers]
    assert words[:10] == ["She", "said", ":", '"', "Don't", "go", "-", "-", "not", "yet"]
    assert words[words.index("Smith") :][:3] == ["Smith", "-", "Jones"] and "it's" in words
    assert vocabulary.decode(numbers[:7]) == "She said: \"Don't go-"
    again = vocabulary.decode(vocabulary.encode('He said "yes," and "no" (twice).'))
    assert again == '<unk> said "<unk>," <unk> "<unk>" (<unk>).'


def test_a_word_seen_once_is_unknown_and_a_size_keeps_the_most_frequent():
    documents = ["a a a b b b c c d"]
    assert Vocabulary.fit(documents, "word").strings == ("", "", "a", "b", "c")
    assert Vocabulary.fit(documents, "word", 4).strings == ("", "", "a", "b")
    assert Vocabulary.fit(["bbaac"], "character", 3).strings == ("", "", "a")


def test_keys():
    vocabulary = Vocabulary.fit(["to be, or. to be, or."], "word")
    keys = dict(zip(vocabulary.strings[SPECIAL:], vocabulary.keys()[SPECIAL:], strict=True))
    assert keys == {"to": "to ", "be": "be ", ",": ",", "or": "or ", ".": "."}


@pytest.mark.parametrize(
    ("level", "text", "wanted"),
    [
        ("character", "the qu", ("the qu", "")),
        ("word", "the qu", ("the ", "qu")),
        ("word", "the ", ("the ", "")),
        ("word", "the,", ("the,", "")),
        ("word", "the", ("", "the")),
        ("word", "", ("", "")),
        ("word", "(th", ("(", "th")),
        ("word", "one\ntw", ("one\n", "tw")),
        ("word", "one two-th", ("one two-", "th")),
        ("piece", "the qu", ("the", " qu")),
        ("piece", "the", ("", "the")),
        ("piece", "the ", ("the", " ")),
        ("piece", "", ("", "")),
        ("piece", "two\nthe qu", ("two\nthe", " qu")),
        ("piece", "two\n\nqu", ("two\n\n", "qu")),
        ("piece", "two\n", ("two\n", "")),
        ("piece", "two\n  qu", ("two\n ", " qu")),
        ("piece", "T:the qu", ("T:the", " qu")),
        ("piece", "K:Am", ("K:", "Am")),
        ("piece", "two, (on", ("two, (", "on")),
        ("piece", "é 12", ("é", " 12")),
    ],
)
def test_what_is_being_typed_is_cut_off(level, text, wanted):
    vocabulary = fitted(level, ["the two one"] * 2)
    whole, beginning = vocabulary.typed(text)
    assert (whole, beginning) == wanted
    assert whole + beginning == text


def test_what_is_being_typed_of_pieces_is_read_as_it_will_be():
    """No piece goes from what is whole into the beginning: both together are read the same.

    (Several blanks in a row are not cut up as long as nothing follows them.)
    """
    text = "X:12\nT:the two (one), don't\nK:Am é-é\n|:A2B|c'd::e f\t12 !"
    vocabulary = fitted("piece", [text] * 2)
    for end in range(len(text) + 1):
        whole, beginning = vocabulary.typed(text[:end])
        apart = [*vocabulary.encode(whole), *vocabulary.encode(beginning)]
        assert apart == vocabulary.encode(text[:end]).tolist()


@pytest.mark.parametrize("level", LEVELS)
def test_it_comes_back_from_json(level):
    vocabulary = fitted(level, [TEXT] * 2)
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.as_json())), "here")
    assert again.strings == vocabulary.strings
    assert again.encode(TEXT).tolist() == vocabulary.encode(TEXT).tolist()


@pytest.mark.parametrize(
    "saved",
    [
        None,
        {"level": "sentence", "strings": []},
        {"level": "word"},
        {"level": "word", "strings": ["a", "a"]},
        {"level": "word", "strings": ["a", 3]},
        {"level": "word", "strings": [""]},
        {"level": "character", "strings": ["ab"]},
    ],
)
def test_a_damaged_one_is_refused(saved):
    with pytest.raises(ValueError, match=r"^here .* damaged"):
        Vocabulary.from_json(saved, "here")


def test_errors():
    with pytest.raises(ValueError, match="level='line'; wanted one of 'character', 'word'"):
        Vocabulary.fit(["a"], "line")
    with pytest.raises(ValueError, match=r"3 different words.*wanted a word that occurs twice"):
        Vocabulary.fit(["a b c"], "word")
    with pytest.raises(ValueError, match="0 different characters"):
        Vocabulary.fit([""], "character")
    pytest.importorskip("tokenizers")
    with pytest.raises(ValueError, match="vocabulary_size=257 with level='piece'; wanted 258"):
        Vocabulary.fit(["abc"], "piece", 257)
