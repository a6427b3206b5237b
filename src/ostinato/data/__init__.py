"""Sequences as NumPy arrays: what a model accepts, how it is read from files and cut into batches.

Nothing here imports torch.
"""

from ostinato.data.batches import Batches
from ostinato.data.ragged import Ragged
from ostinato.data.readers import read
from ostinato.data.sequences import as_sequences

__all__ = ["Batches", "Ragged", "as_sequences", "read"]
