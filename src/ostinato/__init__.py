"""ostinato: recurrent sequence models on ordinary CPUs.

Public names are resolved when first used, so that `ostinato --help` and the runtime never import
torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name → (module, attribute); a name without an attribute is a module of its own
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "scan": ("ostinato._scan", "scan"),
    "explain": ("ostinato.loops.explained", "explain"),
    "forget": ("ostinato.compiler.cache", "forget"),
    "loop": ("ostinato.loops.functions", "loop"),
    "accelerate": ("ostinato.nn", "accelerate"),
    "restore": ("ostinato.nn", "restore"),
    "SequenceClassifier": ("ostinato.estimators", "SequenceClassifier"),
    "SequenceForecaster": ("ostinato.estimators", "SequenceForecaster"),
    "LanguageModel": ("ostinato.estimators", "LanguageModel"),
    "SequenceRegressor": ("ostinato.estimators", "SequenceRegressor"),
    "SequenceTagger": ("ostinato.estimators", "SequenceTagger"),
    "load": ("ostinato.estimators", "load"),
    "data": ("ostinato.data", None),
    "datasets": ("ostinato.datasets", None),
    "nn": ("ostinato.nn", None),
    "models": ("ostinato.models", None),
    "report": ("ostinato.report", None),
    "runtime": ("ostinato.runtime", None),
    "training": ("ostinato.training", None),
}
__all__ = [
    "LanguageModel",
    "SequenceClassifier",
    "SequenceForecaster",
    "SequenceRegressor",
    "SequenceTagger",
    "__version__",
    "accelerate",
    "data",
    "datasets",
    "explain",
    "forget",
    "load",
    "loop",
    "models",
    "nn",
    "report",
    "restore",
    "runtime",
    "scan",
    "training",
]

if TYPE_CHECKING:
    from ostinato import data, datasets, models, nn, report, runtime, training
    from ostinato._scan import scan
    from ostinato.compiler.cache import forget
    from ostinato.estimators import (
        LanguageModel,
        SequenceClassifier,
        SequenceForecaster,
        SequenceRegressor,
        SequenceTagger,
        load,
    )
    from ostinato.loops.explained import explain
    from ostinato.loops.functions import loop
    from ostinato.nn import accelerate, restore


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ostinato' has no attribute {name!r}")
    module_name, attribute = _PUBLIC[name]
    module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value  # the next access finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
