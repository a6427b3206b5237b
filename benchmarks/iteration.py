"""`iteration`: the notebook's whole training iteration, from the batch to the updated weights.

Three rows: an iteration of a plain script; one of `training.train` beside the parts that no
training can do without; and 5,000 of them as whole processes, from the command to the result.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import iteration_peers
from benchmarks.cells import RNN
from benchmarks.contest import contest
from benchmarks.notebook import RATE, SHAPE, Task, entrant
from benchmarks.problem import Entrant, Maker, admit, tolerance
from benchmarks.results import Bound, Row, Spec, Timing
from benchmarks.whole import ITERATIONS
from ostinato_learn.training import Plan, train
from ostinato_learn.training.loop import engine_first
from ostinato_learn.training.optimizers import RMSProp

WANTED = 2.0
WANTED_PROCESS = 2.5  # PyTorch's whole script over ours
WANTED_AROUND = 1.15  # our loop over network, loss and their gradients


def _ours(task: Task) -> Entrant:
    net, batches = task.net(), task.batches()
    optimizer = RMSProp(net.parameters(), lr=RATE)

    def run() -> float:
        x, y = batches.next_batch()
        loss = F.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return entrant(run, lambda: (net.body.weight_hh_l0, net.readout.weight))


def specs(quick: bool) -> list[Spec]:
    return [
        Spec("iteration/notebook", lambda: _row(quick)),
        Spec("iteration/around the network", lambda: _around_row(quick)),
        Spec("iteration/whole process", lambda: _process_row(quick)),
    ]


def _row(quick: bool) -> Row:
    task = Task()
    ours = Maker("ostinato", lambda: _ours(task))
    found = admit(ours, iteration_peers.makers(task, quick), task.right, tolerance(SHAPE))
    measured = contest(found, quick)
    row = measured.row("iteration/notebook", f"{SHAPE}, MNIST by rows", RNN.gflop(SHAPE))
    peer = row.fastest_peer
    bounds = () if peer is None else (Bound(f"{peer.name} over ours", WANTED, peer.ratio or 0.0),)
    return replace(row, bounds=bounds)


def _around_row(quick: bool) -> Row:
    """`training.train` in turn with the network, the loss and their gradients alone."""
    task = Task()
    net, batches = task.net(), task.batches()
    n, rounds = (20, 2) if quick else (400, 9)
    ready = [tuple(map(torch.from_numpy, batches.next_batch())) for _ in range(n)]

    def train_ms() -> float:
        plan = Plan(iterations=n, batch_size=SHAPE.B, eval_every=n)
        return train(net, batches, plan).reports[-1]["elapsed_s"] / n

    def core_ms() -> float:
        with engine_first(net):
            net.train()
            begin = time.perf_counter()
            for x, y in ready:
                net.zero_grad()
                F.cross_entropy(net(x), y).backward()
            return (time.perf_counter() - begin) / n

    train_ms(), core_ms()
    ours, core = zip(*((train_ms(), core_ms()) for _ in range(rounds)), strict=True)
    timings = (Timing.of("training.train", ours), Timing.of("network, loss, gradients", core))
    ratio = float(np.median(np.divide(ours, core)))
    bound = Bound("training.train over network, loss, gradients", WANTED_AROUND, ratio, False)
    title = f"{SHAPE}: what batch, optimiser, measures and callbacks add"
    return Row("iteration/around the network", title, timings, bounds=(bound,))


def _process_row(quick: bool) -> Row:
    """The experiment from the command to the result, ours and a script in PyTorch's layers."""
    iterations, rounds = (20, 1) if quick else (ITERATIONS, 3)
    ours = ("-m", "ostinato_learn.cli", "train", "mnist", "-q", "--iterations", str(iterations))
    theirs = ("-m", "benchmarks.whole", str(iterations))
    times = [(_process(*ours), _process(*theirs)) for _ in range(rounds)]
    mine, peer = zip(*times, strict=True)
    ratio = float(np.median(np.divide(peer, mine)))
    timings = (
        Timing.of("ostinato train mnist", mine),
        replace(Timing.of("a script in PyTorch's layers", peer), ratio=ratio),
    )
    bound = Bound("PyTorch's whole process over ours", WANTED_PROCESS, ratio)
    title = f"{iterations:,} iterations, {SHAPE}, default threads, from the command to the accuracy"
    return Row("iteration/whole process", title, timings, bounds=(bound,))


def _process(*arguments: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    return time.perf_counter() - begin
