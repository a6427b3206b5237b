"""`TaggingWindows`: long sequences, learnt in windows that hand on their state.

The sequences follow each other as one ring of N steps. B rows begin at places spread evenly over
it, and each batch is the next window of each row: truncated backpropagation through time (Williams
and Peng 1990). The state goes on from window to window, and starts anew where a sequence begins.
After an epoch, in which the rows have read all steps, they begin at other places, which are drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ostinato_learn.data.sequences.mapped import Mapped
from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.data.text.words import CodedWords, Integers
from ostinato_learn.runtime.network import Inputs
from ostinato_learn.tasks.tag.loss import Tagging
from ostinato_learn.tasks.tag.net import TaggerNet
from ostinato_learn.training.distributed import Share
from ostinato_learn.training.task import Carrying


class WindowRows:
    """B rows of windows over sequences end to end.

    Args:
        lengths: `[N]`, the steps of each sequence.
        n_rows, window: B and T, the shape of a batch.
        seed: of the places at which the rows begin.

    Example:
        >>> rows = WindowRows(np.array([3, 5]), n_rows=2, window=2)
        >>> rows.n_windows  # of an epoch: two batches of two windows hold the eight steps
        4
        >>> steps, resets, first = rows.next()
        >>> steps.shape, resets.shape, first
        ((2, 2), (2, 2), True)
    """

    def __init__(self, lengths: np.ndarray, n_rows: int, window: int, seed: int = 0):
        self.n_steps, self.window, self.n_rows, self.seed = int(lengths.sum()), window, n_rows, seed
        self.begins = np.zeros(self.n_steps, bool)
        self.begins[np.cumsum(lengths) - lengths] = True
        self.batches = -(-self.n_steps // (n_rows * window))
        self.n_windows = self.batches * n_rows
        self.done = 0  # batches

    def next(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """The next steps of each row, `[B, T]`; whether a sequence begins there, `[B, T]`; and
        whether these are the first of an epoch."""
        epoch, batch = divmod(self.done, self.batches)
        self.done += 1
        place = np.random.default_rng((self.seed, epoch)).integers(self.n_steps)
        starts = place + np.arange(self.n_rows) * self.n_steps // self.n_rows
        within = batch * self.window + np.arange(self.window)
        steps = (starts[:, None] + within) % self.n_steps
        return steps, self.begins[steps], batch == 0


class TaggingWindows(Carrying, Tagging):
    """`Tagging` of windows of long sequences.

    Args:
        X: sequences of numbers in memory.
        y: the labels of each as classes 0…C−1.
        batch_size, window: the shape of a batch.
        seed: of the places of the windows.
        more: see `Tagging`.

    Raises:
        ValueError: the sequences are words, or on disk.
    """

    def __init__(
        self, X: Inputs, y: Integers, batch_size: int, window: int, seed: int, **more: Any
    ):
        if isinstance(X, (CodedWords, Mapped)):
            kind = "words" if isinstance(X, CodedWords) else "sequences on disk"
            raise ValueError(f"window={window} is for numbers in memory, and X has {kind}")
        super().__init__(X, y, 1, seed, **more)
        values = X.values if isinstance(X, Ragged) else X.reshape(-1, X.shape[2])
        self.steps, self.labels = values, y.take(np.arange(len(y))).values
        self.rows = WindowRows(y.lengths, batch_size, window, seed)
        self.n_examples, self.batch_size = self.rows.n_windows, batch_size

    def loss(self, net: torch.nn.Module) -> Share:
        assert isinstance(net, TaggerNet)
        steps, resets, first = self.rows.next()
        own = self.ranks.rows(self.batch_size)
        x, y = torch.tensor(self.steps[steps[own]]), torch.from_numpy(self.labels[steps[own]])
        marks = torch.from_numpy(resets[own]) if resets.any() else None
        scores, carry = net.read_on(x, None if first else self.carry, marks)
        self.keep(carry)
        right = (scores.detach().argmax(2) == y).double().mean().item()
        n = y.numel()
        return Share(net.losses(scores, y).sum() / n, n, {"train_accuracy": right}, n)

    def state_dict(self) -> dict[str, Any]:
        return {"n_windows": self.rows.n_windows, "batches": self.rows.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.get("n_windows") != self.rows.n_windows:
            raise ValueError(
                f"the state has n_windows = {state.get('n_windows')}, and these data have "
                f"{self.rows.n_windows}; a run is resumed only with unchanged data and windows"
            )
        self.rows.done = state["batches"]
