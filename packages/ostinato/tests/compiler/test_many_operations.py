"""Steps of many operations: how the work of the compiler grows is counted, not timed."""

from __future__ import annotations

import pytest
import torch

import ostinato
from ostinato.compiler.backward import rematerialize
from ostinato.compiler.lower import schedule
from ostinato.loops.iteration import probe


def ring(cells, hs, y):
    for i, cell in enumerate(cells):
        hs[i] = y = cell(y, hs[i])
    return y


def looped(cells, x):
    hs = [x.new_zeros(len(x), 4) for _ in cells]
    out = []
    for t in range(x.shape[1]):
        y = ring(cells, hs, x[:, t])
        out.append(y)
    return torch.stack(out, 1)


def test_the_work_grows_with_the_number_of_cells(monkeypatch):
    """Values in all minimum cuts, and nodes looked at by all blocks."""
    work = {"cut": 0, "block": 0}
    capacities, block = rematerialize._capacities, schedule._Scheduler.block

    def counted_capacities(cone, *others):
        work["cut"] += len(cone)
        return capacities(cone, *others)

    def counted_block(self, width):
        work["block"] += width not in self.blocks and len(self.ready[width])
        return block(self, width)

    monkeypatch.setattr(rematerialize, "_capacities", counted_capacities)
    monkeypatch.setattr(schedule._Scheduler, "block", counted_block)
    found = []
    for n in (5, 20):
        cells = torch.nn.ModuleList([torch.nn.GRUCell(4, 4) for _ in range(n)])
        x = torch.randn(3, 12, 4)
        run = ostinato.loop(looped)
        run(cells, x).sum().backward()
        assert any(site.native for site in run.__ostinato_loops__)
        found.append(dict(work))
        work.update(cut=0, block=0)
    few, many = found
    assert few["cut"] > 0 and many["cut"] < 8 * few["cut"], found  # 16 would be the square
    assert few["block"] > 0 and many["block"] < 8 * few["block"], found


@pytest.mark.filterwarnings("ignore:.*recorded")
def test_a_loop_of_too_many_operations_says_so(monkeypatch):
    monkeypatch.setattr(probe, "MOST_CALLS", 30)
    cells, x = [torch.nn.GRUCell(4, 4) for _ in range(10)], torch.randn(3, 12, 4)
    run = ostinato.loop(looped)
    with pytest.warns(UserWarning, match="more than 30 operations"):
        found = run(cells, x)
    torch.testing.assert_close(found, looped(cells, x))
