"""`LanguageModel`: a saved model that says which token comes next, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ostinato.data.text.growing_text import GrowingText
from ostinato.data.text.keyboard import Keyboard, Suggestion
from ostinato.data.text.vocabulary import END, Vocabulary
from ostinato.data.text.writing import Generated, Sampling, pieces, written
from ostinato.runtime import checks
from ostinato.runtime.model import Model
from ostinato.runtime.tensors import Array
from ostinato.runtime.values import fail


class LanguageModel(Model):
    """A model that says which token comes next.

    Attributes:
        vocabulary: that of the tokens.

    Example:
        >>> model = ostinato.runtime.load("runs/keys/model")
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

    vocabulary: Vocabulary

    def _take(self, fitted: dict[str, Any], where: str) -> None:
        checks.names(fitted, {"vocabulary", "one_in"}, where)
        self._copies = checks.copies(self.tensors, fitted["one_in"], where)
        self.vocabulary = checks.vocabulary(fitted["vocabulary"], self.graph.n_outputs, where)
        self.labels = np.array(self.vocabulary.named(), dtype=object)
        if self.graph.embed is None or self.graph.embed.n_tokens != self.graph.n_outputs:
            fail(f"{where}: a language model without a table of its tokens")

    def predict_proba(self, texts: Sequence[str]) -> list[Array]:
        """The probability of each token to be the next, after each token of each text.

        Returns:
            N arrays `[T_i, V]` float32; a text of T_i − 1 tokens has T_i of them, of which the
            first is what may begin a document.
        """
        found = []
        for tokens in map(self._tokens, texts):
            found.append(self.network.answers(tokens[None])[0])
        return found

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest token of a text after each; the last word of it is finished.

        Its end and an unknown word, which an answer of a stream may be, are none.
        """
        return [self.suggest(text, 1, complete=False)[0].text for text in texts]

    def evaluate(self, documents: Sequence[str]) -> dict[str, Any]:
        """How well the model predicts texts.

        Returns:
            loss (nats of a token), bits_per_character, perplexity, top1, top3 and so on; see
            `training.language.LanguageEvaluation`.

        Raises:
            ValueError: there is no character in any of them.
        """
        from ostinato.runtime import measures

        return measures.of_language_model(self, documents)

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
        scores = self._typing.answer(self.vocabulary.encode(whole))
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
            The `text` without the prompt, its `n_tokens`, and which share of its 20-grams is
            `copied` from the training documents.

        Raises:
            ValueError: n or top_k is below 1, temperature not in [0, ∞), top_p not in (0, 1], or
                seed below 0.
        """
        how = Sampling(temperature, top_k, top_p, seed)
        return written(self._read_on, self.vocabulary, self._copies, prompt, n, how)

    def writing(
        self, prompt: str = "", n: int = 200, *, temperature: float = 1.0, seed: int = 0
    ) -> Iterator[str]:
        """The text of `generate`, piece by piece, as it is drawn; arguments and errors as there."""
        how = Sampling(temperature, seed=seed)
        return pieces(self._read_on, self.vocabulary, prompt, n, how)

    def bits(self, text: str) -> list[tuple[str, float]]:
        """The tokens of a text, and how many bits each takes after those before it: −log₂ p."""
        tokens, proba = self._tokens(text)[1:], self.predict_proba([text])[0]
        taken = proba[np.arange(len(tokens)), tokens].astype(np.float64)
        bits = -np.log2(np.maximum(taken, np.finfo(np.float32).smallest_subnormal))
        shown = [self.vocabulary.decode([token]) for token in tokens.tolist()]
        return list(zip(shown, bits.tolist(), strict=True))

    @cached_property
    def _keyboard(self) -> Keyboard:
        return Keyboard(self.vocabulary)

    @cached_property
    def _typing(self) -> GrowingText[Array]:
        """To the logarithms of the probabilities, `[V]`."""
        return GrowingText(self._read_on)

    def _read_on(self, tokens: Array, carry: Array | None) -> tuple[Array, Array]:
        proba, carry = self.read(tokens, carry, each=False)
        with np.errstate(divide="ignore"):
            return np.log(proba[-1].astype(np.float64)), carry

    def read(self, tokens: Array, carry: Array | None, *, each: bool) -> tuple[Array, Array]:
        """The probabilities after the last of some tokens `[N]`, or after each, and the carry.

        Args:
            tokens: their numbers; a document begins with END.
            carry: the states after the tokens before them; None: there are none.
            each: whether after each.

        Returns:
            `[1, V]` or `[N, V]` float32, and the states in one row.
        """
        chunks = self._source.chunks
        if carry is None:
            carry = np.zeros(self._source.n_carry, np.float32)
        return chunks.answers(self.network.vectors(tokens), carry, each)

    def _tokens(self, text: str) -> Array:
        return np.concatenate([[END], self.vocabulary.encode(text)]).astype(np.int64)

    @property
    def reads_tokens(self) -> bool:
        return True

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


MODEL = LanguageModel
