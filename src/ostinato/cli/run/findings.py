"""The serious findings of `ostinato check`, which `train` and `cv` tell and keep in the results."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ostinato.tasks.job import Job

if TYPE_CHECKING:
    from ostinato.data.sequences.examples import Examples

# Warnings that change what a forecast means: its steps are taken as equally far apart.
OF_FORECASTS = ("gaps",)
# If the sequences of a part stay in a file, so many of their values are checked.
LOOKED_AT = 1 << 24

# Large data sets of ours, in which there is nothing serious.
UNSEEN = ("mnist", "austen")

_log = logging.getLogger(__name__)


def tell(job: Job) -> list[dict[str, Any]]:
    """Log each serious finding in one line, also where notes are left out; and give them.

    Returns:
        Each as JSON has it, for the entry "findings" of the results. None of `UNSEEN`.
    """
    from ostinato.data import checks

    if job.settings.data.source in UNSEEN:
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
    told = []
    source = job.settings.data.source
    for finding in found:
        is_serious = finding.severity == "serious"
        if is_serious or (series is not None and finding.code in OF_FORECASTS):
            where = f" ({finding.places[0]})" if finding.places else ""
            level = logging.ERROR if is_serious else logging.WARNING
            _log.log(level, "%s: %s%s: %s", source, finding.message, where, finding.remedy)
            told.append(finding.as_json())
    return told


def kept(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The entry of the results that holds findings; nothing if there are none."""
    return {"findings": found} if found else {}


def _in_memory(part: Examples) -> Examples:
    """A part whose sequences are in the memory; of those in a file, some that are drawn."""
    found = part.some(LOOKED_AT)
    if len(found) < len(part):
        _log.warning(
            "%s: %s of %s sequences are looked at for what may be wrong with them; ostinato check "
            "looks at all",
            part.source,
            f"{len(found):,}",
            f"{len(part):,}",
        )
    return found
