"""Spans written as tags, one per step, and measures of predicted spans.

A *span* is a stretch of steps with a type: a name in a sentence, a gesture in a recording. A
*scheme* writes spans as tags "letter-type", and "O" outside of spans:

    steps           Jane     Austen   wrote    Emma     .
    spans           PER──────────┘             BOOK
    iob2            B-PER    I-PER    O        B-BOOK   O       begin, inside
    iobes           B-PER    E-PER    O        S-BOOK   O       begin, inside, end; single
    bilou           B-PER    L-PER    O        U-BOOK   O       begin, inside, last; unit

Tags are read strictly: a span counts only if its tags are those that the scheme writes. An "I-PER"
that follows no "B-PER" or "I-PER" is not a span; neither is, in iobes, a "B-PER" whose "E-PER" is
missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

OUTSIDE = "O"


class Span(NamedTuple):
    """The steps start … stop−1 of a sequence, and their type."""

    type: str
    start: int
    stop: int


@dataclass(frozen=True)
class _Scheme:
    """The letters of a scheme; `last` is None if spans have no closing letter."""

    begin: str
    inside: str
    last: str | None
    single: str | None

    @property
    def letters(self) -> set[str]:
        return {each for each in (self.begin, self.inside, self.last, self.single) if each}


SCHEMES = {
    "iob2": _Scheme("B", "I", None, None),
    "iobes": _Scheme("B", "I", "E", "S"),
    "bilou": _Scheme("B", "I", "L", "U"),
}


def spans(tags: Sequence[str], scheme: str = "iob2") -> list[Span]:
    """The spans of a sequence of tags, in their order.

    Args:
        tags: `[T]`, such as "B-PER" or "O"; "B" alone is a span of the type "".
        scheme: "iob2", "iobes" or "bilou".

    Raises:
        ValueError: the scheme is unknown, or does not have one of the tags.

    Example:
        >>> spans(["B-PER", "I-PER", "O", "B-BOOK", "I-PER"])
        [Span(type='PER', start=0, stop=2), Span(type='BOOK', start=3, stop=4)]
        >>> spans(["B-PER", "E-PER", "O", "B-BOOK", "O"], "iobes")
        [Span(type='PER', start=0, stop=2)]
    """
    letters = _scheme(scheme)
    read = _closed if letters.last else _unclosed
    return list(read([split_tag(tag, scheme) for tag in tags], letters))


def to_iob2(tags: Sequence[str], scheme: str) -> list[str]:
    """Tags of any scheme as tags of iob2.

    Args:
        tags: `[T]`.
        scheme: the scheme of the tags.

    Raises:
        ValueError: the scheme is unknown or does not have one of the tags, or a tag belongs to no
            span.

    Example:
        >>> to_iob2(["B-PER", "E-PER", "O", "S-BOOK"], "iobes")
        ['B-PER', 'I-PER', 'O', 'B-BOOK']
        >>> to_iob2(["O", "I-PER"], "iob2")
        Traceback (most recent call last):
        ...
        ValueError: the tag 'I-PER' at step 1 belongs to no span: in iob2 a span is B-type, then \
I-type; correct the tag, or name the scheme that the tags are in
    """
    found = spans(tags, scheme)
    result = from_spans(found, len(tags))
    for step, (came, written) in enumerate(zip(tags, result, strict=True)):
        if came != OUTSIDE and written == OUTSIDE:
            raise ValueError(
                f"the tag {str(came)!r} at step {step} belongs to no span: in {scheme} a span is "
                f"{_grammar(scheme)}; correct the tag, or name the scheme that the tags are in"
            )
    return result


def in_iob2(tag: str, scheme: str) -> str:
    """The tag of iob2 for a tag that belongs to a span.

    Example:
        >>> in_iob2("E-PER", "iobes"), in_iob2("U-PER", "bilou"), in_iob2("O", "bilou")
        ('I-PER', 'B-PER', 'O')
    """
    letter, kind = split_tag(tag, scheme)
    if letter == OUTSIDE:
        return tag
    begins = letter in (SCHEMES[scheme].begin, SCHEMES[scheme].single)
    return f"{'B' if begins else 'I'}-{kind}" if kind else "B" if begins else "I"


def from_spans(found: Iterable[Span], length: int, scheme: str = "iob2") -> list[str]:
    """The tags `[length]` that write spans, which do not overlap.

    Example:
        >>> from_spans([Span("PER", 0, 2), Span("BOOK", 3, 4)], 5, "bilou")
        ['B-PER', 'L-PER', 'O', 'U-BOOK', 'O']
    """
    letters = _scheme(scheme)
    tags = [OUTSIDE] * length
    for span in found:
        written = [letters.begin] + [letters.inside] * (span.stop - span.start - 1)
        if letters.last and len(written) > 1:
            written[-1] = letters.last
        if letters.single and len(written) == 1:
            written[0] = letters.single
        for step, letter in zip(range(span.start, span.stop), written, strict=True):
            tags[step] = f"{letter}-{span.type}" if span.type else letter
    return tags


def scheme_of(labels: Iterable[object]) -> str | None:
    """The scheme of a set of labels, by their letters; None if they are not tags.

    B and I alone are iob2, as in most files; E or S occur in iobes only, L or U in bilou only.

    Example:
        >>> scheme_of(["O", "B-PER", "I-PER"]), scheme_of(["O", "U-PER"]), scheme_of(["NOUN"])
        ('iob2', 'bilou', None)
    """
    tags = {label for label in labels if label != OUTSIDE}
    if not tags or not all(isinstance(tag, str) and tag[1:2] == "-" and tag[2:] for tag in tags):
        return None
    letters = {str(tag)[0] for tag in tags}
    fitting = [name for name, scheme in SCHEMES.items() if letters <= scheme.letters]
    return fitting[0] if fitting else None


def written_in(sequences: Sequence[Sequence[object]]) -> str | None:
    """The scheme in which all sequences of labels are valid; None if there is no such scheme.

    Labels with the letters of a scheme, but not always in a valid order, have no scheme.

    Example:
        >>> written_in([["O", "B-PER", "I-PER"]]), written_in([["O", "I-PER"]])
        ('iob2', None)
    """
    scheme = scheme_of(label for labels in sequences for label in labels)
    if scheme is None:
        return None
    for labels in sequences:
        tags = [str(label) for label in labels]
        covered = sum(span.stop - span.start for span in spans(tags, scheme))
        if covered != sum(tag != OUTSIDE for tag in tags):
            return None
    return scheme


def can_follow(tag: str, before: str | None) -> bool:
    """Whether a tag of iob2 may follow another; `before` is None at a sequence's start.

    Example:
        >>> can_follow("I-PER", "B-PER"), can_follow("I-PER", "B-BOOK"), can_follow("I-PER", None)
        (True, False, False)
    """
    letter, kind = split_tag(tag, "iob2")
    if letter != "I":
        return True
    return before is not None and split_tag(before, "iob2") in (("B", kind), ("I", kind))


@dataclass(frozen=True)
class SpanScores:
    """How predicted spans agree with the true ones. A span is right if type and extent are.

    Attributes:
        n_true, n_predicted, n_right: numbers of spans.
        by_type: the scores of each type that occurs, by its name.
    """

    n_true: int
    n_predicted: int
    n_right: int
    by_type: dict[str, SpanScores] = field(default_factory=dict)

    @property
    def precision(self) -> float:
        """The share of the predicted spans that are right; 0 if there are none."""
        return self.n_right / self.n_predicted if self.n_predicted else 0.0

    @property
    def recall(self) -> float:
        """The share of the true spans that were found; 0 if there are none."""
        return self.n_right / self.n_true if self.n_true else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; 0 if no span is right."""
        both = self.n_true + self.n_predicted
        return 2 * self.n_right / both if both else 0.0

    def __add__(self, other: SpanScores) -> SpanScores:
        """The scores of the sequences of both together."""
        kinds = sorted(self.by_type.keys() | other.by_type.keys())
        none = SpanScores(0, 0, 0)
        return SpanScores(
            self.n_true + other.n_true,
            self.n_predicted + other.n_predicted,
            self.n_right + other.n_right,
            {k: self.by_type.get(k, none) + other.by_type.get(k, none) for k in kinds},
        )


def span_scores(
    true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: str = "iob2"
) -> SpanScores:
    """Compare the spans of predicted tags with those of the true ones.

    The numbers are those of seqeval's strict mode with its average "micro".

    Args:
        true, predicted: N sequences of tags, of the same lengths.
        scheme: the scheme of both.

    Raises:
        ValueError: the lengths differ, or the scheme does not have one of the tags.

    Example:
        >>> true = ["B-PER", "I-PER", "O", "B-BOOK"]
        >>> scores = span_scores([true], [["B-PER", "O", "O", "B-BOOK"]])
        >>> scores.precision, scores.recall, scores.f1, scores.by_type["BOOK"].f1
        (0.5, 0.5, 0.5, 1.0)
    """
    n_true: Counter[str] = Counter()
    n_predicted: Counter[str] = Counter()
    n_right: Counter[str] = Counter()
    for one, other in _pairs(true, predicted):
        wanted, came = set(spans(one, scheme)), set(spans(other, scheme))
        n_true.update(span.type for span in wanted)
        n_predicted.update(span.type for span in came)
        n_right.update(span.type for span in wanted & came)
    by_type = {
        kind: SpanScores(n_true[kind], n_predicted[kind], n_right[kind])
        for kind in sorted(n_true.keys() | n_predicted.keys())
    }
    return SpanScores(n_true.total(), n_predicted.total(), n_right.total(), by_type)


def span_errors(
    true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: str = "iob2"
) -> dict[str, int]:
    """The errors of predicted spans: a count of each kind.

    Returns:
        A dict of, in this order,
            "right": true spans that were predicted as they are;
            "wrong type": true spans whose extent was predicted with another type;
            "wrong extent": other true spans that a predicted span of their type overlaps;
            "wrong both": other true spans that a predicted span overlaps;
            "missed": true spans that no predicted span overlaps;
            "spurious": predicted spans that overlap no true span.

    Example:
        >>> span_errors([["B-PER", "I-PER", "O"]], [["B-PER", "O", "B-BOOK"]])["wrong extent"]
        1
    """
    kinds = ("right", "wrong type", "wrong extent", "wrong both", "missed", "spurious")
    counts = dict.fromkeys(kinds, 0)
    for one, other in _pairs(true, predicted):
        wanted, came = spans(one, scheme), spans(other, scheme)
        for span in wanted:
            counts[_error(span, [each for each in came if _overlap(span, each)])] += 1
        counts["spurious"] += sum(not any(_overlap(s, each) for s in wanted) for each in came)
    return counts


def split_tag(tag: str, scheme: str) -> tuple[str, str]:
    """A tag's letter and type; outside of spans the type is "".

    Raises:
        ValueError: the scheme does not have this tag.

    Example:
        >>> split_tag("B-PER", "iob2"), split_tag("O", "iob2")
        (('B', 'PER'), ('O', ''))
    """
    letters = _scheme(scheme).letters
    if tag == OUTSIDE:
        return OUTSIDE, ""
    letter, dash, kind = str(tag).partition("-")
    if letter not in letters or bool(dash) != bool(kind):
        wanted = ", ".join(f"{each}-type" for each in sorted(letters))
        raise ValueError(f"the scheme {scheme} has no tag {str(tag)!r}; wanted {wanted} or O")
    return letter, kind


def _scheme(name: str) -> _Scheme:
    if name not in SCHEMES:
        raise ValueError(f"scheme={name!r}: wanted one of {', '.join(map(repr, SCHEMES))}")
    return SCHEMES[name]


def _grammar(name: str) -> str:
    scheme = SCHEMES[name]
    if scheme.last is None:
        return f"{scheme.begin}-type, then {scheme.inside}-type"
    return (
        f"{scheme.begin}-type, then {scheme.inside}-type, then {scheme.last}-type, "
        f"or {scheme.single}-type alone"
    )


def _unclosed(tags: list[tuple[str, str]], letters: _Scheme) -> Iterator[Span]:
    """Spans that end where the next tag does not continue them."""
    start, kind = None, ""
    for step, (letter, of) in enumerate([*tags, (OUTSIDE, "")]):
        if start is not None and (letter, of) != (letters.inside, kind):
            yield Span(kind, start, step)
            start = None
        if letter == letters.begin:
            start, kind = step, of


def _closed(tags: list[tuple[str, str]], letters: _Scheme) -> Iterator[Span]:
    """Spans that end with a letter of their own."""
    start, kind = None, ""
    for step, (letter, of) in enumerate(tags):
        if letter == letters.begin:
            start, kind = step, of
            continue
        if letter == letters.single:
            yield Span(of, step, step + 1)
        elif letter == letters.last and start is not None and of == kind:
            yield Span(kind, start, step + 1)
        elif letter == letters.inside and of == kind:
            continue
        start = None


def _pairs(
    true: Sequence[Sequence[object]], predicted: Sequence[Sequence[object]]
) -> Iterator[tuple[list[str], list[str]]]:
    """The pairs of sequences as lists."""
    if len(true) != len(predicted):
        raise ValueError(
            f"there are {len(true)} true sequences and {len(predicted)} predicted ones; "
            "wanted the same sequences"
        )
    for i, (one, other) in enumerate(zip(true, predicted, strict=True)):
        if len(one) != len(other):
            raise ValueError(
                f"sequence {i} has {len(one)} true labels and {len(other)} predicted ones; "
                "wanted one of each per step"
            )
        yield list(one), list(other)  # type: ignore[arg-type]


def _overlap(one: Span, other: Span) -> bool:
    return one.start < other.stop and other.start < one.stop


def _error(span: Span, overlapping: list[Span]) -> str:
    if span in overlapping:
        return "right"
    if any((each.start, each.stop) == (span.start, span.stop) for each in overlapping):
        return "wrong type"
    if any(each.type == span.type for each in overlapping):
        return "wrong extent"
    return "wrong both" if overlapping else "missed"
