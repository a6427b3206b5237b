"""A panel of series in a file, read in parts."""

from __future__ import annotations

import numpy as np
import pytest

from ostinato.data.series.panel import Panel
from ostinato.data.stored import panel as stored_panel
from ostinato.data.stored.panel import StoredPanel, in_blocks, in_parts

SERIES = [np.arange(4.0) + 10 * i for i in range(7)]


def stored(asked: list[list[int]]) -> StoredPanel:
    def read(chosen: np.ndarray) -> Panel:
        asked.append(chosen.tolist())
        return Panel.of([SERIES[i] for i in chosen])

    lengths = np.array([len(each) for each in SERIES])
    return StoredPanel(read, lengths, 2 * lengths)


@pytest.mark.parametrize("block", [1, 16, 24, 1000])
def test_parts_are_read_in_order_and_are_all(monkeypatch, block):
    monkeypatch.setattr(stored_panel, "BLOCK", block)
    asked: list[list[int]] = []
    parts = list(in_parts(stored(asked)))
    assert [i for chosen in asked for i in chosen] == list(range(7))
    assert [chosen.tolist() for chosen, _ in parts] == asked
    found = [part.series(i).tolist() for _, part in parts for i in range(len(part))]
    assert found == [each.tolist() for each in SERIES]
    most = max(1, -(-block // 8))  # series of 8 numbers
    assert max(map(len, asked)) <= most and (len(asked) == 1) == (block == 1000)


def test_a_block_may_have_any_order(monkeypatch):
    monkeypatch.setattr(stored_panel, "BLOCK", 3)
    blocks = in_blocks(np.array([3, 0, 2, 1]), np.array([1, 1, 1, 9]))
    assert [block.tolist() for block in blocks] == [[3, 0, 2], [1]]


def test_before_holds_steps_of_each_series_back():
    early = stored([]).before(3)
    assert early.lengths.tolist() == [1] * 7
    assert early.before(0).read(np.array([5, 2])).target.tolist() == [50.0, 20.0]
    with pytest.raises(ValueError, match="series 0 has 1 steps; wanted more than the 1 that are"):
        early.before(1)
    panel = Panel.of(SERIES)
    ((chosen, same),) = in_parts(panel)
    assert same is panel and chosen.tolist() == list(range(7))
