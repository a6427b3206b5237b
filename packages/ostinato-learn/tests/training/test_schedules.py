from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato_learn.training import Plan, learning_rate
from zoo.suites import draws


def rates(total: int, **plan) -> list[float]:
    return [learning_rate(Plan(learning_rate=1.0, **plan), i, total) for i in range(total)]


def test_constant():
    assert rates(3) == [1, 1, 1]


def test_step():
    wanted = [1, 1, 0.5, 0.5, 0.25]
    assert rates(5, schedule="step", step_size=2, step_gamma=0.5) == pytest.approx(wanted)


def test_cosine_goes_from_all_to_nothing():
    assert rates(4, schedule="cosine") == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert learning_rate(Plan(learning_rate=1.0, schedule="cosine"), 4, 4) == 0


def test_warmup_comes_before_the_schedule():
    assert rates(4, warmup=2) == [0.5, 1, 1, 1]
    assert rates(4, warmup=2, schedule="cosine") == pytest.approx([0.5, 1, 1, 0.5])
    assert rates(3, warmup=2, schedule="step", step_size=1, step_gamma=0.1) == pytest.approx(
        [0.5, 0.1, 0.01]
    )


@draws()
@given(
    st.sampled_from(["constant", "cosine", "step"]),
    st.integers(0, 50),
    st.integers(1, 30),
    st.integers(1, 60),
)
def test_a_rate_is_never_above_the_plans_nor_below_zero(schedule, warmup, step_size, total):
    values = rates(total, schedule=schedule, warmup=warmup, step_size=step_size)
    assert all(0 <= value <= 1 for value in values)
    after = values[warmup:]
    assert after == sorted(after, reverse=True)
