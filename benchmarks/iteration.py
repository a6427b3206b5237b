"""`iteration`: the notebook's whole training iteration, from the batch to the updated weights."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from benchmarks import iteration_peers
from benchmarks.cells import RNN
from benchmarks.contest import contest
from benchmarks.notebook import RATE, SHAPE, Task, entrant
from benchmarks.problem import Entrant, Maker, admit, tolerance
from benchmarks.results import Bound, Row, Spec
from ostinato.training.optimizers import RMSProp

WANTED = 2.0


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
    return [Spec("iteration/notebook", lambda: _row(quick))]


def _row(quick: bool) -> Row:
    task = Task()
    ours = Maker("ostinato", lambda: _ours(task))
    found = admit(ours, iteration_peers.makers(task, quick), task.right, tolerance(SHAPE))
    measured = contest(found, quick)
    row = measured.row("iteration/notebook", f"{SHAPE}, MNIST by rows", RNN.gflop(SHAPE))
    peer = row.fastest_peer
    bounds = () if peer is None else (Bound(f"{peer.name} over ours", WANTED, peer.ratio or 0.0),)
    return replace(row, bounds=bounds)
