"""`StoredForecasting`: the task of `Forecasting` for series in a file.

    survey    how many windows each series has, and what inputs are standardised by
    block     series that are in memory together, with their windows
    place     of a window in the order of an epoch, 0…n−1

An epoch is every window once, in an order that is a function of the seed and the epoch: the series
are shuffled and cut into blocks, and the windows of each block are shuffled. Batches go on from one
block, and one epoch, into the next. Memory holds two blocks, the ends of the series for validation,
and a few numbers for each series.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ostinato.data.sequences.moments import Moments
from ostinato.data.series.panel import Panel
from ostinato.data.stored.panel import StoredPanel, in_blocks
from ostinato.training.distributed import Share
from ostinato.training.forecasting import validated_on, window_losses
from ostinato.training.task import Mean, Task, digest
from ostinato.training.windows import Columns, ForecastSettings, Pairs, Windows, every_window

# The two independent streams of orders that come from one seed: of series, and of their windows.
_SERIES, _WINDOWS = 0, 1


@dataclass(frozen=True, eq=False)
class Survey:
    """What is found out in passes over series in a file.

    Attributes:
        windows: how windows are cut, with inputs standardised by what is learnt from.
        counts: the windows to learn from of each series, `[N]`.
        ends: the last steps of all series, which validation reads.
    """

    windows: Windows
    counts: np.ndarray
    ends: Panel


def survey(panel: StoredPanel, settings: ForecastSettings, held_back: np.ndarray) -> Survey:
    """Look at all series, once; and where there are inputs over time, once more.

    Args:
        panel: the series.
        settings: what is forecast.
        held_back: how many steps of each series are kept from training, `[N]`.
    """
    context, horizon = settings.n_context, settings.horizon
    counts = np.zeros(len(panel), np.int64)
    ends: list[Panel] = []
    moments: dict[str, list[Moments]] = {"past": [], "future": []}
    for chosen, part in panel.parts():
        series, _ = every_window(part, context, horizon, held_back[chosen])
        counts[chosen] = np.bincount(series, minlength=len(chosen))
        ends.append(part.last(context + settings.validation_windows * horizon))
        for name, values in _learnt_from(part, held_back[chosen]).items():
            moments[name] = moments[name] or [Moments() for _ in range(values.shape[1])]
            for each, column in zip(moments[name], values.T, strict=True):
                each.add(column)
    for chosen, part in panel.parts() if any(moments.values()) else ():
        for name, values in _learnt_from(part, held_back[chosen]).items():
            for each, column in zip(moments[name], values.T, strict=True):
                each.add_deviations(column)
    joined = Panel.joined(ends)
    windows = Windows(
        context,
        horizon,
        settings.scaling,
        settings.season,
        past=Columns.of_moments(moments["past"]),
        future=Columns.of_moments(moments["future"]),
        static=Columns.of(joined.static),
    )
    return Survey(windows, counts, joined)


def _learnt_from(panel: Panel, held_back: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs over time that are learnt from, `[n, P]` and `[n, K]`."""
    kept = panel.lengths - held_back
    return {
        "past": panel.past[first_rows(panel.offsets, kept)],
        "future": panel.future[first_rows(panel.future_offsets, kept)],
    }


def first_rows(offsets: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Which rows are among the first `kept` `[N]` of their series."""
    lengths = np.diff(offsets)
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) < np.repeat(kept, lengths)


class StoredForecasting(Task):
    """The pinball loss of a `models.ForecasterNet` on windows of series in a file.

    Args:
        panel: the series.
        found: what is known of them.
        held_back: how many steps of each series are kept from training, `[N]`.
        levels: of the network's quantiles.
        batch_size, seed: of the batches.
        validation: series and cutoffs, in the ends of the series, of the windows to validate on.
    """

    def __init__(
        self,
        panel: StoredPanel,
        found: Survey,
        held_back: np.ndarray,
        levels: tuple[float, ...],
        batch_size: int,
        seed: int,
        validation: Pairs | None = None,
    ):
        self.panel, self.held_back = panel, held_back
        self.windows, self.counts, self.ends = found.windows, found.counts, found.ends
        self.levels = torch.tensor(levels, dtype=torch.float32)
        self.batch_size, self.seed = batch_size, seed
        self.n_examples = int(found.counts.sum())
        self.validation = validation
        self.has_validation = validation is not None
        self.position = 0  # windows that batches have had, in all epochs
        self._order = lru_cache(maxsize=2)(self._new_order)
        self._block = lru_cache(maxsize=2)(self._read_block)

    def loss(self, net: torch.nn.Module) -> Share:
        rows = self.ranks.rows(self.batch_size)
        start, self.position = self.position, self.position + self.batch_size
        total: Tensor | float = 0.0
        count = 0
        for panel, pairs in self.drawn(start + rows.start, start + rows.stop):
            losses, n = window_losses(net, self.windows, self.levels, panel, pairs)
            total, count = total + losses, count + n
        assert isinstance(total, Tensor)  # no process has fewer than one row
        return Share(total / max(1, count), count, {}, count)

    def drawn(self, start: int, stop: int) -> Iterator[tuple[Panel, Pairs]]:
        """The windows that batches have at positions start…stop−1, with the panels of their series.

        Positions go on from epoch to epoch.
        """
        while start < stop:
            epoch, place = divmod(start, self.n_examples)
            _, firsts = self._order(epoch)
            block = int(np.searchsorted(firsts, place, side="right")) - 1
            n = min(stop - start, int(firsts[block + 1]) - place)
            panel, (series, cutoffs) = self._block(epoch, block)
            own = slice(place - int(firsts[block]), place - int(firsts[block]) + n)
            yield panel, (series[own], cutoffs[own])
            start += n

    def fingerprint(self) -> str:
        return digest(self.windows, self.counts, self.ends.target, self.levels)

    def validate(self, net: torch.nn.Module) -> dict[str, Mean]:
        assert self.validation is not None
        return validated_on(net, self.windows, self.levels, self.ends, self.validation, self.ranks)

    def state_dict(self) -> dict[str, Any]:
        return {
            "n_examples": self.n_examples,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "position": self.position,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        own = self.state_dict()
        for name in ("n_examples", "batch_size", "seed"):
            if state.keys() != own.keys() or state[name] != own[name]:
                raise ValueError(
                    f"the checkpoint is of batches {state}, and those of this training are {own}; "
                    "a run goes on only with the data, and the batches, that it began with"
                )
        self.position = state["position"]

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        assert not tensors

    def _new_order(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """The series of each block of an epoch, and the place of the first window of each."""
        order = self._generator(_SERIES, epoch).permutation(len(self.panel))
        blocks = in_blocks(order, self.panel.sizes)
        counts = [int(self.counts[block].sum()) for block in blocks]
        return blocks, np.concatenate([[0], np.cumsum(counts)])

    def _read_block(self, epoch: int, block: int) -> tuple[Panel, Pairs]:
        """The series of a block, and its windows in their order."""
        chosen = np.sort(self._order(epoch)[0][block])  # the file is read in its order
        panel = self.panel.read(chosen)
        context, horizon = self.windows.context, self.windows.horizon
        series, cutoffs = every_window(panel, context, horizon, self.held_back[chosen])
        order = self._generator(_WINDOWS, epoch, block).permutation(len(series))
        return panel, (series[order], cutoffs[order])

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
