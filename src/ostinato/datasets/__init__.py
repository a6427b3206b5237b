"""Small real data sets that come with the package, and a reader for IDX files.

Every shipped file is checked against its SHA-256 when it is read. Nothing here imports torch or
uses the network.
"""

from ostinato.data.formats.idx import read_idx
from ostinato.datasets.austen import austen
from ostinato.datasets.mnist import mnist
from ostinato.datasets.split import Dataset, Split
from ostinato.datasets.vowels import vowels

__all__ = ["Dataset", "Split", "austen", "mnist", "read_idx", "vowels"]
