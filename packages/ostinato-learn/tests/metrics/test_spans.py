"""Spans from tags, and their scores, beside seqeval and beside definitions written anew."""

from __future__ import annotations

import itertools
import random
import re
import warnings

import pytest

from ostinato_learn.metrics.spans import (
    SCHEMES,
    Span,
    can_follow,
    from_spans,
    in_iob2,
    scheme_of,
    span_errors,
    span_scores,
    spans,
    split_tag,
    to_iob2,
    written_in,
)

LETTERS = {"iob2": "BI", "iobes": "BIES", "bilou": "BILU"}
# What a span is in each scheme, as a regular expression over its letters.
GRAMMAR = {"iob2": "BI*", "iobes": "S|BI*E", "bilou": "U|BI*L"}


def random_tags(rng: random.Random, scheme: str, types: str = "xy") -> list[str]:
    every = ["O", *(f"{a}-{b}" for a in LETTERS[scheme] for b in types)]
    return rng.choices(every, k=rng.randint(1, 9))


def random_spans(rng: random.Random, length: int) -> list[Span]:
    found, step = [], 0
    while step < length:
        stop = rng.randint(step + 1, length)
        if rng.random() < 0.5:
            found.append(Span(rng.choice("xy"), step, stop))
        step = stop
    return found


def slow_spans(tags: list[str], scheme: str) -> list[Span]:
    """Every stretch of one type that the grammar accepts and that no longer one contains."""
    found = []
    for start, stop in itertools.combinations(range(len(tags) + 1), 2):
        stretch = tags[start:stop]
        letters = "".join(tag[0] for tag in stretch)
        same = len({tag[1:] for tag in stretch}) == 1
        if same and stretch[0] != "O" and re.fullmatch(GRAMMAR[scheme], letters):
            found.append(Span(stretch[0][2:], start, stop))
    return [s for s in found if not any(o != s and o[1] <= s[1] and s[2] <= o[2] for o in found)]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_spans_are_those_of_the_grammar(scheme):
    rng = random.Random(0)
    for _ in range(2000):
        tags = random_tags(rng, scheme)
        assert spans(tags, scheme) == slow_spans(tags, scheme), tags


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scores_are_seqevals_in_strict_mode(scheme):
    pytest.importorskip("seqeval")
    from seqeval import metrics
    from seqeval import scheme as schemes

    rng = random.Random(1)
    theirs = getattr(schemes, scheme.upper())
    for _ in range(300):
        true = [random_tags(rng, scheme) for _ in range(rng.randint(1, 4))]
        predicted = [
            [t if rng.random() < 0.7 else random_tags(rng, scheme)[0] for t in tags]
            for tags in true
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where a number is 0 / 0
            precision, recall, f1 = (
                measure(true, predicted, mode="strict", scheme=theirs, zero_division=0)
                for measure in (metrics.precision_score, metrics.recall_score, metrics.f1_score)
            )
        scores = span_scores(true, predicted, scheme)
        assert scores.precision == pytest.approx(precision)
        assert scores.recall == pytest.approx(recall)
        assert scores.f1 == pytest.approx(f1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_written_is_read(scheme):
    rng = random.Random(2)
    for _ in range(500):
        length = rng.randint(1, 8)
        found = random_spans(rng, length)
        tags = from_spans(found, length, scheme)
        assert spans(tags, scheme) == found
        assert to_iob2(tags, scheme) == from_spans(found, length)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_tags_that_belong_to_spans_become_iob2_one_by_one(scheme):
    found = [Span("PER", 0, 1), Span("BOOK", 1, 4), Span("", 5, 7), Span("", 7, 8)]
    tags = from_spans(found, 9, scheme)
    assert [in_iob2(tag, scheme) for tag in tags] == to_iob2(tags, scheme)


def test_scores_of_parts_add_up():
    true = [["B-PER", "I-PER", "O"], ["B-BOOK", "O"], ["B-PER", "B-PER"]]
    predicted = [["B-PER", "O", "O"], ["B-BOOK", "B-CITY"], ["B-PER", "B-BOOK"]]
    parts = [span_scores(true[i : i + 1], predicted[i : i + 1]) for i in range(3)]
    assert parts[0] + parts[1] + parts[2] == span_scores(true, predicted)


def test_a_type_may_be_missing_or_have_dashes():
    assert spans(["B", "I", "O", "B-a-b"]) == [Span("", 0, 2), Span("a-b", 3, 4)]
    assert from_spans([Span("", 0, 2)], 2) == ["B", "I"]


def test_iob2_can_follow_is_the_grammar():
    tags = ["O", "B-x", "I-x", "B-y", "I-y"]
    for before, tag in itertools.product([None, *tags], tags):
        line = ([before] if before else []) + [tag]
        if before and before.startswith("I"):
            line.insert(0, "B" + before[1:])
        covered = sum(s.stop - s.start for s in spans(line))
        whole = covered == sum(t != "O" for t in line)
        assert can_follow(tag, before) == whole, line


def test_scores_by_type_add_up():
    rng = random.Random(3)
    true = [random_tags(rng, "iob2") for _ in range(50)]
    predicted = [rng.sample(tags, len(tags)) for tags in true]
    scores = span_scores(true, predicted)
    for name in ("n_true", "n_predicted", "n_right"):
        assert getattr(scores, name) == sum(getattr(s, name) for s in scores.by_type.values())
    errors = span_errors(true, predicted)
    assert errors["right"] == scores.n_right > 0
    assert sum(errors.values()) - errors["spurious"] == scores.n_true
    assert all(errors.values())


def test_each_kind_of_error_is_reported():
    true = ["B-x", "I-x", "O", "B-y", "O", "B-x", "I-x", "O", "B-x", "O", "O", "B-y"]
    came = ["B-x", "I-x", "O", "B-x", "O", "B-x", "O", "O", "O", "O", "B-y", "I-y"]
    assert span_errors([true], [came]) == {
        "right": 1,
        "wrong type": 1,
        "wrong extent": 2,
        "wrong both": 0,
        "missed": 1,
        "spurious": 0,
    }
    assert span_errors([["O", "B-x"]], [["B-y", "I-y"]])["wrong both"] == 1
    assert span_errors([["O", "O"]], [["B-y", "I-y"]])["spurious"] == 1


def test_without_spans_all_scores_are_zero():
    scores = span_scores([["O"]], [["O"]])
    assert (scores.precision, scores.recall, scores.f1) == (0, 0, 0)


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        (["O", "B-x", "I-x"], "iob2"),
        (["B-x", "E-x", "I-x"], "iobes"),
        (["S-x"], "iobes"),
        (["L-x", "B-x", "O"], "bilou"),
        (["O"], None),
        (["B-x", "E-x", "U-x"], None),
        (["NOUN", "O"], None),
        ([0, 1], None),
    ],
)
def test_the_scheme_is_inferred_from_the_letters(labels, scheme):
    assert scheme_of(labels) == scheme


def test_a_scheme_is_written_in_if_all_sequences_are():
    rng = random.Random(4)
    for scheme in SCHEMES:
        tags = [from_spans(random_spans(rng, 8), 8, scheme) for _ in range(20)]
        assert written_in(tags) == scheme
        broken = [[*each[:-1], f"{LETTERS[scheme][1]}-z"] for each in tags[:1]]
        assert written_in([*tags, *broken]) is None
    assert written_in([["NOUN"], ["O"]]) is None
    assert written_in([[1, 2]]) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spans(["E-x"]), "the scheme iob2 has no tag 'E-x'; wanted B-type, I-type or O"),
        (lambda: split_tag("B-", "iob2"), "the scheme iob2 has no tag 'B-'"),
        (lambda: spans(["O"], "iob1"), "scheme='iob1': wanted one of 'iob2', 'iobes', 'bilou'"),
        (lambda: to_iob2(["B-x", "I-y"], "iob2"), "the tag 'I-y' at step 1 belongs to no span"),
        (lambda: to_iob2(["B-x", "I-x"], "iobes"), "the tag 'B-x' at step 0 belongs to no span"),
        (lambda: span_scores([["O"]], []), "1 true sequences and 0 predicted"),
        (lambda: span_scores([["O"]], [["O", "O"]]), "sequence 0 has 1 true labels and 2"),
    ],
)
def test_an_error_says_what_came_and_what_was_wanted(call, message):
    with pytest.raises(ValueError, match=message):
        call()
