"""ostinato: loops over time in PyTorch code, forward and backward in a native engine.

Public names are resolved when first used, so that a program without torch can use the engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name → (module, attribute); a name without an attribute is a module of its own
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "scan": ("ostinato._scan", "scan"),
    "explain": ("ostinato.loops.explained", "explain"),
    "forget": ("ostinato.forms.known", "forget"),
    "loop": ("ostinato.loops.functions", "loop"),
    "accelerate": ("ostinato.nn", "accelerate"),
    "restore": ("ostinato.nn", "restore"),
    "nn": ("ostinato.nn", None),
}
__all__ = ["__version__", "accelerate", "explain", "forget", "loop", "nn", "restore", "scan"]

# Names that are in the distribution built on this one, which is not imported from here.
_LEARN = "ostinato-learn"
_IN_LEARN = {
    "LanguageModel",
    "SequenceClassifier",
    "SequenceForecaster",
    "SequenceRegressor",
    "SequenceTagger",
    "data",
    "datasets",
    "load",
    "models",
    "report",
    "runtime",
    "training",
}

if TYPE_CHECKING:
    from ostinato import nn
    from ostinato._scan import scan
    from ostinato.forms.known import forget
    from ostinato.loops.explained import explain
    from ostinato.loops.functions import loop
    from ostinato.nn import accelerate, restore


def __getattr__(name: str) -> Any:
    if name in _IN_LEARN:
        raise ImportError(
            f"{name} is in another package: pip install '{_LEARN}[torch]', then "
            f"from {_LEARN.replace('-', '_')} import {name}"
        )
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ostinato' has no attribute {name!r}")
    from ostinato._extras import needs

    module_name, attribute = _PUBLIC[name]
    with needs("ostinato[torch]", "torch"):
        module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value  # the next access finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
