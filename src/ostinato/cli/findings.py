"""What `train` tells of the data before it begins: the serious findings of `ostinato check`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ostinato.cli.jobs.job import Job

if TYPE_CHECKING:
    from ostinato.data.examples import Examples

# Warnings that change what a forecast means: its steps are taken as equally far apart.
OF_FORECASTS = ("gaps",)
# If the sequences of a part stay in a file, so many of their values are checked.
LOOKED_AT = 1 << 24

_log = logging.getLogger(__name__)


def tell(job: Job) -> None:
    """Log each serious finding in one line."""
    from ostinato.data import checks

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
        return
    source = job.settings.data.source
    for finding in found:
        if finding.severity == "serious" or (series is not None and finding.code in OF_FORECASTS):
            where = f" ({finding.places[0]})" if finding.places else ""
            _log.warning("%s: %s%s: %s", source, finding.message, where, finding.remedy)


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
