"""What `train` tells of the data before it begins: the serious findings of `ostinato check`."""

from __future__ import annotations

import logging
from typing import Any

from ostinato.cli.jobs.job import Job

# Warnings that change what a forecast means: its steps are taken as equally far apart.
OF_FORECASTS = ("gaps",)

_log = logging.getLogger(__name__)


def tell(job: Job) -> None:
    """Log each serious finding in one line; a text has none."""
    from ostinato.data import checks

    parts: Any = getattr(job, "parts", None)
    series: Any = getattr(job, "series", None)
    if parts is not None:
        found = checks.check(parts.train, parts.test)
    elif series is not None:
        found = checks.check(series)
    else:
        return
    source = job.settings.data.source
    for finding in found:
        if finding.severity == "serious" or (series is not None and finding.code in OF_FORECASTS):
            where = f" ({finding.places[0]})" if finding.places else ""
            _log.warning("%s: %s%s: %s", source, finding.message, where, finding.remedy)
