"""Jane Austen's six novels."""

from __future__ import annotations

import gzip

from ostinato_learn.datasets.integrity import shipped

_NOVELS = {  # in the order of publication
    "Sense and Sensibility": "sensesensibility",
    "Pride and Prejudice": "prideprejudice",
    "Mansfield Park": "mansfieldpark",
    "Emma": "emma",
    "Northanger Abbey": "northangerabbey",
    "Persuasion": "persuasion",
}


def austen() -> dict[str, str]:
    """The six novels of Jane Austen (1775–1817), public domain, four million characters in all.

    Returns:
        Title → text, in the order of publication. Lines are wrapped as in print and end in `\\n`;
        every character is ASCII, save one pound sign in Mansfield Park.

    Raises:
        OSError: a file of the installation is missing or damaged.

    Example:
        >>> from ostinato_learn import datasets
        >>> novels = datasets.austen()
        >>> list(novels)[:2]
        ['Sense and Sensibility', 'Pride and Prejudice']
        >>> "a truth universally acknowledged" in novels["Pride and Prejudice"]
        True
    """
    return {
        title: gzip.decompress(shipped(f"austen/{file}.txt.gz")).decode("utf-8")
        for title, file in _NOVELS.items()
    }
