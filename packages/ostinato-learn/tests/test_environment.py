from __future__ import annotations

import pytest

from ostinato_learn import environment


@pytest.mark.parametrize(("quota", "wanted"), [(0.3, 1), (1.5, 2), (1000.0, None), (None, None)])
def test_cores_are_no_more_than_the_quota_gives(monkeypatch, quota, wanted):
    monkeypatch.setattr(environment, "cpu_quota", lambda: None)
    there = environment.cores()
    monkeypatch.setattr(environment, "cpu_quota", lambda: quota)
    assert environment.cores() == min(wanted or there, there)
