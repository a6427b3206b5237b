"""Sequences as NumPy arrays: what a model accepts, how it is read from files and cut
into batches; labels as class numbers.

Nothing here imports torch.
"""

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
