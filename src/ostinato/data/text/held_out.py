"""A part of some documents kept for validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEAST = 2  # documents, to judge by documents


def held_out(documents: Sequence[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Documents to learn from, and a share of them to validate with.

    Whole documents are drawn by the seed, so that nothing of one is on both sides. If these would
    be fewer than two, the end of each document is taken instead, from the blank that is next.

    Raises:
        ValueError: nothing would be left on one side.

    Example:
        >>> held_out(["one two three four five"], 0.2, seed=0)
        (['one two three four'], [' five'])
    """
    n = round(fraction * len(documents))
    if LEAST <= n < len(documents):
        drawn = np.random.default_rng(seed).permutation(len(documents))[:n].tolist()
        kept = [text for i, text in enumerate(documents) if i not in set(drawn)]
        return kept, [documents[i] for i in sorted(drawn)]
    cuts = [_cut(text, fraction) for text in documents]
    kept = [text[:cut] for text, cut in zip(documents, cuts, strict=True)]
    ends = [text[cut:] for text, cut in zip(documents, cuts, strict=True)]
    if not any(kept) or not any(ends):
        raise ValueError(
            f"validation_fraction={fraction} leaves nothing on one side of the "
            f"{len(documents)} documents; give more text, or another share"
        )
    return kept, ends


def _cut(text: str, fraction: float) -> int:
    """Where the end of a text begins: at the blank at or before the wanted place, if it has one."""
    wanted = round(len(text) * (1 - fraction))
    blank = max(text.rfind(" ", 0, wanted + 1), text.rfind("\n", 0, wanted + 1))
    return blank if blank > 0 else wanted
