"""A training in several processes, each of which learns from its rows of every batch.

    rank    the number of a process, from 0; the first one alone writes and reports
    size    the number of processes, on one machine or several; `torchrun` starts them
    share   the rows of a batch that one process takes

Every process has the whole network and all examples. The order of the examples is a function of the
seed and the position alone: all processes know the next batch without sending it. With g_r the
gradient of rank r's mean loss over its rows, whose weights add up to w_r, the batch has

    loss = Σ w_r loss_r / Σ w_r,      g = Σ w_r g_r / Σ w_r

PyTorch's DistributedDataParallel gives the mean of the g_r, which differs from g if rows are ragged
or weighted; to correct it, the sum of the w_r would have to be known before the backward pass. Here
w_r g_r, w_r loss_r, w_r and all other sums travel in one call of `all_reduce` after it. With a
network of a few megabytes there is nothing to overlap, and one call has one latency.

All processes make the same calls in the same order, since each decision to report, to stop or to
write follows from numbers that they share. A process that ends closes its connections, and the
others raise `PeerLost` at their next call.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ostinato_learn import environment
from ostinato_learn.interrupt import Interrupt, Terminated, sigterm_noted

if environment.launched():
    # PyTorch's first optimizer imports this module, and the module's default arguments keep the
    # process group of that moment beyond destroy_process_group. Its threads would then run while
    # the interpreter ends, and a thread that frees a tensor then aborts the process. Imported here,
    # before a program makes its group, the module keeps no group.
    import torch.distributed.nn.functional

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
WAIT = timedelta(seconds=3)  # between two looks at whether a signal came
PATIENCE_S = 15  # half of what torchrun gives a process to end, before it kills it
_given_up: list[Any] = []  # calls between processes that gloo did not answer

_log = logging.getLogger(__name__)


class PeerLost(RuntimeError):  # noqa: N818  it says what happened
    """Another process of the training has ended, or cannot be reached any more."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of a training.

    Attributes:
        rank: the number of the process.
        size: the number of processes; with one, methods that exchange something do nothing.

    Example:
        >>> [Ranks(rank, 3).rows(8) for rank in range(3)]
        [slice(0, 2, None), slice(2, 5, None), slice(5, 8, None)]
    """

    rank: int = 0
    size: int = 1

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def rows(self, n: int) -> slice:
        """The rows of this process, out of n; shares differ by one row at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def check_batch(self, n: int) -> None:
        """Refuse batches of fewer rows than there are processes.

        Raises:
            ValueError: some process would have no row.
        """
        if self.size > n:
            raise ValueError(
                f"{self.size} processes for batches of {n}; wanted at most one process for each "
                "row: start fewer, or raise batch_size"
            )

    def check_same(self, **values: Any) -> None:
        """Compare values with those of the first process.

        Args:
            values: JSON values by name.

        Raises:
            ValueError: a value of this process differs.
        """
        if self.alone:
            return
        own = json.loads(json.dumps(values))
        for name, wanted in self.from_first(lambda: own).items():
            if own[name] != wanted:
                ours, theirs = map(json.dumps, _differing(own[name], wanted))
                raise ValueError(
                    f"{name}: process {self.rank} has {ours}, and process 0 has {theirs}; wanted "
                    "the same in all processes of a training"
                )

    def from_first(self, make: Callable[[], T]) -> T:
        """The result of `make` in the first process, for all; it is called there alone.

        Args:
            make: returns JSON values; floats arrive exactly.
        """
        if self.alone:
            return make()
        text = self.bytes_from_first(lambda: json.dumps(make()).encode())
        return json.loads(text)

    def bytes_from_first(self, make: Callable[[], bytes]) -> bytes:
        """As `from_first`, for bytes."""
        return make() if self.alone else _told(make() if self.first else b"", 0)

    def from_first_here(self, make: Callable[[], T]) -> T:
        """As `from_first`, but from the first process of this machine, which makes a JSON value.

        Every process of the training must call it, on all machines.
        """
        if self.alone:
            return make()
        own = b"" if environment.rank_here() else json.dumps(make()).encode()
        everything = [_told(own, rank) for rank in range(self.size)]
        first = self.rank - environment.rank_here()  # torchrun numbers machine after machine
        return json.loads(everything[first])

    def weights_from_first(self, net: torch.nn.Module) -> None:
        """Give a network, in place, the weights that it has in the first process."""
        if not self.alone:
            for weights in net.state_dict().values():
                _exchange(partial(dist.broadcast, weights, 0, async_op=True))

    def gathered(self, own: Tensor, n: int, dim: int) -> Tensor:
        """The rows of all processes, in their order.

        Args:
            own: the rows of this process along `dim`, given by `rows(n)`.
            n: the number of rows of all.
            dim: the axis of the rows.
        """
        if self.alone:
            return own
        rows, shape = self.rows(n), list(own.shape)
        shape[dim] = n
        everything = own.new_zeros(shape)
        everything.narrow(dim, rows.start, rows.stop - rows.start).copy_(own)
        _exchange(lambda: dist.all_reduce(everything, async_op=True))  # x + 0 is x
        return everything

    def at_first(self, own: Tensor) -> list[Tensor] | None:
        """The tensors of all processes, in their order, in the first one; None in the others.

        Args:
            own: `[n, …]`, where n alone may differ between the processes.
        """
        if self.alone:
            return [own]
        sizes = torch.zeros(self.size, dtype=torch.int64)
        sizes[self.rank] = len(own)
        _exchange(lambda: dist.all_reduce(sizes, async_op=True))
        padded = own.new_zeros((int(sizes.max()), *own.shape[1:]))  # gather wants one size
        padded[: len(own)] = own
        gathered = [torch.empty_like(padded) for _ in range(self.size)] if self.first else None
        _exchange(lambda: dist.gather(padded, gathered, async_op=True))
        return gathered and [each[:n] for each, n in zip(gathered, sizes.tolist(), strict=True)]

    def means(self, own: dict[str, tuple[float, float]]) -> dict[str, float]:
        """The means over all processes.

        Args:
            own: for each measure the mean in this process and its weight, 0 if the process has no
                data; all processes have the same measures.
        """
        if self.alone:
            return {name: mean for name, (mean, _) in own.items()}
        sums = torch.tensor([(m * w, w) for m, w in own.values()], dtype=torch.float64)
        _exchange(lambda: dist.all_reduce(sums, async_op=True))
        return dict(zip(own, (sums[:, 0] / sums[:, 1]).tolist(), strict=True))

    def seed(self, seed: int, iteration: int) -> None:
        """Seed dropout, which must differ between rows, by this process and iteration.

        The numbers depend on nothing else, so that a resumed training draws the same. A training in
        one process goes on with its own generator instead.
        """
        if not self.alone:
            numbers = np.random.SeedSequence(seed, spawn_key=(iteration, self.rank))
            torch.default_generator.manual_seed(int(numbers.generate_state(1, np.uint64)[0]))


ALONE = Ranks()


def current() -> Ranks:
    """This process in PyTorch's process group, if there is one; else alone.

    Raises:
        ValueError: the group is for tensors on GPUs only.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    if dist.get_backend() == "nccl":
        raise ValueError(
            "the process group is on nccl, which has no tensors of the CPU; wanted "
            'torch.distributed.init_process_group("gloo")'
        )
    return Ranks(dist.get_rank(), dist.get_world_size())


@contextmanager
def joined() -> Iterator[Ranks]:
    """Within this context the processes that `torchrun` started are a group, on gloo.

    A process that was started otherwise is alone. A group that exists already is used.
    """
    if not environment.launched() or dist.is_initialized():
        yield current()
        return
    with _sigterm_ends():
        dist.init_process_group("gloo")
    try:
        yield current()
    finally:
        if not _given_up:
            dist.destroy_process_group()


def set_threads(asked: int | None = None) -> int:
    """Give this process its share of the cores that the processes of this machine may use.

    `torchrun` sets OMP_NUM_THREADS=1 for several processes, whatever the machine has.

    Args:
        asked: a smaller number of threads.

    Returns:
        The number of threads.
    """
    cores, here = environment.cores(), environment.processes_here()
    share = max(1, cores // here)
    threads = min(asked or share, share)
    torch.set_num_threads(threads)
    by_torchrun = os.environ.pop("OMP_NUM_THREADS", None)  # from now on the number is chosen
    if environment.rank() == 0:
        instead = "" if by_torchrun is None else f" (OMP_NUM_THREADS was {by_torchrun})"
        _log.warning(
            "%d process%s on this machine: %d of its %d cores for each%s",
            here,
            "es" if here > 1 else "",
            threads,
            cores,
            instead,
        )
    return threads


def set_threads_unless_chosen() -> None:
    """`set_threads`, unless the user has set a number of threads."""
    unchosen = torch.get_num_threads() == 1 and os.environ.get("OMP_NUM_THREADS") == "1"
    if unchosen and environment.launched():
        set_threads()


@dataclass(frozen=True)
class Share:
    """The results of one process for its rows of a batch.

    Attributes:
        loss: the weighted mean of their losses, a scalar.
        weight: the sum of their weights, by which the loss was divided.
        measured: further means, such as {"train_accuracy": 0.5}.
        count: the number of rows, or steps, of these means.
    """

    loss: Tensor
    weight: float
    measured: dict[str, float]
    count: float


def backward(
    ranks: Ranks, net: torch.nn.Module, share: Share, interrupt: Interrupt
) -> tuple[float, dict[str, float]]:
    """The gradient of a batch, in `p.grad` of every parameter p, from the shares of all processes.

    Interrupts are exchanged with it: all processes receive one in the same iteration.

    Args:
        ranks: the processes.
        net: the network; its gradients are None before.
        share: the result of this process's forward pass.
        interrupt: that of this process.

    Returns:
        The mean loss of the batch, and its further means.
    """
    share.loss.backward()
    if ranks.alone:
        return share.loss.item(), share.measured
    parameters = [p for p in net.parameters() if p.requires_grad]
    gradients = [p.grad for p in parameters]
    numbers = [
        share.weight,
        share.weight * share.loss.item(),
        share.count,
        *(share.count * mean for mean in share.measured.values()),
        *(number in interrupt.noted for number in SIGNALS),
        *(gradient is not None for gradient in gradients),
    ]
    parts = [
        (torch.zeros_like(p) if g is None else g * share.weight).flatten()
        for p, g in zip(parameters, gradients, strict=True)
    ]
    # float32 as the gradients are: counts up to 2²⁴ are exact.
    flat = torch.cat([torch.tensor(numbers, dtype=parameters[0].dtype), *parts])
    _exchange(lambda: dist.all_reduce(flat, async_op=True))
    weight, loss, count, *rest = flat[: len(numbers)].tolist()
    n = len(share.measured)
    signals, there = rest[n : n + len(SIGNALS)], rest[n + len(SIGNALS) :]
    interrupt.agree([number for number, times in zip(SIGNALS, signals, strict=True) if times])
    weight = max(weight, torch.finfo(flat.dtype).tiny)  # all rows of a batch may weigh zero
    flat /= weight
    start = len(numbers)
    for p, processes in zip(parameters, there, strict=True):
        gradient = flat[start : start + p.numel()].view_as(p)
        p.grad = gradient.to(p.dtype) if processes else None
        start += p.numel()
    means = {name: total / count for name, total in zip(share.measured, rest[:n], strict=True)}
    return loss / weight, means


def _told(content: bytes, rank: int) -> bytes:
    """The content that the process `rank` has; all processes call this."""
    length = torch.tensor(len(content))
    _exchange(lambda: dist.broadcast(length, rank, async_op=True))
    received = bytearray(content if rank == dist.get_rank() else int(length))
    if received:
        buffer = torch.frombuffer(received, dtype=torch.uint8)
        _exchange(lambda: dist.broadcast(buffer, rank, async_op=True))
    return bytes(received)


def _exchange(call: Callable[[], Any]) -> None:
    """Wait for a call between processes. Its errors say that another process has ended.

    Gloo may miss that the other process has ended, and then waits for ever. `torchrun` sends
    SIGTERM when a process has ended; a call without an answer `PATIENCE_S` later is given up.
    """
    work = None
    try:
        work, asked_to_end_at = call(), None
        while not _finished(work):
            if asked_to_end_at is None and sigterm_noted():
                asked_to_end_at = time.monotonic()
            if asked_to_end_at is not None and time.monotonic() > asked_to_end_at + PATIENCE_S:
                _give_up(work)
                raise RuntimeError("SIGTERM came, and no answer after it")
    except RuntimeError as error:
        # Gloo: "[…/pair.cc:537] Read error [127.0.0.1]:10640: Connection reset by peer. This is …"
        reason = re.sub(r"^\[[^]]*\] ", "", str(error).strip()).split(". ")[0]
        raise PeerLost(
            f"another process of this training has ended, and process {dist.get_rank()} ends with "
            f"it ({reason})"
        ) from error
    except (Terminated, KeyboardInterrupt):
        _give_up(work)
        raise


def _give_up(work: Any) -> None:
    """Ensure that the process can end although a call has no answer yet."""
    if not _given_up:
        atexit.register(_end_at_once)
    _given_up.append(work)


def _end_at_once() -> None:
    """End without destroying the process group, which would join a thread that still waits."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _finished(work: Any) -> bool:
    """Whether a call between processes ends within `WAIT`; afterwards signals are handled."""
    try:
        work.wait(WAIT)
    except RuntimeError:
        if not work.is_completed():
            return False
        work.wait()  # raises the call's own error, unless only the time was over
    return True


@contextmanager
def _sigterm_ends() -> Iterator[None]:
    """Within this context SIGTERM ends the process at once.

    Python's own handling waits until a call returns, and a call that waits for a failed process
    does not return: `torchrun` would have to kill this process, half a minute later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _differing(own: Any, wanted: Any) -> tuple[Any, Any]:
    """Two values that differ; for dicts, the entries that differ."""
    if not (isinstance(own, dict) and isinstance(wanted, dict)):
        return own, wanted
    names = [name for name in {**own, **wanted} if own.get(name) != wanted.get(name)]
    pairs = {name: _differing(own.get(name), wanted.get(name)) for name in names}
    return {n: a for n, (a, _) in pairs.items()}, {n: b for n, (_, b) in pairs.items()}
