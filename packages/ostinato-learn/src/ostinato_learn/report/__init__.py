"""The report of a run: one self-contained HTML file.

For each task, `tasks/<kind>/report.py` computes the contents of the report and lists its panels.
"""

# ruff: noqa: F401

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ostinato_learn.report.page import RunFacts, write_report

_OF_TASKS = {  # module → its public names; these modules import this package
    "classify.report": ("ReportData", "StepView", "collect"),
    "classify.several_report": ("SetView", "SeveralData", "collect_several"),
    "forecast.report": ("ForecastData", "collect_forecasts"),
    "language.report": ("LanguageData", "collect_language"),
    "tag.report": ("TaggingData", "collect_tagging"),
}
__all__ = ["RunFacts", "write_report", *(name for names in _OF_TASKS.values() for name in names)]

if TYPE_CHECKING:
    from ostinato_learn.tasks.classify.report import ReportData, StepView, collect
    from ostinato_learn.tasks.classify.several_report import SetView, SeveralData, collect_several
    from ostinato_learn.tasks.forecast.report import ForecastData, collect_forecasts
    from ostinato_learn.tasks.language.report import LanguageData, collect_language
    from ostinato_learn.tasks.tag.report import TaggingData, collect_tagging


def __getattr__(name: str) -> Any:
    for module, names in _OF_TASKS.items():
        if name in names:
            return getattr(import_module(f"ostinato_learn.tasks.{module}"), name)
    raise AttributeError(f"module 'ostinato_learn.report' has no attribute {name!r}")
