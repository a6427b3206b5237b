"""Register code has the interpreter's bits."""

from __future__ import annotations

import numpy as np
import pytest
from random_programs import Maker, numbers_of

from ostinato import _native
from ostinato.engine import native

ISAS = _native.available_isas()


def played(maker, made, T, B, dtype, seed, tier, isa):
    arrays = maker.arrays(T, B, dtype, seed)
    numbers = numbers_of(arrays, [what for what, _ in maker.arguments])
    made.play(native.addresses(numbers), T, B, [], [], 1, isa, tier=tier)
    return arrays


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_programs_have_equal_bits(dtype):
    covered = 0
    for seed in range(60):
        maker = Maker(np.random.default_rng(seed))
        made = native.make(maker.program(), np.dtype(dtype))
        if not made.has_registers():
            continue
        covered += 1
        for T, B in [(1, 1), (300, 1), (5, 3), (70, 7)]:
            for isa in ISAS:
                ours, wanted = (
                    played(maker, made, T, B, dtype, seed, tier, isa)
                    for tier in ("registers", "interpreter")
                )
                for i, (a, b) in enumerate(zip(ours, wanted, strict=True)):
                    np.testing.assert_array_equal(a, b, f"seed {seed}, T {T}, B {B}, {isa}, {i}")
                    assert np.array_equal(np.signbit(a), np.signbit(b))
    assert covered >= 30
