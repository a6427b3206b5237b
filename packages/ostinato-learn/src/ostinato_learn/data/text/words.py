"""Sequences of words, and of labels: a value at every step that is a member of a set.

    Words           N sequences of words, as a user gives them
    WordVocabulary  the words and characters of a training, each with a number
    CodedWords      words by these numbers, for a network

A network reads each different word once a batch, however often it occurs there: its embedding, and
the states of a network over its characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ostinato_learn.data.sequences.mapped import Series, is_mapped, stretches

AT_ONCE = 1 << 20  # integers counted at a time
UNKNOWN = 0  # the number of every word, and of every character, that the training did not have
# The network reads the first and the last sixteen characters of a longer word, where prefixes and
# endings are; a line of a file that is one "word" must not decide the size of a batch.
MOST_CHARACTERS = 32
# The largest number of names of a feature, each of which becomes a column of zeros and ones. More
# are texts or ids, which teach nothing, unless they are the only feature: then they are words with
# a vocabulary.
MAX_WORDS = 256
WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")  # or one mark of punctuation


def words_of(text: str) -> list[str]:
    """The words and marks of a text that is read as a sequence, in small letters.

    Example:
        >>> words_of("I can't wait!")
        ['i', "can't", 'wait', '!']
    """
    return WORD.findall(text.lower())


class Integers(Series):
    """N sequences of integers of different lengths.

    Attributes:
        values: `[ΣT]` int64.
        offsets: `[N + 1]` int64; sequence i is `values[offsets[i]:offsets[i + 1]]`.

    Example:
        >>> sequences = Integers.of([[1, 2, 3], [4]])
        >>> sequences.lengths, sequences.padded(np.array([1, 0]), -1)
        (array([3, 1]), array([[ 4, -1, -1],
               [ 1,  2,  3]]))
    """

    def __init__(
        self,
        stored: Any,
        lengths: Any,
        starts: np.ndarray | None = None,
        stand_for: np.ndarray | None = None,
    ):
        stored = stored if is_mapped(stored) else np.asarray(stored, np.int64)
        super().__init__(stored, lengths, starts, stand_for)

    def _meant(self, stored: np.ndarray) -> np.ndarray:
        return super()._meant(stored).astype(np.int64, copy=False)

    @staticmethod
    def of(sequences: Sequence[Any]) -> Integers:
        """From a list of integers for each sequence."""
        lengths = [len(each) for each in sequences]
        return Integers(
            np.concatenate([np.zeros(0, np.int64), *map(np.asarray, sequences)]), lengths
        )

    def counts(self, n: int) -> np.ndarray:
        """How often each of the integers 0…n−1 occurs, `[n]`."""
        total = np.zeros(n, np.int64)
        for chosen in stretches(self.lengths, AT_ONCE):
            total += np.bincount(self.take(chosen).values, minlength=n)
        return total

    def padded(self, chosen: np.ndarray, fill: int) -> np.ndarray:
        """`[M, longest]`: those sequences, and `fill` beyond their ends."""
        taken = self.take(chosen)
        lengths = taken.lengths
        result = np.full((len(chosen), int(lengths.max(initial=0))), fill, np.int64)
        result[np.arange(result.shape[1]) < lengths[:, None]] = taken.values
        return result


class WordArrays(NamedTuple):
    """Some sequences of words, for a network."""

    places: np.ndarray  # [B, T]: which of the U different words is at each step; 0 beyond
    words: np.ndarray  # [U], their numbers
    characters: np.ndarray  # [U, L], the numbers of their characters; 0 beyond
    n_characters: np.ndarray  # [U], 1 or more
    lengths: np.ndarray  # [B]


@dataclass(frozen=True, eq=False)
class Words:
    """N sequences of words.

    Attributes:
        different: the D different ones, sorted.
        places: which of them is at each step.

    Example:
        >>> words = Words.of([["to", "be"], ["be"]])
        >>> words.different, words.places.values
        (('be', 'to'), array([1, 0, 0]))
    """

    different: tuple[str, ...]
    places: Integers

    @staticmethod
    def of(X: Sequence[Sequence[str]]) -> Words:
        """From N sequences of strings.

        Raises:
            ValueError: there is no sequence, or one without words.
            TypeError: a word is not a string.
        """
        if not len(X):
            raise ValueError("X has no examples; wanted at least one")
        for i, sequence in enumerate(X):
            if isinstance(sequence, str) or not len(sequence):
                what = f"the text {sequence!r}" if len(sequence) else "no steps"
                raise ValueError(f"example {i} of X has {what}; wanted a list of words")
            wrong = [step for step, word in enumerate(sequence) if not isinstance(word, str)]
            if wrong:
                raise TypeError(
                    f"X has {sequence[wrong[0]]!r} at example {i}, step {wrong[0]}; wanted a word, "
                    "since the first one is: a string"
                )
        numbers: dict[str, int] = {}
        found = [numbers.setdefault(str(word), len(numbers)) for x in X for word in x]
        order = sorted(numbers)
        rank = np.empty(len(order), np.int64)
        rank[[numbers[word] for word in order]] = np.arange(len(order))
        return Words(tuple(order), Integers(rank[found], [len(x) for x in X]))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, chosen: np.ndarray) -> Words:
        return Words(self.different, self.places.take(chosen))

    @property
    def lengths(self) -> np.ndarray:
        """`[N]` int64."""
        return self.places.lengths

    @property
    def counts(self) -> np.ndarray:
        """`[D]`, how often each different word occurs."""
        return self.places.counts(len(self.different))


class WordVocabulary:
    """The words and the characters that a model knows; number 0 is all others.

    Attributes:
        words: V − 1 of them, with the numbers 1…V−1.
        characters: those of all words of the training, with the numbers from 1.

    Example:
        >>> vocabulary = WordVocabulary.fit(Words.of([["to", "be"], ["be"]]), size=2)
        >>> vocabulary.words, vocabulary.characters
        (('be',), 'beot')
        >>> vocabulary.code(Words.of([["be", "or"]])).words
        array([1, 0])
    """

    def __init__(self, words: Iterable[str], characters: str):
        self.words = tuple(words)
        self.characters = characters
        self._words = {word: i for i, word in enumerate(self.words, 1)}
        self._characters = {each: i for i, each in enumerate(characters, 1)}

    @staticmethod
    def fit(words: Words, size: int) -> WordVocabulary:
        """The vocabulary of a training: the most frequent words, V − 1 at most.

        Of equally frequent ones it has the first in the order of their code points.
        """
        counts = words.counts
        order = np.argsort(-counts, kind="stable")
        known = [words.different[i] for i in order[: size - 1] if counts[i]]
        characters = {c for i in np.flatnonzero(counts) for c in words.different[i]}
        return WordVocabulary(sorted(known), "".join(sorted(characters)))

    @property
    def n_words(self) -> int:
        """V, the different words that are known, and one for all others."""
        return 1 + len(self.words)

    @property
    def n_characters(self) -> int:
        return 1 + len(self.characters)

    def code(self, words: Words) -> CodedWords:
        """The words as their numbers in the vocabulary, and the characters that spell them."""
        spelt = [self._spell(word) for word in words.different]
        numbers = [self._words.get(word, UNKNOWN) for word in words.different]
        return CodedWords(words.places, np.array(numbers, np.int64), Integers.of(spelt))

    def as_json(self) -> dict[str, Any]:
        return {"words": list(self.words), "characters": self.characters}

    @staticmethod
    def from_json(value: Any, where: str) -> WordVocabulary:
        """What `as_json` gave; `where` names its origin in errors.

        Raises:
            ValueError: it is something else.
        """
        if isinstance(value, dict) and value.keys() == {"words", "characters"}:
            words, characters = value["words"], value["characters"]
            proper = isinstance(words, list) and all(isinstance(word, str) for word in words)
            if proper and isinstance(characters, str):
                return WordVocabulary(words, characters)
        raise ValueError(f"{where} is not a vocabulary that save() wrote; it is damaged")

    def _spell(self, word: str) -> list[int]:
        if len(word) > MOST_CHARACTERS:
            word = word[: MOST_CHARACTERS // 2] + word[-MOST_CHARACTERS // 2 :]
        return [self._characters.get(c, UNKNOWN) for c in word] or [UNKNOWN]


@dataclass(frozen=True, eq=False)
class CodedWords:
    """N sequences of words by the numbers of a vocabulary.

    Attributes:
        places: which of the D different words is at each step.
        words: `[D]`, their numbers.
        characters: the numbers of the characters of each.
    """

    places: Integers
    words: np.ndarray
    characters: Integers

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, chosen: np.ndarray) -> CodedWords:
        return replace(self, places=self.places.take(chosen))

    @property
    def lengths(self) -> np.ndarray:
        """`[N]` int64."""
        return self.places.lengths

    @property
    def n_unknown(self) -> int:
        """How many of all words, in their places, the vocabulary has not."""
        return int(self.places.counts(len(self.words))[self.words == UNKNOWN].sum())

    def arrays(self, chosen: np.ndarray) -> WordArrays:
        """The sequences at positions `[B]`."""
        lengths = self.lengths[chosen]
        different, places = np.unique(self.places.take(chosen).values, return_inverse=True)
        return WordArrays(
            Integers(places, lengths).padded(np.arange(len(lengths)), 0),
            self.words[different],
            self.characters.padded(different, UNKNOWN),
            self.characters.lengths[different],
            lengths,
        )
