"""The files of small real data sets, each with its own licence (see NOTICE).

`ostinato_learn.datasets` reads them.

Example:
    >>> from ostinato_datasets import FILES
    >>> sorted(folder.name for folder in FILES.iterdir())
    ['austen', 'mnist', 'vowels']
"""

from pathlib import Path

__version__ = "0.1.0"
FILES = Path(__file__).parent / "files"
