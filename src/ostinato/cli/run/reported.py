"""The facts of a run of the command line for the reports of all tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostinato.cli.run import jobs
from ostinato.cli.run.config import Config
from ostinato.cli.run.rundir import RunDir

if TYPE_CHECKING:
    from ostinato.report import RunFacts
    from ostinato.training.history import History


def facts(settings: Config, run: RunDir, history: History, evaluation: dict[str, Any]) -> RunFacts:
    """Title, course, results, configuration and surroundings of a run.

    Parameters that the task does not use, or that are not set, are left out.
    """
    from ostinato.report import RunFacts

    without = jobs.unused(settings)
    tables = {
        section: {
            name: value
            for name, value in table.items()
            if value is not None and f"{section}.{name}" not in without
        }
        for section, table in settings.tables().items()
    }
    source, model = Path(settings.data.source or "").name, settings.model
    return RunFacts(
        title=f"{source}, {model.cell}, {model.hidden_size} units",
        metrics=history.reports,
        losses=history.course,
        evaluation=evaluation,
        config={section: table for section, table in tables.items() if table},
        environment=run.surroundings(),
    )
