"""`ModuleNetwork`: a PyTorch module that gives a model its outputs.

Its graph is what answers, played by the engine: an estimator that was fitted and the model that it
saves give the same bits. The module itself answers only if it cannot be recorded, or where nothing
plays a graph.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ostinato.internal import Unsupported, native
from ostinato_learn import tasks
from ostinato_learn.models.inputs import tensors
from ostinato_learn.models.saved_graph import Described, describe
from ostinato_learn.runtime.model_graph import ModelGraph
from ostinato_learn.runtime.network import Inputs, Network

Array = np.ndarray[Any, np.dtype[Any]]


class ModuleNetwork:
    """A module, and its graph as long as the weights are those that it was made of.

    Args:
        module: the network of a task.
        several: whether each class of a classifier has its own probability.
        played: the graph of the module as it is now, if it is known.

    Attributes:
        module, several: as given.
    """

    def __init__(
        self, module: torch.nn.Module, *, several: bool = False, played: Network | None = None
    ):
        self.module, self.several = module, several
        self._lock = threading.Lock()
        self._played = played
        self._found: Described | None = None
        self._refusal: Unsupported | None = None
        self._weights = None if played is None else _state(module)

    def __getstate__(self) -> dict[str, Any]:
        return {"module": self.module, "several": self.several}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a copy has recorded nothing

    def described(self) -> Described:
        """The graph of the module as it is now.

        Raises:
            Unsupported: it has none.
        """
        self._refresh()
        if self._refusal is not None:
            raise self._refusal
        if self._found is None:
            self._found = describe(self.module, several=self.several)
        return self._found

    def _refresh(self) -> None:
        """Describe the module again if its weights have changed."""
        with self._lock:
            now = _state(self.module)
            if now == self._weights:
                return
            self._weights, self._played = now, None
            self._found, self._refusal = None, None
            try:
                self._found = describe(self.module, several=self.several)
            except Unsupported as refusal:
                self._refusal = refusal
                return
            if native.unavailable() is None:
                self._played = Network(self._found.graph, arrays(self.module, self._found))

    @property
    def played(self) -> Network | None:
        """The graph in the engine; None if there is none, or nothing plays it here."""
        self._refresh()
        return self._played

    @property
    def graph(self) -> ModelGraph:
        """The module as a value.

        Raises:
            ValueError: it cannot be recorded.
        """
        played = self.played
        if played is not None:
            return played.graph
        try:
            return self.described().graph
        except Unsupported as refusal:
            raise ValueError(f"this network has no graph: {refusal.reason}") from None

    @property
    def tensors(self) -> Mapping[str, Array]:
        """The weights by name, and what the graph was computed of them."""
        played = self.played
        return arrays(self.module) if played is None else played.tensors

    @property
    def config(self) -> dict[str, Any]:
        """The arguments of the module."""
        config: dict[str, Any] = self.module.config  # type: ignore[assignment]
        return config

    @property
    def n_inputs(self) -> int:
        """Numbers that a step reads."""
        return int(self.config.get("n_features") or self.config.get("embedding_size") or 1)

    @property
    def reads_words(self) -> bool:
        """Whether a step is a word or a token."""
        return "n_tokens" in self.config or self.config.get("n_words") is not None

    @property
    def widest(self) -> int:
        """Numbers of one step, of the inputs or of a layer's outputs."""
        played = self.played
        return (
            max(self.n_inputs, 2 * self.config["hidden_size"]) if played is None else played.widest
        )

    @property
    def _head(self) -> Callable[[Tensor], Tensor]:
        """From what the module gives to outputs, as the graph has it."""
        found: Any = tasks.named(self.module.task).module("graph")
        head: Callable[[Tensor], Tensor] = found.head(self.module, self.several)
        return head

    def rows(self, sequences: Inputs, chosen: Array | slice) -> Array:
        """The outputs for some sequences; see `Network.rows`."""
        played = self.played
        if played is not None:
            return played.rows(sequences, chosen)
        with _answering(self.module):
            x, lengths = tensors(sequences, np.arange(len(sequences))[chosen])
            return self._head(self.module(x, lengths)).numpy()

    def forecasts(self, x: Array, known: Array) -> Array:
        """The outputs for the steps ahead; see `Network.forecasts`."""
        played = self.played
        if played is not None:
            return played.forecasts(x, known)
        n = self.config["n_future"]
        parts = [
            torch.tensor(part) if part.shape[2] else None
            for part in (known[:, :, :n], known[:, :, n:])
        ]
        with _answering(self.module):
            found: Array = self.module(torch.tensor(x), *parts).numpy()
            return found

    def read(self, tokens: Array, carry: Any, each: bool) -> tuple[Array, Any]:
        """The outputs after tokens; see `Network.read`. The states are the module's."""
        played = self.played
        if played is not None:
            return played.read(tokens, carry, each)
        module: Any = self.module
        with _answering(module):
            carry = None if carry is None else first_rows(carry, len(tokens))
            features, carry = module(torch.from_numpy(tokens.astype(np.int64)), carry)
            logits = module.logits(features if each else features[:, -1:])
            return self._head(logits).numpy(), carry

    def vectors(self, tokens: Array) -> Array:
        """Rows of tokens, `[U, E]`; see `Network.vectors`."""
        return self._graph_network.vectors(tokens)

    def batch(self, sequences: Inputs, chosen: Array | slice) -> tuple[Array, Array | None]:
        """Some sequences as the layers read them; see `Network.batch`."""
        return self._graph_network.batch(sequences, chosen)

    def answers(self, x: Array, lengths: Array | None = None) -> Array:
        """The outputs of vectors; see `Network.answers`."""
        return self._graph_network.answers(x, lengths)

    @property
    def _graph_network(self) -> Network:
        found = self.played
        return Network(self.graph, self.tensors) if found is None else found


class _answering:  # noqa: N801  a context
    """A module in evaluation mode without gradients; afterwards in the mode that it was in."""

    def __init__(self, module: torch.nn.Module):
        self.module, self.no_grad = module, torch.no_grad()

    def __enter__(self) -> None:
        self.was_training = self.module.training
        self.module.eval()
        self.no_grad.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.no_grad.__exit__(*error)
        self.module.train(self.was_training)


def arrays(module: torch.nn.Module, described: Described | None = None) -> dict[str, Array]:
    """The weights of a module by name, and the tensors that a graph of it reads beside them."""
    more = {} if described is None else described.folded
    named = {**module.state_dict(), **more}
    return {name: tensor.detach().cpu().numpy() for name, tensor in named.items()}


def first_rows(carry: Any, n: int) -> Any:
    """The first n rows of a carry, `[layers, B, H]` or a tuple of such."""
    if isinstance(carry, tuple):
        return tuple(first_rows(leaf, n) for leaf in carry)
    return carry[:, :n].contiguous()


def _state(module: torch.nn.Module) -> tuple[Any, ...]:
    """Which weights a module has: it changes with every update, and wherever they are put."""
    return tuple(
        [
            (name, t.data_ptr(), t.dtype, -1 if t.is_inference() else t._version)
            for name, t in module.state_dict().items()
        ]
    )
