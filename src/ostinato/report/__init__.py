"""The report of a run: one self-contained HTML file.

For each task, `tasks/<kind>/report.py` computes the contents of the report and lists its panels.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ostinato.report.page import RunFacts, write_report

if TYPE_CHECKING:
    from ostinato.tasks.classify.report import ReportData, StepView, collect
    from ostinato.tasks.classify.several_report import SetView, SeveralData, collect_several
    from ostinato.tasks.forecast.report import ForecastData, collect_forecasts
    from ostinato.tasks.language.report import LanguageData, collect_language
    from ostinato.tasks.tag.report import TaggingData, collect_tagging

_OF_TASKS = {  # module → its public names; these modules import this package
    "classify.report": ("ReportData", "StepView", "collect"),
    "classify.several_report": ("SetView", "SeveralData", "collect_several"),
    "forecast.report": ("ForecastData", "collect_forecasts"),
    "language.report": ("LanguageData", "collect_language"),
    "tag.report": ("TaggingData", "collect_tagging"),
}

__all__ = [
    "ForecastData",
    "LanguageData",
    "ReportData",
    "RunFacts",
    "SetView",
    "SeveralData",
    "StepView",
    "TaggingData",
    "collect",
    "collect_forecasts",
    "collect_language",
    "collect_several",
    "collect_tagging",
    "write_report",
]


def __getattr__(name: str) -> Any:
    for module, names in _OF_TASKS.items():
        if name in names:
            return getattr(import_module(f"ostinato.tasks.{module}"), name)
    raise AttributeError(f"module 'ostinato.report' has no attribute {name!r}")
