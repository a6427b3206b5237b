"""Checks of documents: each finding is planted and found; novels, and noise, have none."""

from itertools import pairwise

import numpy as np
import pytest

from ostinato import datasets
from ostinato.data.checks import Finding, check_texts, passages
from ostinato.data.checks.passages import BLOCK, WINDOW, near_pairs, windows


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


def changed(text, every):
    """The text with every so-manyth character another one."""
    return "".join("x" if i % every == 0 else c for i, c in enumerate(text))


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


def test_near_copies_across(documents):
    test = [*documents[150:], *(changed(documents[i], 100) for i in (3, 4, 5))]
    found = check_texts(documents[:150], test)
    assert [f.code for f in found] == ["near-copies-across"]
    assert (found[0].severity, found[0].count) == ("serious", 3)
    assert codes(documents[:150], [*documents[150:], changed(documents[3], 15)]) == []


def test_a_passage_of_the_training_part(novel):
    cut = round(len(novel) * 0.8)
    train, test = novel[:cut], novel[cut:]
    for length, severity in ((2 * BLOCK + 100, "warning"), (3_000, "serious")):
        planted = test[:5000] + train[70_001 : 70_001 + length] + test[5000:]
        (found,) = check_texts([train], [planted])
        assert (found.severity, found.code, found.count) == (severity, "same-passage", 1)
    assert codes([train], [test[:5000] + train[70_001 : 70_001 + BLOCK - 5] + test[5000:]]) == []


@pytest.mark.parametrize("offset", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_every_passage_of_twice_a_block_is_found(novel, offset):
    plain = " ".join(novel[:20_000].split())
    shared = plain[3000 + offset : 3000 + offset + 2 * BLOCK - 1]
    (found,) = passages.passages(["", plain], ["x", f"1{shared}2"])
    assert found.document == 1
    assert found.start >= 1
    assert found.start + found.length <= 1 + len(shared)
    assert passages.passages([plain], [shared[: BLOCK - 1]]) == []
    assert passages.passages(["-" * 1000], ["-" * 1000]) == []


# --- within -----------------------------------------------------------------------------------


def test_copies_and_near_copies(documents):
    for n, severity in ((3, "warning"), (20, "serious")):
        found = check_texts([*documents, *documents[:n]])
        assert [(f.severity, f.code, f.count) for f in found] == [(severity, "copies", n)]
    found = check_texts([*documents, changed(documents[9], 100)])
    assert [(f.severity, f.code, f.count) for f in found] == [("warning", "near-copies", 1)]
    assert found[0].places[0].startswith("document 201 and document 10: ")


def test_copies_in_one_group_stay_on_one_side(documents):
    texts = [*documents, documents[0], changed(documents[9], 100)]
    groups = np.array([*range(200), 0, 9])
    assert codes(texts, groups=groups) == []
    assert codes(texts, groups=np.arange(202)) == ["copies", "near-copies"]


def test_near_pairs_are_those_of_a_loop(documents, monkeypatch):
    texts = [*documents[:30], *(changed(documents[i], 80) for i in range(10)), "short", ""]

    def has(text):
        return {text[i : i + WINDOW] for i in range(len(text) - WINDOW + 1)}

    sets = [has(text) for text in texts]
    wanted = [
        [a, b]
        for a in range(len(texts))
        for b in range(a + 1, len(texts))
        if len(sets[a] & sets[b]) >= max(4, 0.5 * max(len(sets[a]), len(sets[b])))
    ]
    assert len(wanted) == 10
    assert near_pairs(texts).tolist() == wanted
    assert near_pairs(texts, 30).tolist() == wanted
    assert near_pairs(texts, 35).tolist() == wanted[5:]
    monkeypatch.setattr(passages, "MOST_WINDOWS", 12_000)  # a half of the windows
    assert near_pairs(texts).tolist() == wanted


def test_windows_do_not_depend_on_the_pieces(documents, monkeypatch):
    def all_of():
        return [np.concatenate(part) for part in zip(*windows(documents[:9], 24, 7), strict=True)]

    whole = all_of()
    monkeypatch.setattr(passages, "_AT_ONCE", 300)
    for a, b in zip(whole, all_of(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(whole[0]) == sum(-(-(len(text) - 23) // 7) for text in documents[:9])


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
