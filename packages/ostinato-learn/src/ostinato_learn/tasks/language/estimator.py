"""`LanguageModel`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ostinato_learn import training
from ostinato_learn.data.formats.documents import documents_in
from ostinato_learn.data.text.keyboard import Suggestion
from ostinato_learn.data.text.writing import Generated
from ostinato_learn.hyperparameters import DEFAULT_WINDOW, Fitting, declarations
from ostinato_learn.tasks import recipe
from ostinato_learn.tasks.estimator import AUTO, Auto, Estimator, described, own, validation_share
from ostinato_learn.tasks.language import fit
from ostinato_learn.tasks.language.fit import Reading, as_documents
from ostinato_learn.tasks.language.model import LanguageModel as TokenModel
from ostinato_learn.tasks.language.net import LanguageArchitecture
from ostinato_learn.tasks.recipe import Settings

TOKENS = ("embedding_size", "tied", "vocabulary_size")  # parameters that `of_tokens` chooses
LEAST_HELD_OUT = 2  # documents, to judge by documents


@described
@dataclass(eq=False, repr=False, kw_only=True)  # the constructor, which stores its arguments
class LanguageModel(Estimator):
    """A recurrent network that predicts the next character, word or word piece of texts.

    Documents `X` are a list of N texts (str). Each document is read from its beginning, with its
    own state.

    Args:
        level: what a token is: "character"; "word", words and marks of punctuation; or "piece",
            parts of words that are frequent in the documents (by the library `tokenizers`, of the
            extra `ostinato[text]`). Default: 'character'.
        vocabulary_size: the largest number of tokens, V; the most frequent ones are kept. By
            the recipe all characters, or 10,000 of the words that occur twice, or of pieces. Every
            other word is read as the unknown word. Default: 'auto'.
        {hyperparameters}
        cell: "rnn", "gru" or "lstm"; or a class of your own, whose forward is a step, and whose
            first carry depends on no value of its input: see `models.Stack`. By the recipe 'lstm'.
            Default: 'auto'.
        dropout: share that is dropped of the embeddings, between layers and before the readout, in
            training only. By the recipe 0.0. Default: 'auto'.
        embedding_size: size of a token's embedding; 0 reads tokens one-hot. By the recipe that of
            the hidden state, 256 at most. Default: 'auto'.
        tied: whether the readout has the embeddings as its weights, which saves V · H numbers. By
            the recipe those of words and pieces are. Default: 'auto'.
        truncate: tokens through which a gradient goes back; the state goes on. Default: 128.
        validation_fraction: share of the documents kept for validation; where these are fewer than
            two, the last part of each document. Default: 0.0.

    Attributes:
        net_: the `models.LanguageNet`.
        vocabulary_: the `data.text.vocabulary.Vocabulary`.
        history_: the `training.History` (not saved).
        n_iter_: updates made by the last `fit`.
        hyperparameters_: the parameters of the constructor, with those values that the recipe chose
            for the last `fit` (not saved).

    Example:
        >>> from ostinato_learn import LanguageModel
        >>> texts = ["the cat sat on the mat. " * 9, "a dog and a cat. " * 9]
        >>> model = LanguageModel(
        ...     level="word", hidden_size=16, iterations=80, truncate=8, learning_rate=0.01
        ... )
        >>> [suggestion.text for suggestion in model.fit(texts).suggest("the cat s", n=1)]
        ['sat']
        >>> model.generate("a dog", n=3, temperature=0).text
        ' and a cat'
    """

    _task = "language"

    level: str = Reading.level
    vocabulary_size: int | Auto | None = AUTO
    embedding_size: int | Auto = AUTO
    tied: bool | Auto = AUTO
    truncate: int | None = DEFAULT_WINDOW
    validation_fraction: float = Fitting.validation_fraction

    def fit(
        self,
        X: Any,
        y: None = None,
        *,
        label: str | None = None,
        validation: Any = None,
        callbacks: Sequence[training.Callback] = (),
        resume: str | Path | None = None,
        **dialect: Any,
    ) -> LanguageModel:
        """Train a new network, or with `warm_start` the fitted one.

        Args:
            X: the documents; or the path of a text, or a table whose rows are documents: a data
                frame, or the path of a file.
            y: ignored; scikit-learn passes it.
            label: of a table, the column of the texts; None: its only one.
            validation: further documents, measured at every report.
            callbacks: called in the course of the training; see `training.Callback`.
            resume: the directory of a checkpoint of the same training, to go on from it.
            dialect: how a CSV file is written: `separator`, `encoding`; see `data.Roles`.

        Returns:
            self

        Raises:
            ValueError, TypeError: a parameter or an argument cannot be used; the message says why.
            training.Diverged: the loss became NaN or infinite.
        """
        seed = self._seed()
        X, start = as_documents(documents_in(X, label, **dialect)), self._start()
        validation = documents_in(validation, label, **dialect)
        fraction = validation_share(self.validation_fraction, validation)
        if fraction:
            X, validation = held_out(X, fraction, seed)
        values = self._hyperparameters(_for_texts(X), start, resume)
        values = self._of_tokens(values, start)
        fitted, history = fit.fit(
            X,
            own(LanguageArchitecture, values),
            own(Reading, values),
            own(training.Plan, values, seed=seed),
            validation=validation,
            start=start,
            callbacks=self._callbacks(callbacks, values),
            resume=resume,
        )
        return self._trained(fitted, history, values)

    def _of_tokens(self, values: dict[str, Any], start: Any) -> dict[str, Any]:
        """The values with those of the tokens: of the recipe, or of the model to start from."""
        if self.recipe == "task":
            chosen = recipe.of_tokens(Reading(values["level"]).level, values["hidden_size"])
        else:
            kinds = declarations(LanguageArchitecture) + declarations(Reading)
            chosen = {each.name: each.default for each in kinds}
        if start is not None:
            chosen |= {n: v for n, v in start.net.config.items() if n in chosen}
        return values | {n: chosen[n] for n in TOKENS if values[n] == AUTO}

    def evaluate(self, X: Any, *, label: str | None = None) -> dict[str, Any]:
        """Measure the model on documents.

        Args:
            X, label: as for `fit`.

        Returns:
            loss (nats per token), bits_per_character, perplexity, n_tokens, vocabulary_size,
            unknown (the share of tokens that are unknown), top1 and top3 (the share that were the
            likeliest, or among the three likeliest).
        """
        found: dict[str, Any] = self._fitted().evaluate(as_documents(documents_in(X, label)))
        return found

    def score(self, X: Any, y: None = None, *, label: str | None = None) -> float:
        """Minus the bits per character of documents: the larger, the better."""
        return -float(self.evaluate(X, label=label)["bits_per_character"])

    def predict(self, X: Any, *, label: str | None = None) -> np.ndarray:
        """The likeliest token after each text, `[N]`; the last word of a text is finished.

        Args:
            X, label: as for `fit`.
        """
        fitted = self._fitted()
        return np.array(fitted.predict(as_documents(documents_in(X, label))), dtype=object)

    def suggest(self, text: str, n: int = 3, *, complete: bool = True) -> list[Suggestion]:
        """The n likeliest continuations of a text as it is typed; an unfinished word is
        completed. See `runtime.LanguageModel.suggest`."""
        return self._fitted().suggest(text, n, complete=complete)

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
        """Continue a prompt by n tokens at most; see `runtime.LanguageModel.generate`."""
        return self._fitted().generate(
            prompt, n, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = tags.input_tags.three_d_array = False
        tags.target_tags.required = False
        return tags

    def _attributes(self, model: TokenModel) -> dict[str, Any]:
        return {"vocabulary_": model.vocabulary}


ESTIMATOR = LanguageModel


def _for_texts(documents: Sequence[str]) -> Callable[[Settings, Settings], Settings]:
    """`recipe.for_texts` for these documents, with the warm-up."""
    characters = sum(map(len, documents))

    def sized(settings: Settings, given: Settings) -> Settings:
        found = recipe.for_texts(characters, settings, given)
        settings = {**settings, **found}
        updates = recipe.updates_on_texts(characters, settings)
        return found | recipe.warm_up(updates, settings, given)

    return sized


def held_out(documents: Sequence[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Documents to learn from, and a share of them to validate with.

    Whole documents are drawn by the seed, so that no document is on both sides. If these would be
    fewer than two, the end of each document is taken instead, from the next blank.

    Raises:
        ValueError: nothing would be left on one side.

    Example:
        >>> held_out(["one two three four five"], 0.2, seed=0)
        (['one two three four'], [' five'])
    """
    n = round(fraction * len(documents))
    if LEAST_HELD_OUT <= n < len(documents):
        drawn = np.random.default_rng(seed).permutation(len(documents))[:n].tolist()
        kept = [text for i, text in enumerate(documents) if i not in set(drawn)]
        return kept, [documents[i] for i in sorted(drawn)]
    cuts = [_cut(text, fraction) for text in documents]
    kept = [text[:cut] for text, cut in zip(documents, cuts, strict=True)]
    ends = [text[cut:] for text, cut in zip(documents, cuts, strict=True)]
    if not any(kept) or not any(ends):
        raise ValueError(
            f"validation_fraction={fraction} leaves nothing on one side of the "
            f"{len(documents)} documents; give more text, or another share"
        )
    return kept, ends


def _cut(text: str, fraction: float) -> int:
    """Where the end of a text begins: at the blank at or before the wanted place, if it has one."""
    wanted = round(len(text) * (1 - fraction))
    blank = max(text.rfind(" ", 0, wanted + 1), text.rfind("\n", 0, wanted + 1))
    return blank if blank > 0 else wanted
