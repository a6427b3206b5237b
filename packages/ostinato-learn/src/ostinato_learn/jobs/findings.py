"""The serious findings of `ostinato check`, which `train`, `cv` and `tune` keep in results."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ostinato_learn.jobs.inputs.built_in import known_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ostinato_learn.data.sequences.examples import Examples
    from ostinato_learn.jobs.base import Job

# Warnings that change the meaning of a forecast, which takes steps as equally far apart.
OF_FORECASTS = ("gaps",)
# The number of values that are checked if the sequences of a part stay in a file.
LOOKED_AT = 1 << 24

_log = logging.getLogger(__name__)


def tell(job: Job) -> list[dict[str, Any]]:
    """Log each serious finding in one line, even with --quiet; and return them.

    Returns:
        Each as JSON values, for the entry "findings" of the results; empty for a studied data set.
    """
    from ostinato_learn.data import checks

    if known_of(job.settings.data.source).studied:
        return []

    parts: Any = getattr(job, "parts", None)
    series: Any = getattr(job, "series", None)
    texts: Any = getattr(job, "texts", None)
    if parts is not None:
        found = checks.check(_in_memory(parts.train), _in_memory(parts.test))
    elif series is not None:
        found = checks.check(_in_memory(series))
    elif texts is not None:
        found = checks.check_texts(texts.train, texts.test, texts.validation)
    else:
        return []
    reported = []
    source = job.settings.data.source
    for finding in found:
        is_serious = finding.severity == "serious"
        if is_serious or (series is not None and finding.code in OF_FORECASTS):
            where = f" ({finding.places[0]})" if finding.places else ""
            level = logging.ERROR if is_serious else logging.WARNING
            _log.log(level, "%s: %s%s: %s", source, finding.message, where, finding.remedy)
            reported.append(finding.as_json())
    return reported


def kept(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The entry of the results for findings; empty without findings."""
    return {"findings": list(found)} if found else {}


def _in_memory(part: Examples) -> Examples:
    """A part with its sequences in memory; of sequences in a file some, drawn at random."""
    found = part.some(LOOKED_AT)
    if len(found) < len(part):
        _log.warning(
            "%s: %s of %s sequences are checked for errors in the data; ostinato check checks all",
            part.source,
            f"{len(found):,}",
            f"{len(part):,}",
        )
    return found
