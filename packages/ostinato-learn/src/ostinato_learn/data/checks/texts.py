"""`check_texts`: what in documents would make a language model's results misleading."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from ostinato_learn.data.checks.contents import CUT_SHARE, OUTLYING_LENGTH
from ostinato_learn.data.checks.finding import SEVERITIES, Finding, plural, share
from ostinato_learn.data.checks.repeats import LEAK_SHARE, SERIOUS_SHARE
from ostinato_learn.data.text.vocabulary import UNKNOWN, Vocabulary

# UTF-8 that was read as Latin-1 or Windows-1252 (a no-break space after Ã may be right, in
# capitals), and characters that a decoder could not read.
BROKEN = re.compile(r"\ufffd+|[ÂÃ][\u0080-\u009f¡-¿€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|â€.|ï»¿")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufeff]+")
BLOCK = 150  # characters; equal stretches of this length are not chance
LINE = 20  # characters, from which on a repeated line is boilerplate
MOST = 0.5  # of the documents
OF_LINES = 0.01  # of the long lines of a single text
FEW = 10  # documents or occurrences; with fewer, "most" means nothing
UNKNOWN_SHARE = {"character": 0.001, "word": 0.1}
QUOTED = 40  # characters


@dataclass(frozen=True)
class TextSide:
    """Documents of one part; equal ones may differ in blanks and line ends.

    Attributes:
        name: "training", "test", "validation", or "" where there is one part only.
    """

    name: str
    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def plain(self) -> list[str]:
        """The texts with one blank for each stretch of blanks and line ends."""
        return [" ".join(text.split()) for text in self.texts]

    @property
    def documents(self) -> str:
        return f"{self.name} documents".strip()

    def place(self, i: int) -> str:
        quote = self.plain[i][:QUOTED] + ("…" if len(self.plain[i]) > QUOTED else "")
        return f"{self.name} document {i + 1}".strip() + (f" {quote!r}" if quote else "")


def check_texts(
    train: Sequence[str],
    test: Sequence[str] | None = None,
    validation: Sequence[str] | None = None,
    *,
    groups: np.ndarray | None = None,
    level: str = "character",
    vocabulary: int | None = None,
) -> list[Finding]:
    """Look for errors in the documents of a language model.

    Args:
        train: N documents. Without other parts they are one file that is to be split.
        test, validation: those of the other parts.
        groups: `[N]`, the group of each, which a split keeps together; copies within a group are
            not reported.
        level: "character", "word" or "piece".
        vocabulary: the largest number of words of the model.

    Returns:
        The findings, the serious ones first. The same documents give the same findings.

    Raises:
        ValueError: there is no text to learn from.

    Example:
        >>> from ostinato_learn.data.checks import check_texts
        >>> [f.code for f in check_texts(["A text.", "Another one.", "A third\\ufffd one."])]
        ['broken-decoding']
        >>> [f.message for f in check_texts(["A text.", "Another one."], test=["A text."])]
        ['1 of 1 (100 %) test documents are training documents too; results on them say nothing \
about new text']
    """
    given = {"test": test, "validation": validation}
    others = [TextSide(name, texts) for name, texts in given.items() if texts]
    side = TextSide("training" if others else "", train)
    if not any(side.plain):
        raise ValueError(f"the {len(side)} documents have no text; wanted some to learn from")
    found = [*_copies(side, groups, apart=bool(others)), *_boilerplate(side)]
    for part in (side, *others):
        found += [*_lengths(part), *_characters(part)]
    for other in others:
        found += _across(side, other)
    found += _unknown(side, others[0] if others else side, level, vocabulary)
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _first_equal(side: TextSide, other: TextSide) -> np.ndarray:
    """For each document of `other` the first of `side` that equals it, or −1; −1 if empty."""
    first: dict[str, int] = {"": -1}
    for i, text in enumerate(side.plain):
        first.setdefault(text, i)
    return np.array([first.get(text, -1) for text in other.plain], np.int64)


def _copies(side: TextSide, groups: np.ndarray | None, apart: bool) -> Iterator[Finding]:
    """Documents that equal another of the training part."""
    first = _first_equal(side, side)
    is_copy = (first >= 0) & (first != np.arange(len(side)))
    b = np.flatnonzero(is_copy)
    copies = np.stack([first[b], b], axis=1)
    if groups is not None:
        copies = copies[groups[copies[:, 0]] != groups[copies[:, 1]]]
    at_random = "" if apart else ": a random split puts some on both sides"
    if len(copies):
        serious = len(copies) >= SERIOUS_SHARE * len(side)
        yield Finding(
            "note" if apart else "serious" if serious else "warning",
            "copies",
            f"{share(len(copies), len(side))} {side.documents} are copies of others{at_random}",
            len(copies),
            _pairs(side, side, copies),
            "leave them out, or give copies one group (--group), so that they stay on one side",
        )


def _across(train: TextSide, other: TextSide) -> Iterator[Finding]:
    """Documents of another part that are contained in the training part."""
    first = _first_equal(train, other)
    same = np.flatnonzero(first >= 0)
    if len(same):
        longest = max(len(other.plain[i]) for i in same)
        serious = len(same) >= LEAK_SHARE * len(other) or longest >= BLOCK
        yield Finding(
            "serious" if serious else "warning",
            "same-document",
            f"{share(len(same), len(other))} {other.documents} are training documents too; results "
            "on them say nothing about new text",
            len(same),
            _pairs(train, other, np.stack([first[same], same], axis=1)),
            "leave them out of one side, or split by group (--group)",
        )


def _boilerplate(side: TextSide) -> Iterator[Finding]:
    """Lines that most documents, or a hundredth of the lines of a single one, have."""
    single = len(side) == 1
    counts: Counter[str] = Counter()
    n_lines = 0
    for text in side.texts:
        lines = [line for each in text.splitlines() if len(line := each.strip()) >= LINE]
        n_lines += len(lines)
        counts.update(lines if single else set(lines))
    least = max(FEW, OF_LINES * n_lines if single else MOST * len(side))
    often = [(line, n) for line, n in counts.most_common() if n >= least]
    if often and len(counts) > 1:
        where = "of the text" if single else "of most documents"
        yield Finding(
            "warning",
            "boilerplate",
            f"{plural(len(often), 'line')} {where} {'is' if len(often) == 1 else 'are'} the same: "
            "predicting it proves nothing",
            len(often),
            tuple(f"{line[:QUOTED]!r} {n:,} times" for line, n in often[:3]),
            "cut out headers, footers and the like",
        )


def _lengths(part: TextSide) -> Iterator[Finding]:
    n = np.array([len(text) for text in part.texts])
    plain = np.array([len(text) for text in part.plain])
    if (empty := np.flatnonzero(plain == 0)).size:
        yield Finding(
            "warning",
            "empty-document",
            f"{share(len(empty), len(n))} {part.documents} have no text",
            len(empty),
            tuple(map(part.place, empty[:3])),
            "leave them out",
        )
    single = np.flatnonzero([bool(text) and " " not in text for text in part.plain])
    if len(single) and len(n) > 1:
        yield Finding(
            "note",
            "one-word",
            f"{share(len(single), len(n))} {part.documents} have a single word (the median is "
            f"{np.median(n):,.0f} characters)",
            len(single),
            tuple(map(part.place, single[:3])),
            "are these whole?",
        )
    usual = float(np.quantile(n, 0.99))
    if (long := np.flatnonzero(n > OUTLYING_LENGTH * usual)).size:
        yield Finding(
            "warning",
            "long-document",
            f"{share(len(long), len(n))} {part.documents} are over {OUTLYING_LENGTH} times as long "
            f"as 99 % of them ({usual:,.0f} characters)",
            len(long),
            tuple(f"{part.place(i)}: {n[i]:,} characters" for i in long[:3]),
            "is each one document? Results are those of the longest",
        )
    at_most = n == n.max()
    if at_most.sum() >= FEW and at_most.mean() >= CUT_SHARE and len(np.unique(n)) > 3:
        yield Finding(
            "note",
            "cut-document",
            f"{share(int(at_most.sum()), len(n))} {part.documents} have exactly {n.max():,} "
            "characters, and none has more: longer ones seem to have been cut",
            int(at_most.sum()),
            tuple(map(part.place, np.flatnonzero(at_most)[:3])),
            "raise the limit where the file is made",
        )


def _characters(part: TextSide) -> Iterator[Finding]:
    """Characters that a reader would not have written."""
    kinds = (
        (
            BROKEN,
            "broken-decoding",
            "look like broken decoding",
            "write the file as UTF-8 from its source: the text was read in another encoding",
        ),
        (CONTROL, "control-characters", "are control characters", "remove them"),
    )
    for pattern, code, what, remedy in kinds:
        count, concerned = 0, 0
        places: list[str] = []
        for i, text in enumerate(part.texts):
            if pattern is BROKEN and text.isascii():
                continue
            matches = pattern.finditer(text)
            shown = list(islice(matches, 3 - len(places)))
            for match in shown:
                around = text[max(0, match.start() - 15) : match.end() + 15]
                places.append(f"{part.name} document {i + 1}".strip() + f": {around!r}")
            n = len(shown) + sum(1 for _ in matches)
            count, concerned = count + n, concerned + bool(n)
        if count:
            yield Finding(
                "warning",
                code,
                f"{plural(count, 'place')} in {share(concerned, len(part))} {part.documents} "
                f"{what}",
                count,
                tuple(places),
                remedy,
            )


def _unknown(train: TextSide, other: TextSide, level: str, size: int | None) -> Iterator[Finding]:
    """Words, or characters, that the model does not know."""
    if level not in UNKNOWN_SHARE or (level == "character" and other is train):
        return  # every piece is known, and every character of the training part
    vocabulary = Vocabulary.fit(train.texts, level, size if level == "word" else None)
    n, total, where = 0, 0, []
    for i, text in enumerate(other.texts):
        unknown = vocabulary.encode(text) == UNKNOWN
        n, total = n + int(unknown.sum()), total + len(unknown)
        if unknown.any():
            where.append(i)
    of_part = f" of the {other.name} part" if other.name else ""
    if n and n >= UNKNOWN_SHARE[level] * total:
        yield Finding(
            "warning",
            f"unknown-{level}s",
            f"{share(n, total)} {level}s{of_part} are unknown to a "
            f"model of {len(vocabulary):,}: rare, or not in the training part",
            n,
            tuple(other.place(i) for i in where[:3]),
            "raise --vocabulary, or take --level character or piece"
            if level == "word"
            else "is it text of the same kind?",
        )


def _pairs(train: TextSide, other: TextSide, pairs: np.ndarray) -> tuple[str, ...]:
    """The first three pairs in words."""
    nouns = f"{other.name} document".strip(), f"{train.name} document".strip()
    return tuple(
        f"{nouns[0]} {b + 1} and {nouns[1]} {a + 1}: {train.plain[a][:QUOTED]!r}"
        for a, b in pairs[:3].tolist()
    )
