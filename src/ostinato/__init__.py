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
    "SequenceClassifier": ("ostinato.estimators", "SequenceClassifier"),
    "load": ("ostinato.estimators", "load"),
    "data": ("ostinato.data", None),
    "datasets": ("ostinato.datasets", None),
    "nn": ("ostinato.nn", None),
}
__all__ = ["SequenceClassifier", "__version__", "data", "datasets", "load", "nn", "scan"]

if TYPE_CHECKING:
    from ostinato import data, datasets, nn
    from ostinato._scan import scan
    from ostinato.estimators import SequenceClassifier, load


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ostinato' has no attribute {name!r}")
    module_name, attribute = _PUBLIC[name]
    module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value  # found once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
