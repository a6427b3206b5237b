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
    "Batches": "ostinato_learn.data.sequences.batches",
    "Examples": "ostinato_learn.data.sequences.examples",
    "LabelEncoder": "ostinato_learn.data.sequences.labels",
    "Panel": "ostinato_learn.data.series.panel",
    "Preparation": "ostinato_learn.data.sequences.preparation",
    "Ragged": "ostinato_learn.data.sequences.ragged",
    "Roles": "ostinato_learn.data.tables.roles",
    "as_panel": "ostinato_learn.data.series.panel",
    "as_sequences": "ostinato_learn.data.sequences.as_sequences",
    "read": "ostinato_learn.data.formats.arrays",
    "read_conll": "ostinato_learn.data.formats.conll",
    "read_documents": "ostinato_learn.data.formats.documents",
    "read_examples": "ostinato_learn.data.tables.read_examples",
    "store_examples": "ostinato_learn.data.tables.store",
    "stream_examples": "ostinato_learn.data.tables.blocks",
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
    from ostinato_learn.data.formats.arrays import read
    from ostinato_learn.data.formats.conll import read_conll
    from ostinato_learn.data.formats.documents import read_documents
    from ostinato_learn.data.sequences.as_sequences import as_sequences
    from ostinato_learn.data.sequences.batches import Batches
    from ostinato_learn.data.sequences.examples import Examples
    from ostinato_learn.data.sequences.labels import LabelEncoder
    from ostinato_learn.data.sequences.preparation import Preparation
    from ostinato_learn.data.sequences.ragged import Ragged
    from ostinato_learn.data.series.panel import Panel, as_panel
    from ostinato_learn.data.tables.blocks import stream_examples
    from ostinato_learn.data.tables.read_examples import read_examples
    from ostinato_learn.data.tables.roles import Roles
    from ostinato_learn.data.tables.store import store_examples


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ostinato_learn.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value  # the next access finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
