"""Whether two runs were measured on the same test part, and the test that fits their task."""

from __future__ import annotations

import logging
import math
from itertools import groupby
from typing import Any

from ostinato.cli import jobs, paired, sources
from ostinato.cli.compare import Measured
from ostinato.cli.paired import Apart, PairedResult

_log = logging.getLogger(__name__)

# These keys decide which part of the data is tested on, where no file and no column says it.
DRAWN = {
    "classify": ("data.test_fraction", "training.seed", "data.group"),
    "tag": ("data.test_fraction", "training.seed", "data.group"),
    "forecast": (),
    "language": ("data.test_fraction", "training.seed"),
}
STRETCHES, SHORTEST = 40, 500  # stretches of a text at most, and their characters at least


def tested(a: Measured, b: Measured) -> dict[str, Any]:
    """The test of run B against run A as JSON values, or the reason why there is none."""
    pair: dict[str, Any] = {"runs": [a.name, b.name]}
    try:
        _check_same_part(a, b)
        outcome = _outcome(a, b)
    except Apart as reason:
        return pair | {"reason": str(reason)}
    return pair | outcome.as_json()


def _outcome(a: Measured, b: Measured) -> PairedResult:
    if a.task == "language":
        return _of_texts(a, b)
    one, other = (paired.read(each.run.predictions) for each in (a, b))
    if a.task == "classify":
        return paired.classify(one, other)
    if a.task == "tag":
        return paired.tag(one, other)
    assert a.settings.task.horizon is not None
    return paired.forecast(one, other, a.settings.task.horizon)


def _check_same_part(a: Measured, b: Measured) -> None:
    """Whether two runs were measured on the same test part.

    Raises:
        Apart: they were not, or it cannot be told.
    """
    one, other = _origin(a), _origin(b)
    if one != other:
        raise Apart(
            f"they were tested on different data: {a.name} on {_where(a)}, {b.name} on {_where(b)}"
        )
    data = a.settings.data, b.settings.data
    if any(each.split != data[0].split for each in data):
        raise Apart(f"--split is {data[0].split!r} and {data[1].split!r}: other test parts")
    keys = DRAWN[a.task]
    if data[0].source in sources.BUILT_IN or data[0].test or data[0].split:
        keys = ()
    if a.task == "forecast":
        keys = ("task.horizon",)
    for key in keys:
        values = a.settings.get(key), b.settings.get(key)
        if values[0] != values[1]:
            raise Apart(
                f"{key} is {values[0]!r} and {values[1]!r}, so that other parts of the data were "
                "tested on; wanted the same, or --test FILE or --split COLUMN for both"
            )


def _origin(measured: Measured) -> str | None:
    """What the test part came from: the digest of its file, or the name of a data set.

    Raises:
        Apart: the run does not say it.
    """
    data = measured.settings.data
    if data.source in sources.BUILT_IN:
        return data.source
    digest = measured.digests.get(str(data.test or data.source))
    if digest is None:
        raise Apart(f"{measured.run.environment} does not tell which data {measured.name} had")
    return digest


def _where(measured: Measured) -> str:
    data = measured.settings.data
    name = str(data.test or data.source)
    return name if data.source in sources.BUILT_IN else f"{name} ({(_origin(measured) or '')[:8]})"


def _of_texts(a: Measured, b: Measured) -> PairedResult:
    """Two language models, measured again on each document or stretch of the test part."""
    texts = [_texts(each) for each in (a, b)]
    if texts[0] != texts[1]:
        raise Apart("they were tested on other texts: their columns or parts differ")
    pieces, unit = _stretches(texts[0])

    from ostinato.training.fitted_language import load

    models = [load(each.run.model) for each in (a, b)]
    if models[0].vocabulary.as_json() != models[1].vocabulary.as_json():
        characters = all(model.vocabulary.level == "character" for model in models)
        if not characters or any(each.results["test"]["unknown"] for each in (a, b)):
            raise Apart(
                "their vocabularies differ, and unknown tokens cost nothing to spell: bits of a "
                "text compare only between models of one vocabulary, or of all its characters"
            )
    _log.warning("the texts are read again: %d %s by each of two models", len(pieces), unit)
    bits = [[model.evaluate(piece).bits_per_character for piece in pieces] for model in models]
    return paired.language(bits[0], bits[1], unit)


def _texts(measured: Measured) -> list[str]:
    """The test part of a language model's run, read again.

    Raises:
        Apart: its file is no longer what it was.
    """
    try:
        unchanged = sources.digest(measured.settings.data) == measured.digests
    except OSError as error:
        raise Apart(f"{error.filename}: {error.strerror}; the text is read again") from None
    if not unchanged:
        names = " and ".join(measured.digests)
        raise Apart(f"{names} has changed since {measured.name} was trained; it is read again")
    job: Any = jobs.again(measured.settings)
    return list(job.texts.test)


def _stretches(texts: list[str]) -> tuple[list[list[str]], str]:
    """Documents to be measured together, some forty times, and what they are called."""
    texts = [text for text in texts if text]
    if len(texts) >= paired.FEWEST:
        n = min(STRETCHES, len(texts))
        groups = groupby(range(len(texts)), lambda i: i * n // len(texts))
        unit = "documents" if n == len(texts) else "groups of documents"
        return [[texts[i] for i in group] for _, group in groups], unit
    size = max(SHORTEST, math.ceil(sum(map(len, texts)) / STRETCHES))
    cut = [text[i : i + size] for text in texts for i in range(0, len(text), size)]
    whole = [piece for piece in cut if len(piece) >= size / 2]
    return [[piece] for piece in whole], f"stretches of {size:,} characters"
