"""Stretches of characters that documents share.

    window   24 characters. Two documents are near copies if half of the windows of each are in the
             other. Of more than 2²⁴ windows those with the smallest hashes are compared.
    block    150 characters. Those of the training part lie end to end and are looked for at every
             character of the test part: a passage of 299 characters or more is always found, one
             of fewer than 150 never.

Windows and blocks are compared by hashes of 64 bits: of 10¹³ pairs one is equal by chance in a
million checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ostinato.data.checks.side import SPREAD, mixed, stretch_hashes

WINDOW, BLOCK = 24, 150
NEAR = 0.5
FEWEST = 4  # windows that are compared of a document, to call it a near copy
PLAIN = 2  # different characters; a line of dashes is no passage
MOST_WINDOWS = 2**24
_AT_ONCE = 2**20  # characters that are hashed


class Passage(NamedTuple):
    """A stretch of a test document that stands in the training part."""

    document: int
    start: int
    length: int


def windows(
    texts: Sequence[str], width: int, apart: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The stretches of `width` characters that begin every `apart` characters.

    Yields:
        For some stretches at a time `[M]`: the number of the text, its first character, a hash.
    """
    pieces: list[tuple[int, int, str]] = []
    total = 0
    for piece in _pieces(texts, width, apart):
        pieces.append(piece)
        total += len(piece[2])
        if total >= _AT_ONCE:
            yield _hashed(pieces, width, apart)
            pieces, total = [], 0
    if pieces:
        yield _hashed(pieces, width, apart)


def _pieces(texts: Sequence[str], width: int, apart: int) -> Iterator[tuple[int, int, str]]:
    """Each text, a long one in pieces that overlap by less than a window, with its place."""
    size = _AT_ONCE // apart * apart
    for i, text in enumerate(texts):
        for start in range(0, len(text) - width + 1, size):
            yield i, start, text[start : start + size + width - 1]


def _hashed(
    pieces: list[tuple[int, int, str]], width: int, apart: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    numbers, firsts = (np.array([piece[k] for piece in pieces], np.int64) for k in (0, 1))
    lengths = np.array([len(piece[2]) for piece in pieces], np.int64)
    joined = "".join(piece[2] for piece in pieces).encode("utf-32-le", "surrogatepass")
    steps = mixed(np.frombuffer(joined, np.uint32).astype(np.uint64) + np.uint64(SPREAD))
    which = np.repeat(np.arange(len(pieces)), lengths)
    within = np.arange(len(steps)) - (np.cumsum(lengths) - lengths)[which]
    starts = np.flatnonzero((within + width <= lengths[which]) & (within % apart == 0))
    which, within = which[starts], within[starts]
    return numbers[which], firsts[which] + within, stretch_hashes(steps, starts, starts + width)


def near_pairs(texts: Sequence[str], n_sources: int | None = None) -> np.ndarray:
    """Pairs a < b of near copies, `[K, 2]`; not all pairs of many that are alike.

    Args:
        n_sources: the first so many texts are the training part, and the others the test part:
            pairs across. None: one part.
    """
    if len(texts) < 2:
        return np.zeros((0, 2), np.int64)
    n_windows = sum(max(0, len(text) - WINDOW + 1) for text in texts)
    halvings = max(0, int(np.ceil(np.log2(max(1, n_windows) / MOST_WINDOWS))))
    documents, hashes = _distinct(texts, np.uint64((2**64 - 1) >> halvings))
    counts = np.bincount(documents, minlength=len(texts))
    pairs = _candidates(documents, hashes, counts, n_sources)
    common = _common(documents, hashes, counts, pairs)
    pairs = pairs[common >= NEAR * counts[pairs].max(axis=1)]
    chosen = np.unique(pairs)
    if halvings and sum(len(texts[i]) for i in chosen) <= n_windows / 2:  # by more windows
        again = near_pairs(
            [texts[i] for i in chosen],
            None if n_sources is None else int(np.searchsorted(chosen, n_sources)),
        )
        return chosen[again]
    return pairs


def _distinct(texts: Sequence[str], limit: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """The windows with a hash up to `limit`, sorted by hash and text, each once a text."""
    found: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0, np.int64), np.zeros(0, np.uint64))]
    for which, _, hashes in windows(texts, WINDOW):
        kept = hashes <= limit
        found.append((which[kept], hashes[kept]))
    documents, hashes = (np.concatenate([part[k] for part in found]) for k in (0, 1))
    order = np.argsort(hashes, kind="stable")
    documents, hashes = documents[order], hashes[order]
    new = np.ones(len(order), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (documents[1:] != documents[:-1])
    return documents[new], hashes[new]


def _candidates(
    documents: np.ndarray, hashes: np.ndarray, counts: np.ndarray, n_sources: int | None
) -> np.ndarray:
    """Pairs that follow each other at a quarter of the windows of each, `[K, 2]`.

    A window links its text to the text before that has it too, so a window that is in all texts
    costs a link a text, not a link a pair.
    """
    if len(documents) == 0:
        return np.zeros((0, 2), np.int64)
    places = np.arange(len(documents))
    is_source = np.ones(len(documents), bool) if n_sources is None else documents < n_sources
    before = np.concatenate([[-1], np.maximum.accumulate(np.where(is_source, places, -1))[:-1]])
    linked = (before >= 0) & (hashes[before] == hashes)
    if n_sources is not None:
        linked &= ~is_source
    a, b = documents[before[linked]], documents[linked]
    n = len(counts)
    codes, links = np.unique(a * n + b, return_counts=True)
    pairs = np.stack([codes // n, codes % n], axis=1)
    sizes = counts[pairs]
    enough = (links >= NEAR / 2 * sizes.max(axis=1)) & (sizes.min(axis=1) >= FEWEST)
    return pairs[enough]


def _common(
    documents: np.ndarray, hashes: np.ndarray, counts: np.ndarray, pairs: np.ndarray
) -> np.ndarray:
    """How many windows the two of each pair share, `[K]`."""
    order = np.argsort(documents, kind="stable")
    by_text = hashes[order]
    starts = np.cumsum(counts) - counts
    own = np.sort(mixed(by_text ^ mixed(documents[order].astype(np.uint64))))
    common = np.zeros(len(pairs), np.int64)
    sizes = counts[pairs[:, 1]]
    # In blocks of pairs, to bound the memory.
    bounds = np.arange(0, sizes.sum() + _AT_ONCE, _AT_ONCE)
    for first, last in pairwise(np.searchsorted(np.cumsum(sizes), bounds, side="right")):
        a, b = pairs[first:last].T
        size = counts[b]
        pair = np.repeat(np.arange(len(a)), size)
        at = np.arange(len(pair)) - (np.cumsum(size) - size)[pair] + starts[b][pair]
        wanted = mixed(by_text[at] ^ mixed(a[pair].astype(np.uint64)))
        common[first:last] = np.bincount(pair[_in(wanted, own)], minlength=len(a))
    return common


def passages(train: Sequence[str], test: Sequence[str]) -> list[Passage]:
    """The passages of test documents that stand in the training part, in their order."""
    of_train = [_blocks(train, *some) for some in windows(train, BLOCK, apart=BLOCK)]
    blocks = np.sort(np.concatenate([np.zeros(0, np.uint64), *of_train]))
    found: list[Passage] = []
    for which, starts, hashes in windows(test, BLOCK):
        hit = _in(hashes, blocks)
        for document, start in zip(which[hit].tolist(), starts[hit].tolist(), strict=True):
            last = found[-1] if found else None
            if last and last.document == document and start <= last.start + last.length:
                found[-1] = last._replace(length=start + BLOCK - last.start)
            else:
                found.append(Passage(document, start, BLOCK))
    return found


def _blocks(
    texts: Sequence[str], which: np.ndarray, starts: np.ndarray, hashes: np.ndarray
) -> np.ndarray:
    """The hashes of the blocks that are no line of dashes."""
    places = zip(which.tolist(), starts.tolist(), strict=True)
    kept = [len(set(texts[i][start : start + BLOCK])) > PLAIN for i, start in places]
    return hashes[np.array(kept, bool)]


def _in(wanted: np.ndarray, sorted_: np.ndarray) -> np.ndarray:
    """Whether each of `[M]` is among the sorted ones, `[M]` bool."""
    if len(sorted_) == 0:
        return np.zeros(len(wanted), bool)
    at = np.minimum(np.searchsorted(sorted_, wanted), len(sorted_) - 1)
    return sorted_[at] == wanted
