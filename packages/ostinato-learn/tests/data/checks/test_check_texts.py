"""Checks of documents: each finding is planted and found; novels, and noise, have none."""

from itertools import pairwise

import numpy as np
import pytest

from ostinato_learn import datasets
from ostinato_learn.data.checks import Finding, check_texts


@pytest.fixture(scope="module")
def novel():
    return datasets.austen()["Persuasion"]


@pytest.fixture(scope="module")
def documents(novel):
    """Two hundred stretches of a novel, of 500 to 900 characters."""
    ends = np.cumsum(np.random.default_rng(0).integers(500, 900, 201))
    return [novel[a:b] for a, b in pairwise(ends)]


def codes(*parts, **more):
    return [finding.code for finding in check_texts(*parts, **more)]


def only(findings, code) -> Finding:
    (found,) = [finding for finding in findings if finding.code == code]
    return found


# --- clean data -------------------------------------------------------------------------------


def test_a_novel_has_none(novel):
    cut = round(len(novel) * 0.8)
    assert codes([novel[:cut]], [novel[cut:]]) == []


def test_documents_have_none(documents):
    assert codes(documents) == []
    assert codes(documents[:150], documents[150:180], documents[180:]) == []
    assert codes(documents[:150], documents[150:], level="piece") == []


# --- across -----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["test", "validation"])
def test_the_same_document_in_two_parts(documents, part):
    planted = [*documents[150:], "  ".join(documents[7].split(" "))]
    found = only(check_texts(documents[:150], **{part: planted}), "same-document")
    assert (found.severity, found.count) == ("serious", 1)
    assert found.places[0].startswith(f"{part} document 51 and training document 8: ")


def test_short_documents_may_be_equal_by_chance():
    train = [f"number {i}" for i in range(300)]
    test = ["number 7", *(f"figure {i}" for i in range(200))]
    assert only(check_texts(train, test), "same-document").severity == "warning"


# --- within -----------------------------------------------------------------------------------


def test_copies(documents):
    for n, severity in ((3, "warning"), (20, "serious")):
        found = check_texts([*documents, *documents[:n]])
        assert [(f.severity, f.code, f.count) for f in found] == [(severity, "copies", n)]
        assert found[0].places[0].startswith("document 201 and document 1: ")


def test_copies_in_one_group_stay_on_one_side(documents):
    texts = [*documents, documents[0]]
    assert codes(texts, groups=np.array([*range(200), 0])) == []
    assert codes(texts, groups=np.arange(201)) == ["copies"]


def test_lines_of_most_documents(documents):
    footer = "\nSent from the telephone of the author."
    texts = [text + footer if i % 3 else text for i, text in enumerate(documents)]
    (found,) = check_texts(texts)
    assert (found.severity, found.code, found.count) == ("warning", "boilerplate", 1)
    assert found.places == ("'Sent from the telephone of the author.' 133 times",)


def test_lines_of_a_single_text(novel):
    lines = novel.split("\n")
    pages = ["\n".join(lines[i : i + 40]) for i in range(0, len(lines), 40)]
    text = "\n\nPERSUASION, by Jane Austen\n\n".join(pages)
    cut = round(len(text) * 0.8)
    assert codes([text[:cut]], [text[cut:]]) == ["boilerplate"]


# --- documents --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts, code, place",
    [
        (["", " \n"], "empty-document", "document 201"),
        (["Yes."], "one-word", "document 201 'Yes.'"),
        (["A long way. " * 900], "long-document", "document 201 'A long way. A long"),
        (["the MÃ¼nchen paper"], "broken-decoding", "document 201: 'the MÃ¼nchen paper'"),
        (["it wasnâ€™t said"], "broken-decoding", "document 201: 'it wasnâ€™t said'"),
        (["lost \ufffd\ufffd here"], "broken-decoding", "document 201: 'lost \ufffd\ufffd here'"),
        (["a \x00 byte"], "control-characters", r"document 201: 'a \x00 byte'"),
        (["a \x9f byte"], "control-characters", r"document 201: 'a \x9f byte'"),
    ],
)
def test_documents_that_are_not_right(documents, texts, code, place):
    found = only(check_texts([*documents, *texts]), code)
    assert found.count == len(texts)
    assert found.places[0].startswith(place)


def test_right_characters_of_other_languages():
    texts = ["Ça n'a pas été dit à l'âge de dix ans.", "NÃO, IRMÃ\u00a0! Â", "Größe: 5 µm £3", "€"]
    assert codes([*texts, "tabs\tand\nlines\r\n"]) == ["one-word"]


def test_documents_that_were_cut(documents):
    found = check_texts([text[:600] for text in documents])
    assert [(f.severity, f.code) for f in found] == [("note", "cut-document")]


# --- the vocabulary ---------------------------------------------------------------------------


def test_characters_that_are_not_in_the_training_part(documents):
    cyrillic = "Все счастливые семьи похожи друг на друга. " * 4
    found = only(check_texts(documents[:150], [*documents[150:], cyrillic]), "unknown-characters")
    assert found.places[0].startswith("test document 51 'Все")


def test_words_that_are_unknown(novel):
    cut = round(len(novel) * 0.8)
    parts = [novel[:cut]], [novel[cut:]]
    assert codes(*parts, level="word", vocabulary=10_000) == []
    found = only(check_texts(*parts, level="word", vocabulary=500), "unknown-words")
    assert found.severity == "warning"
    assert "unknown to a model of 500" in found.message


def test_nothing_to_learn_from():
    with pytest.raises(ValueError, match="the 2 documents have no text"):
        check_texts(["", " "])
