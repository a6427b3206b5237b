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
    "Batches": "ostinato.data.sequences.batches",
    "Examples": "ostinato.data.sequences.examples",
    "LabelEncoder": "ostinato.data.sequences.labels",
    "Panel": "ostinato.data.series.panel",
    "Preparation": "ostinato.data.sequences.preparation",
    "Ragged": "ostinato.data.sequences.ragged",
    "Roles": "ostinato.data.tables.roles",
    "as_panel": "ostinato.data.series.panel",
    "as_sequences": "ostinato.data.sequences.as_sequences",
    "read": "ostinato.data.formats.arrays",
    "read_conll": "ostinato.data.formats.conll",
    "read_documents": "ostinato.data.formats.documents",
    "read_examples": "ostinato.data.tables.read_examples",
    "store_examples": "ostinato.data.tables.store",
    "stream_examples": "ostinato.data.tables.blocks",
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
    "store_examples",
    "stream_examples",
]

if TYPE_CHECKING:
    from ostinato.data.formats.arrays import read
    from ostinato.data.formats.conll import read_conll
    from ostinato.data.formats.documents import read_documents
    from ostinato.data.sequences.as_sequences import as_sequences
    from ostinato.data.sequences.batches import Batches
    from ostinato.data.sequences.examples import Examples
    from ostinato.data.sequences.labels import LabelEncoder
    from ostinato.data.sequences.preparation import Preparation
    from ostinato.data.sequences.ragged import Ragged
    from ostinato.data.series.panel import Panel, as_panel
    from ostinato.data.tables.blocks import stream_examples
    from ostinato.data.tables.read_examples import read_examples
    from ostinato.data.tables.roles import Roles
    from ostinato.data.tables.store import store_examples


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ostinato.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value  # the next access finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
