"""ostinato_learn: from a user's files to recurrent models that answer, on ordinary CPUs.

Public names are resolved when first used, so that `ostinato --help` and the runtime never import
torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name → (module, attribute); a name without an attribute is a module of its own
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "SequenceClassifier": ("ostinato_learn.estimators", "SequenceClassifier"),
    "SequenceForecaster": ("ostinato_learn.estimators", "SequenceForecaster"),
    "LanguageModel": ("ostinato_learn.estimators", "LanguageModel"),
    "SequenceRegressor": ("ostinato_learn.estimators", "SequenceRegressor"),
    "SequenceTagger": ("ostinato_learn.estimators", "SequenceTagger"),
    "load": ("ostinato_learn.estimators", "load"),
    "data": ("ostinato_learn.data", None),
    "datasets": ("ostinato_learn.datasets", None),
    "models": ("ostinato_learn.models", None),
    "report": ("ostinato_learn.report", None),
    "runtime": ("ostinato_learn.runtime", None),
    "training": ("ostinato_learn.training", None),
}
__all__ = [
    "LanguageModel",
    "SequenceClassifier",
    "SequenceForecaster",
    "SequenceRegressor",
    "SequenceTagger",
    "__version__",
    "data",
    "datasets",
    "load",
    "models",
    "report",
    "runtime",
    "training",
]

if TYPE_CHECKING:
    from ostinato_learn import data, datasets, models, report, runtime, training
    from ostinato_learn.estimators import (
        LanguageModel,
        SequenceClassifier,
        SequenceForecaster,
        SequenceRegressor,
        SequenceTagger,
        load,
    )


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ostinato_learn' has no attribute {name!r}")
    module_name, attribute = _PUBLIC[name]
    module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value  # the next access finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
