"""`Vocabulary`: texts as token numbers and back: characters, words or word pieces.

Two numbers belong to no text. END comes after the last token of a document and, as an input, before
its first one. UNKNOWN means every character or word that the training did not have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ostinato.internal import needs
from ostinato_learn.data.text.words import WORD

END, UNKNOWN = 0, 1
SPECIAL = 2  # numbers that belong to no text
LEVELS = ("character", "word", "piece")

_NO_BLANK_BEFORE = frozenset(".,;:!?)]}’”%-—")
_NO_BLANK_AFTER = frozenset("([{‘“£$#-—")
_SEEN_TWICE = 2  # occurrences that a word needs to have a number; rarer words train UNKNOWN
_BYTES = 256  # every byte is a piece, so that no text is unknown


class Vocabulary:
    """The V tokens that a language model knows.

    At the level "word" a token is a word (with inner apostrophes) or one mark of
    punctuation; blanks and line ends are not kept, and `decode` sets blanks by rules. The other
    levels restore every text, except unknown characters.

    Attributes:
        level: "character", "word" or "piece".
        strings: `[V]`, the text of each token; those of END and UNKNOWN are empty.

    Example:
        >>> vocabulary = Vocabulary.fit(["to be or not to be"], "word")
        >>> vocabulary.strings
        ('', '', 'be', 'to')
        >>> vocabulary.encode("to be, not").tolist()
        [3, 2, 1, 1]
        >>> vocabulary.decode([3, 2])
        'to be'
    """

    def __init__(self, level: str, strings: Sequence[str], tokenizer: Any = None):
        self.level = level
        self.strings = tuple(strings)
        self._tokenizer = tokenizer
        self._numbers = {text: i for i, text in enumerate(self.strings) if i >= SPECIAL}
        if level == "character":
            points = np.array([ord(text) for text in self.strings[SPECIAL:]], dtype=np.uint32)
            self._order = np.argsort(points)
            self._points = points[self._order]

    def __len__(self) -> int:
        return len(self.strings)

    @staticmethod
    def fit(documents: Iterable[str], level: str, size: int | None = None) -> Vocabulary:
        """The vocabulary of a training corpus.

        Args:
            documents: the texts.
            level: "character", "word" or "piece".
            size: V at most; the most frequent are kept, and of equally frequent ones the first in
                the order of their code points. None keeps all characters, the words that occur
                twice or more, or 8,192 pieces.

        Raises:
            ValueError: there is nothing to keep, or `size` is too small.
            ModuleNotFoundError: the level "piece" without the extra `ostinato[text]`.
        """
        if level not in LEVELS:
            raise ValueError(f"level={level!r}; wanted one of {', '.join(map(repr, LEVELS))}")
        if level == "piece":
            return _fit_pieces(documents, size)
        counts: Counter[str] = Counter()
        for text in documents:
            counts.update(_split(text, level))
        least = _SEEN_TWICE if level == "word" else 1
        kept = sorted((t for t, n in counts.items() if n >= least), key=lambda t: (-counts[t], t))
        if size is not None:
            kept = kept[: size - SPECIAL]
        if not kept:
            wanted = f"a {level}" if least == 1 else f"a {level} that occurs twice"
            raise ValueError(
                f"the documents have {len(counts)} different {level}s, of which vocabulary_size="
                f"{size} keeps none; wanted {wanted}, and a size of 3 or more"
            )
        return Vocabulary(level, ["", "", *sorted(kept)])

    def encode(self, text: str) -> np.ndarray:
        """The numbers of a text's tokens, `[N]` int32, without END."""
        if self.level == "character":
            return self._encode_characters(text)
        if self.level == "piece":
            ids = self._tokenizer.encode(text).ids
            return np.array(ids, dtype=np.int32) + np.int32(SPECIAL)
        numbers = self._numbers
        return np.array([numbers.get(w, UNKNOWN) for w in WORD.findall(text)], dtype=np.int32)

    def written(self, text: str) -> list[str] | None:
        """The characters or words of a text that `encode` numbers; None: they are pieces."""
        if self.level == "piece":
            return None
        return list(text) if self.level == "character" else WORD.findall(text)

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of tokens. END is nothing; UNKNOWN is �, at the level "word" <unk>."""
        numbers = [int(i) for i in numbers]
        if self.level == "piece":
            return self._tokenizer.decode([i - SPECIAL for i in numbers if i >= SPECIAL])
        if self.level == "character":
            return "".join("\ufffd" if i == UNKNOWN else self.strings[i] for i in numbers)
        return _join("<unk>" if i == UNKNOWN else self.strings[i] for i in numbers if i != END)

    def keys(self) -> list[str]:
        """`[V]`, what a user types for each token: its text, and for a word the blank after."""
        if self.level != "word":
            return list(self.strings)
        return [text + " " * (keys_of_word(text) - len(text)) for text in self.strings]

    def named(self) -> list[str]:
        """A name for each token, `[V]`: its text, and <end> and <unk> for END and UNKNOWN."""
        return ["<end>", "<unk>", *self.strings[SPECIAL:]]

    def typed(self, text: str) -> tuple[str, str]:
        """A text that is being typed, cut before its unfinished token: (whole tokens, beginning).

        A character is never unfinished. A word is until a blank follows it. So is a piece, which
        begins where the word, number or run of marks begins that no piece goes beyond.
        """
        if self.level == "character":
            return text, ""
        if self.level == "piece":
            begin = self._begin_of_pieces(text)
            return text[:begin], text[begin:]
        words = text.split(" ")
        begin = len(text) - len(words[-1])
        unfinished = WORD.findall(words[-1])
        if not unfinished or not text.endswith(unfinished[-1]) or keys_of_word(unfinished[-1]) == 1:
            return text, ""
        return text[: len(text) - len(unfinished[-1])], unfinished[-1]

    def _begin_of_pieces(self, text: str) -> int:
        """Where the last part of a text begins that pieces are made of; a blank is of the next."""
        if text.endswith(" "):
            return len(text) - 1
        if not text or text[-1].isspace():
            return len(text)
        begin = len(text) - len(text.rsplit(None, 1)[-1])
        begin -= text[:begin].endswith(" ")
        parts = self._tokenizer.pre_tokenizer.pre_tokenize_str(text[begin:])
        return begin + parts[-1][1][0]

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads, of JSON values."""
        if self.level == "piece":
            return {"level": self.level, "tokenizer": self._tokenizer.to_str()}
        return {"level": self.level, "strings": list(self.strings[SPECIAL:])}

    @staticmethod
    def from_json(saved: Any, where: str) -> Vocabulary:
        """What `as_json` gave; `where` names its place in errors.

        Raises:
            ValueError: it is damaged.
        """
        level = saved.get("level") if isinstance(saved, dict) else None
        content = {"level", "tokenizer" if level == "piece" else "strings"}
        if level not in LEVELS or saved.keys() != content:
            raise ValueError(f"{where} is not a vocabulary that save() wrote; it is damaged")
        if level == "piece":
            with needs("ostinato-learn[text]", "tokenizers"):
                from tokenizers import Tokenizer
            return _of_tokenizer(Tokenizer.from_str(saved["tokenizer"]))
        strings = saved["strings"]
        proper = isinstance(strings, list) and all(isinstance(t, str) and t for t in strings)
        if not proper or len(set(strings)) != len(strings):
            raise ValueError(f"{where} has 'strings' that are not all different; it is damaged")
        if level == "character" and any(len(text) != 1 for text in strings):
            raise ValueError(f"{where} has texts that are not single characters; it is damaged")
        return Vocabulary(level, ["", "", *strings])

    def _encode_characters(self, text: str) -> np.ndarray:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        places = np.searchsorted(self._points, points).clip(max=len(self._points) - 1)
        numbers = self._order[places].astype(np.int32) + SPECIAL
        return np.where(self._points[places] == points, numbers, UNKNOWN).astype(np.int32)


def keys_of_word(word: str) -> int:
    """Keys to type a token of the level "word": its letters and a blank; one for a mark."""
    return len(word) + 1 if word[:1].isalnum() or word[:1] == "_" else len(word)


def _split(text: str, level: str) -> list[str]:
    return list(text) if level == "character" else WORD.findall(text)


def _join(words: Iterable[str]) -> str:
    """Words and marks as a text. A straight quote opens and closes in turn."""
    parts: list[str] = []
    glued, quoted = True, False
    for word in words:
        closes = word in _NO_BLANK_BEFORE or (word == '"' and quoted)
        parts.append(word if glued or closes else f" {word}")
        glued = word in _NO_BLANK_AFTER or (word == '"' and not quoted)
        quoted ^= word == '"'
    return "".join(parts)


def _fit_pieces(documents: Iterable[str], size: int | None) -> Vocabulary:
    """Byte pair encoding (Sennrich et al. 2016) over bytes, by the library `tokenizers`."""
    with needs("ostinato-learn[text]", "tokenizers"):
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    least = SPECIAL + _BYTES
    size = 8192 if size is None else size
    if size < least:
        raise ValueError(
            f"vocabulary_size={size} with level='piece'; wanted {least} or more, since every byte "
            "is a piece"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return _of_tokenizer(tokenizer)


def _of_tokenizer(tokenizer: Any) -> Vocabulary:
    texts = [tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size())]
    return Vocabulary("piece", ["", "", *texts], tokenizer)
