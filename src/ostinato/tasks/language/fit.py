"""`FittedLanguageModel`: a trained network with its vocabulary. No scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ostinato.data.text.copies import Copies
from ostinato.data.text.corpus import Corpus
from ostinato.data.text.growing_text import GrowingText
from ostinato.data.text.keyboard import Keyboard, Suggestion
from ostinato.data.text.vocabulary import Vocabulary
from ostinato.data.text.writing import Generated, Sampling, written
from ostinato.hyperparameters import DEFAULT_WINDOW, Declared, declare
from ostinato.tasks.language.loss import Language, LanguageEvaluation, measure
from ostinato.tasks.language.net import Carry, LanguageArchitecture, LanguageNet
from ostinato.training import loop, saved_model
from ostinato.training.build import built
from ostinato.training.callbacks import Callback
from ostinato.training.history import History
from ostinato.training.plan import Plan
from ostinato.training.saved_model import SavedModel
from ostinato.training.start import check_network
from ostinato.training.tensor_file import fill

KIND = "language_model"
COPIES = "copies"  # among the saved tensors, beside the weights


class TypingSession:
    """Reads only the new tokens of a text; see `GrowingText`.

    Args:
        net: the network, in evaluation mode; its weights must not change.
    """

    def __init__(self, net: LanguageNet):
        self._net = net
        self._text: GrowingText[Tensor] = GrowingText(self.read)

    def logits(self, tokens: np.ndarray) -> Tensor:
        """The logits `[V]` of the token that follows tokens `[N]`, the beginning of a document."""
        return self._text.answer(tokens)

    @torch.no_grad()
    def read(self, tokens: np.ndarray, carry: Carry) -> tuple[Tensor, Carry]:
        """The logits `[V]` after further tokens `[N]`, and the state there; see `GrowingText`."""
        features, carry = self._net(torch.from_numpy(tokens.astype(np.int64))[None], carry)
        return self._net.logits(features[0, -1]), carry


@dataclass(frozen=True)
class Reading(Declared):
    """How documents become batches."""

    level: Literal["character", "word", "piece"] = declare("character", "What a token is.")
    vocabulary_size: int | None = declare(
        None,
        "V at most, the most frequent tokens; None keeps all characters, the words that occur "
        "twice, or 8192 pieces.",
        low=3,
    )


@dataclass(frozen=True)
class FittedLanguageModel:
    """A trained network with its vocabulary.

    Attributes:
        net: the network.
        vocabulary: its tokens.
        copies: the 20-grams of the training documents, as hashes.
    """

    net: LanguageNet
    vocabulary: Vocabulary
    copies: Copies
    _typing: TypingSession = field(init=False, repr=False, compare=False)
    _keyboard: Keyboard = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_typing", TypingSession(self.net))
        object.__setattr__(self, "_keyboard", Keyboard(self.vocabulary))

    @staticmethod
    @torch.inference_mode(False)  # the caller's mode would make tensors without gradients
    def fit(
        documents: Sequence[str],
        architecture: LanguageArchitecture,
        reading: Reading,
        plan: Plan,
        *,
        validation: Sequence[str] | None = None,
        start: FittedLanguageModel | None = None,
        callbacks: Sequence[Callback] = (),
        resume: str | Path | None = None,
    ) -> tuple[FittedLanguageModel, History]:
        """Train a network to predict the next token of documents.

        Args:
            documents: the texts; their order is drawn with the plan's seed.
            architecture, reading, plan: the network, and how to read and train. `plan.batch_size`
                is the number of streams, at most that of chunks of `plan.truncate` tokens, by
                default 128.
            validation: further documents, measured at every report.
            start: a model of the same vocabulary and sizes, whose weights are the start.
            callbacks, resume: see `training.train`.

        Raises:
            ValueError: something does not fit together.
            Diverged: the loss became NaN or infinite.
        """
        documents = as_documents(documents)
        if validation is not None:
            validation = as_documents(validation, "validation")
        if start is None:
            vocabulary = Vocabulary.fit(documents, reading.level, reading.vocabulary_size)
        else:
            vocabulary = start.vocabulary
        order = np.random.default_rng(plan.seed).permutation(len(documents))
        corpus = Corpus.of([documents[i] for i in order], vocabulary)
        window = plan.truncate or DEFAULT_WINDOW
        n_streams = max(1, min(plan.batch_size, len(corpus) // window))
        plan = replace(plan, batch_size=n_streams, truncate=None)  # no gradient leaves a window
        net = built(LanguageNet, len(vocabulary), seed=plan.seed, **_net_arguments(architecture))
        if start is not None:
            check_network(
                {**start.net.config, "level": start.vocabulary.level},
                {**net.config, "level": reading.level},
            )
            net.load_state_dict(start.net.state_dict())
        task = Language(corpus, vocabulary, n_streams, window, validation)
        history = loop.learn(net, task, plan, callbacks=callbacks, resume=resume)
        copies = Copies.of(corpus)
        if start is not None:
            copies = copies.joined(start.copies)
        return FittedLanguageModel(net, vocabulary, copies), history

    def save(self, path: Path, params: dict[str, Any], iterations: int) -> None:
        """Write the directory of a saved model: all or nothing.

        Args:
            path: the directory.
            params: the arguments of the constructor of `LanguageModel`.
            iterations: updates made.

        Raises:
            ValueError, OSError: see `saved_model.write`.
        """
        hashes = torch.from_numpy(self.copies.hashes.view(np.int64))
        model = SavedModel.of(
            self.net,
            kind=KIND,
            params=params,
            weights={**self.net.state_dict(), COPIES: hashes},
            fitted={"vocabulary": self.vocabulary.as_json(), "one_in": self.copies.one_in},
            iterations=iterations,
        )
        saved_model.write(path, model)

    @staticmethod
    def of(saved: SavedModel, path: Path) -> FittedLanguageModel:
        """The language model of a saved model; `path` is its origin, for errors.

        Raises:
            ValueError: the configuration, the vocabulary and the weights do not belong together.
        """
        net = built(LanguageNet, **saved.net)
        where = f"{path / saved_model.CONFIG}: 'vocabulary'"
        vocabulary = Vocabulary.from_json(saved.fitted["vocabulary"], where)
        if net.config["n_tokens"] != len(vocabulary):
            raise ValueError(
                f"{path} has {len(vocabulary)} tokens for a network of "
                f"{net.config['n_tokens']}; it is damaged"
            )
        weights = dict(saved.weights)
        hashes = weights.pop(COPIES, torch.empty(0, dtype=torch.int64))
        fill(net, weights, str(path))
        copies = Copies(hashes.clone().numpy().view(np.uint64), saved.fitted["one_in"])
        return FittedLanguageModel(net.eval(), vocabulary, copies)

    def evaluate(self, documents: Sequence[str]) -> LanguageEvaluation:
        """Measure how well the model predicts documents.

        Raises:
            ValueError: they are not texts, or have no character.
        """
        return measure(self.net, self.vocabulary, as_documents(documents))

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
        """
        whole, beginning = self.vocabulary.typed(text) if complete else (text, "")
        logits = self._typing.logits(self.vocabulary.encode(whole)).numpy()
        found = self._keyboard.likeliest(logits, beginning, n)
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

        Raises:
            ValueError: n or top_k is below 1, temperature not in [0, ∞), top_p not in (0, 1], or
                seed below 0.
        """
        how = Sampling(temperature, top_k, top_p, seed)
        return written(self._read, self.vocabulary, self.copies, prompt, n, how)

    def _read(self, tokens: np.ndarray, carry: Carry) -> tuple[np.ndarray, Carry]:
        logits, carry = self._typing.read(tokens, carry)
        return logits.numpy(), carry


def load(path: str | Path) -> FittedLanguageModel:
    """The language model in the directory of a saved model.

    Raises:
        ValueError: a file is missing, damaged, altered or foreign.
    """
    return FittedLanguageModel.of(read(Path(path)), Path(path))


def read(path: Path) -> SavedModel:
    """The saved language model in a directory, as values."""
    net = set(signature(LanguageNet).parameters)
    return saved_model.read(path, KIND, net, {"vocabulary", "one_in"})


def as_documents(documents: Any, name: str = "X") -> list[str]:
    """Documents as a list of texts; `name` is for errors.

    Raises:
        TypeError, ValueError: they are a single text or a table, hold other things, or are empty.
    """
    if isinstance(documents, Mapping):
        raise TypeError(f"{name} is a mapping; wanted a list of its texts: list({name}.values())")
    single = isinstance(documents, str | bytes) or not hasattr(documents, "__len__")
    if single or getattr(documents, "ndim", 1) != 1:
        raise TypeError(f"{name} is {type(documents).__name__}; wanted a list of texts, [text, …]")
    texts = list(documents)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{i}] is {type(text).__name__}; wanted a text (str)")
    if not any(texts):
        raise ValueError(f"{name} has {len(texts)} documents without a character; wanted texts")
    return texts


def _net_arguments(architecture: LanguageArchitecture) -> dict[str, Any]:
    known = signature(LanguageNet).parameters
    return {name: value for name, value in asdict(architecture).items() if name in known}
