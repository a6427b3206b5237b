"""From documents to a trained `LanguageModel`. No scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ostinato_learn.data.text.corpus import Corpus
from ostinato_learn.data.text.vocabulary import Vocabulary
from ostinato_learn.hyperparameters import DEFAULT_WINDOW, Declared, declare
from ostinato_learn.models.build import built
from ostinato_learn.models.module_network import ModuleNetwork
from ostinato_learn.tasks.language.loss import Language
from ostinato_learn.tasks.language.model import LanguageModel
from ostinato_learn.tasks.language.net import LanguageArchitecture, LanguageNet
from ostinato_learn.training import loop
from ostinato_learn.training.callbacks import Callback
from ostinato_learn.training.history import History
from ostinato_learn.training.plan import Plan
from ostinato_learn.training.start import check_network

NETWORK = LanguageNet
ARGUMENTS = set(signature(LanguageNet).parameters)


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


@torch.inference_mode(False)  # the caller's mode would make tensors without gradients
def fit(
    documents: Sequence[str],
    architecture: LanguageArchitecture,
    reading: Reading,
    plan: Plan,
    *,
    validation: Sequence[str] | None = None,
    start: LanguageModel | None = None,
    callbacks: Sequence[Callback] = (),
    resume: str | Path | None = None,
) -> tuple[LanguageModel, History]:
    """Train a network to predict the next token of documents; see `tasks/fitting.py`.

    Args:
        documents: the texts; their order is drawn with the plan's seed.
        architecture, reading, plan: the network, and how to read and train. `plan.batch_size`
            is the number of streams, at most that of chunks of `plan.truncate` tokens, by
            default 128.
        validation: further documents, measured at every report.
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
    return LanguageModel(network=ModuleNetwork(net), vocabulary=vocabulary), history


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
    return {n: value for n, value in asdict(architecture).items() if n in ARGUMENTS}
