"""`LanguageModel`: a model that says which token comes next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ostinato_learn.data.text.keyboard import SUGGESTED, Keyboard, Suggestion
from ostinato_learn.data.text.vocabulary import END, UNKNOWN, Vocabulary
from ostinato_learn.data.text.writing import Generated, Sampling, pieces, written
from ostinato_learn.runtime.measures import nats
from ostinato_learn.runtime.model import Model
from ostinato_learn.runtime.values import Array, fail
from ostinato_learn.saved import checks
from ostinato_learn.saved.read import Saved

# A long document is measured in parts of 8192 tokens. Before each part 512 tokens are read again to
# warm up the state, which forgets within hundreds of tokens.
PART, WARM_UP = 8192, 512
READ_AT_ONCE = 128  # tokens of a row between two readouts
ROWS_AT_ONCE = 32
BLOCK = 1 << 22  # numbers of outputs in memory: 16 MB
FARTHEST = 700.0  # nats, whose exponential is a float


# Of a unit of the test: the cross-entropy in nats; how many tokens were the likeliest, or among the
# three likeliest; how many are UNKNOWN; and how many there are.
COUNTED = 5
# The units by which a model is tested against another: documents, or of fewer than FEWEST documents
# stretches of their text. Losses within a stretch depend on each other; means of long stretches
# hardly do, and some 20 of them are enough (Schmeiser 1982).
FEWEST, STRETCHES, SHORTEST = 6, 20, 100
MOST_UNITS = 1_000  # of more documents, neighbours form a unit


@dataclass(eq=False, repr=False, kw_only=True)
class LanguageModel(Model):
    """A model that says which token comes next.

    Attributes:
        vocabulary: of the tokens.

    Example:
        >>> model = ostinato_learn.runtime.load("runs/keys/model")
        >>> model.predict_proba(["to be"])[0].shape == (6, len(model.labels))
        True
        >>> len(model.predict(["to be", "or not"])), len(model.suggest("to b", 2))
        (2, 2)
        >>> model.suggest("to b", 1)[0].text == model.predict(["to b"])[0]
        True
        >>> made = model.generate("to be", n=9, seed=1)          # a seed gives the same text again
        >>> made == model.generate("to be", n=9, seed=1), made.n_tokens <= 9
        (True, True)
        >>> "".join(model.writing("to be", n=9, seed=1)) == made.text
        True
        >>> [token for token, bits in model.bits("to be")]
        ['t', 'o', ' ', 'b', 'e']
        >>> 0 < model.evaluate(["to be or not to be"])["bits_per_character"] < 5
        True
    """

    task = "language"

    vocabulary: Vocabulary
    _last: tuple[Any, Any, Any] = field(default=(None, None, None), init=False)

    @classmethod
    def values(cls, saved: Saved, where: str) -> dict[str, Any]:
        fitted, graph = saved.fitted, saved.graph
        checks.names(fitted, {"vocabulary"}, where, ["one_in"])  # of earlier models
        n = saved.net.get("n_tokens") if graph is None else graph.n_outputs
        if graph is not None and (graph.embed is None or graph.embed.n_tokens != n):
            fail(f"{where}: a language model without a table of its tokens")
        return {"vocabulary": checks.vocabulary(fitted["vocabulary"], n, where)}

    def fitted(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary.as_json()}

    @cached_property
    def labels(self) -> Array:
        """`[V]`, the tokens."""
        return np.array(self.vocabulary.named(), dtype=object)

    @property
    def reads_tokens(self) -> bool:
        return True

    def described_answer(self) -> dict[str, Any]:
        return {"answer": "probabilities of the next token", "begins_with": END}

    def predict_proba(self, texts: Sequence[str]) -> list[Array]:
        """The probability of each token to be the next, after each token of each text.

        Returns:
            N arrays `[T_i, V]` float32; a text of T_i − 1 tokens has T_i of them, of which the
            first is what may begin a document.
        """
        return [self.network.read(self._tokens(text)[None], None, True)[0][0] for text in texts]

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest token of a text after each; the last word of it is finished.

        It is never the end of the text or an unknown word, which a stream may answer.
        """
        return [self.suggest(text, 1, complete=False)[0].text for text in texts]

    def evaluate(self, documents: Sequence[str]) -> dict[str, Any]:
        """Measure how well the model predicts documents.

        Returns:
            loss (mean cross-entropy of a token, in nats; the END of each document counts as one),
            bits_per_character (bits of all tokens by the characters of the text; at the level
            "word" it leaves out what the tokens do: blanks, and the letters of unknown words),
            perplexity (exp(loss), which compares models of the same vocabulary only), n_tokens,
            vocabulary_size, unknown (the share of tokens that are UNKNOWN), top1 and top3 (the
            share of tokens that were the likeliest, or among the three likeliest).

        Raises:
            ValueError: there is no character in any of them.
        """
        return self.measured(self.counted(documents), documents)

    def counted(self, documents: Sequence[str], rank: int = 0, size: int = 1) -> Array:
        """The sums for `measured`, `[U, 5]`: a row of COUNTED for each of the `units`.

        Of several processes each has those of its parts.

        Raises:
            ValueError: there is no character in any of the documents.
        """
        if not any(documents):
            raise ValueError(
                f"the {len(documents)} documents have no character; wanted a text to measure"
            )
        tokens = [self.vocabulary.encode(text) for text in documents]
        unit = units(list(map(len, tokens)))
        total = np.zeros((unit[-1] + 1, COUNTED))
        for proba, came, first in self._answers(tokens, rank, size):
            right = np.take_along_axis(proba, came[:, None], 1)
            better = (proba > right).sum(1)
            ones = np.ones(len(came))
            each = [nats(right)[:, 0], better < 1, better < SUGGESTED, came == UNKNOWN, ones]
            np.add.at(total, unit[first : first + len(came)], np.stack(each, axis=1))
        return total

    def measured(self, counts: Array, documents: Sequence[str]) -> dict[str, Any]:
        """The measures of `evaluate` by the sums over all documents."""
        total, first, third, unknown, n = counts.sum(0).tolist()
        loss = total / n
        return {
            "loss": loss,
            "bits_per_character": total / math.log(2) / sum(map(len, documents)),
            "perplexity": math.exp(min(loss, FARTHEST)),
            "n_tokens": int(n),
            "vocabulary_size": len(self.vocabulary),
            "unknown": unknown / n,
            "top1": first / n,
            "top3": third / n,
        }

    def suggest(self, text: str, n: int = 3, *, complete: bool = True) -> list[Suggestion]:
        """The n likeliest continuations of a text as it is typed, the best first.

        At the level "word" an unfinished word is completed: after "the quick br" the suggestions
        are words that begin with "br", at most n. The state after each key is kept, so that only
        new characters are read, also after a key is taken back.

        Args:
            text: the text so far.
            n: the number of suggestions.
            complete: whether to complete the last word; False if it is finished without a blank
                after it.

        Returns:
            Each with its `text` and its `probability` among those that begin as typed.
        """
        whole, beginning = self.vocabulary.typed(text) if complete else (text, "")
        scores = self._after(self.vocabulary.encode(whole))
        found = self._keyboard.likeliest(scores, beginning, n)
        return [Suggestion(self.vocabulary.strings[i], share) for i, share in found]

    def generate(
        self,
        prompt: str = "",
        n: int = 200,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Generated:
        """Continue a prompt until the model ends the document, by n tokens at most.

        Args:
            prompt: the beginning of a document; "" begins a new one.
            n: the largest number of tokens.
            temperature, top_k, top_p, seed: how tokens are drawn; see `data.writing.Sampling`.

        Returns:
            The `text` without the prompt, and its `n_tokens`.

        Raises:
            ValueError: n or top_k is below 1, temperature not in [0, ∞), top_p not in (0, 1], or
                seed below 0.
        """
        how = Sampling(temperature, top_k, top_p, seed)
        return written(self._read_on, self.vocabulary, prompt, n, how)

    def writing(
        self, prompt: str = "", n: int = 200, *, temperature: float = 1.0, seed: int = 0
    ) -> Iterator[str]:
        """The text of `generate`, piece by piece, as it is drawn; arguments and errors as there."""
        how = Sampling(temperature, seed=seed)
        return pieces(self._read_on, self.vocabulary, prompt, n, how)

    def bits(self, text: str) -> list[tuple[str, float]]:
        """The tokens of a text, and how many bits each takes after those before it: −log₂ p.

        A character or a word that the model does not know is there as it was written.
        """
        tokens = self.vocabulary.encode(text)
        (bits,) = self.bits_of([tokens])
        shown = self.vocabulary.written(text)
        if shown is None:
            shown = [self.vocabulary.decode([token]) for token in tokens.tolist()]
        return list(zip(shown, bits[:-1].tolist(), strict=True))

    def bits_of(self, documents: Sequence[Array]) -> list[Array]:
        """The bits of each token, and of the END, of documents of token numbers, `[n + 1]` each."""
        ends = np.cumsum([len(tokens) + 1 for tokens in documents])
        found = np.empty(ends[-1])
        for proba, came, first in self._answers(documents):
            found[first : first + len(came)] = nats(proba[np.arange(len(came)), came]) / math.log(2)
        return np.split(found, ends[:-1])

    def _answers(
        self, documents: Sequence[Array], rank: int = 0, size: int = 1
    ) -> Iterator[tuple[Array, Array, int]]:
        """The probabilities of all tokens; see `read_documents`."""
        at_once = max(1, min(READ_AT_ONCE, BLOCK // (ROWS_AT_ONCE * len(self.vocabulary))))
        return read_documents(self._read_rows, documents, at_once, rank, size)

    @cached_property
    def _keyboard(self) -> Keyboard:
        return Keyboard(self.vocabulary)

    def _after(self, tokens: Array) -> Array:
        """The logarithms of the probabilities, `[V]`, after tokens `[N]` that begin a document.

        A text that goes on from the last one, as when it is typed, is not read again.
        """
        before, scores, carry = self._last  # threads replace it as a whole
        new = tokens[0 if before is None else len(before) :]
        if before is None or not np.array_equal(tokens[: len(before)], before):
            new, carry = np.concatenate([[END], tokens]), None
        if len(new):
            scores, carry = self._read_on(new, carry)
        self._last = tokens, scores, carry
        return scores

    def _read_on(self, tokens: Array, carry: Any) -> tuple[Array, Any]:
        proba, carry = self.network.read(tokens[None], carry, False)
        return -nats(proba[0, -1]), carry  # finite, also where a probability is 0

    def _read_rows(self, tokens: Array, carry: Any) -> tuple[Array, Any]:
        found: tuple[Array, Any] = self.network.read(tokens, carry, True)
        return found

    def _tokens(self, text: str) -> Array:
        return np.concatenate([[END], self.vocabulary.encode(text)]).astype(np.int64)

    def stream_parts(self) -> dict[str, Any]:
        return {"reader": self._rows, "begin": self.network.vectors(np.array([END]))}

    def _rows(self, x: Any) -> Array:
        """Rows `[T, E]` of a text, or of numbers of tokens."""
        if isinstance(x, str):
            tokens = self.vocabulary.encode(x)
        else:
            tokens = np.atleast_1d(np.asarray(x))
            whole = tokens.ndim == 1 and tokens.dtype.kind in "iu"
            if not whole or ((tokens < 0) | (tokens >= len(self.labels))).any():
                raise ValueError(
                    f"wanted a text, or numbers of tokens from 0 to {len(self.labels) - 1}; came "
                    f"{x!r:.60}"
                )
        if len(tokens) == 0:
            raise ValueError("there is no token in x; wanted at least one")
        return self.network.vectors(tokens)


def units(lengths: Sequence[int]) -> Array:
    """The number of the unit of each token, and of each END, of all documents in their order.

    Args:
        lengths: the numbers of tokens of the documents.
    """
    n, n_documents = sum(lengths) + len(lengths), len(lengths)
    if n_documents < FEWEST:
        n_units = max(1, min(STRETCHES, n // SHORTEST))
        return np.arange(n) * n_units // n
    of_document = np.arange(n_documents) * min(n_documents, MOST_UNITS) // n_documents
    return np.repeat(of_document, np.array(lengths) + 1)


@dataclass(frozen=True)
class DocumentPart:
    """A part of a document: the tokens [N + 1], each predicted from those before it.

    Attributes:
        skipped: the number of answers at the start to leave out.
        first: the place of the first answer among those to all documents.
    """

    tokens: Array
    skipped: int
    first: int


def read_documents(
    read: Callable[[Array, Any], tuple[Any, Any]],
    documents: Sequence[Array],
    at_once: int,
    rank: int = 0,
    size: int = 1,
    head: Callable[[Any], Any] = lambda rows: rows,
) -> Iterator[tuple[Any, Array, int]]:
    """A network's outputs `[n, V]` and the tokens that came `[n]`, of all tokens and ENDs, once.

    With them comes the place of the first of the n among the tokens and ENDs of all documents.

    Documents are read side by side, the longest with the longest. One of more than PART tokens is
    read in parts, each after the WARM_UP tokens before it, whose outputs are left out.

    Args:
        read: gives rows for tokens `[B, T]`, and the state after them, which it is given the next
            time: of rows of which only the first B go on.
        documents: their tokens.
        at_once: tokens of a row to read at a time.
        rank, size: of several processes each reads some parts.
        head: from rows that `read` gave to outputs.
    """
    parts = sorted(_parts(documents), key=lambda part: -len(part.tokens))[rank::size]
    for start in range(0, len(parts), ROWS_AT_ONCE):
        yield from _outputs(read, parts[start : start + ROWS_AT_ONCE], at_once, head)


def _parts(documents: Sequence[Array]) -> Iterator[DocumentPart]:
    place = 0
    for document in documents:
        whole = np.concatenate([[END], document, [END]]).astype(np.int64)
        for start in range(0, len(whole) - 1, PART):
            before = max(0, start - WARM_UP)
            tokens = whole[before : start + PART + 1]
            yield DocumentPart(tokens, start - before, place + before)
        place += len(whole) - 1


def _outputs(
    read: Callable[[Array, Any], tuple[Any, Any]],
    parts: list[DocumentPart],
    at_once: int,
    head: Callable[[Any], Any],
) -> Iterator[tuple[Any, Array, int]]:
    """The outputs for parts, the longest first; rows that are at their end leave the batch."""
    carry: Any = None
    for start in range(0, len(parts[0].tokens) - 1, at_once):
        rows = [p for p in parts if len(p.tokens) - 1 > start]
        tokens = np.zeros((len(rows), at_once + 1), dtype=np.int64)
        counted = np.zeros((len(rows), at_once), dtype=bool)
        for i, part in enumerate(rows):
            piece = part.tokens[start : start + at_once + 1]
            tokens[i, : len(piece)] = piece
            counted[i, max(0, part.skipped - start) : len(piece) - 1] = True
        found, carry = read(tokens[:, :-1].copy(), carry)
        for part, row, came, keep in zip(rows, found, tokens[:, 1:], counted, strict=True):
            if keep.any():
                yield head(row[keep]), came[keep], part.first + start + int(keep.argmax())


MODEL = LanguageModel
