from __future__ import annotations

import pytest

from shared.reports import draw_by, label_alone


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the figures of a page, this test reads nothing but their labels."""
    draw_by(monkeypatch, label_alone)
