"""Sequences as NumPy arrays: what a model accepts, how it is read from files and cut
into batches; labels as class numbers.

Nothing here imports torch. Public names are resolved when first used, so that a saved model is read
without the readers of files.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# public name → module
_PUBLIC = {
    "Batches": "ostinato.data.batches",
    "Examples": "ostinato.data.examples",
    "LabelEncoder": "ostinato.data.labels",
    "Panel": "ostinato.data.panel",
    "Preparation": "ostinato.data.prepare",
    "Ragged": "ostinato.data.ragged",
    "Roles": "ostinato.data.roles",
    "as_panel": "ostinato.data.panel",
    "as_sequences": "ostinato.data.sequences",
    "read": "ostinato.data.readers",
    "read_conll": "ostinato.data.conll",
    "read_documents": "ostinato.data.text",
    "read_examples": "ostinato.data.tables",
    "read_stream": "ostinato.data.readers",
    "store_examples": "ostinato.data.store",
    "stream_examples": "ostinato.data.stream",
}
__all__ = [
    "Batches",
    "Examples",
    "LabelEncoder",
    "Panel",
    "Preparation",
    "Ragged",
    "Roles",
    "as_panel",
    "as_sequences",
    "read",
    "read_conll",
    "read_documents",
    "read_examples",
    "read_stream",
    "store_examples",
    "stream_examples",
]

if TYPE_CHECKING:
    from ostinato.data.batches import Batches
    from ostinato.data.conll import read_conll
    from ostinato.data.examples import Examples
    from ostinato.data.labels import LabelEncoder
    from ostinato.data.panel import Panel, as_panel
    from ostinato.data.prepare import Preparation
    from ostinato.data.ragged import Ragged
    from ostinato.data.readers import read, read_stream
    from ostinato.data.roles import Roles
    from ostinato.data.sequences import as_sequences
    from ostinato.data.store import store_examples
    from ostinato.data.stream import stream_examples
    from ostinato.data.tables import read_examples
    from ostinato.data.text import read_documents


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ostinato.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value  # the next access finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
