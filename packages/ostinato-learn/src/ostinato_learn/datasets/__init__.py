"""Small real data sets that come with the package, and a reader for IDX files.

Every shipped file is checked against its SHA-256 when it is read. Nothing here imports torch or
uses the network.
"""

from ostinato_learn.data.formats.idx import read_idx
from ostinato_learn.datasets.austen import austen
from ostinato_learn.datasets.mnist import mnist
from ostinato_learn.datasets.split import Dataset, Split
from ostinato_learn.datasets.vowels import vowels

__all__ = ["Dataset", "Split", "austen", "mnist", "read_idx", "vowels"]
