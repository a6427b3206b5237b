"""Register code, and machine code made of it, have the interpreter's bits."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from random_programs import Maker, numbers_of

from ostinato import _native
from ostinato.engine import native

MACHINE_CODE = ["machine_code"] if importlib.util.find_spec("llvmlite") else []
ISAS = _native.available_isas()


def played(maker, made, T, B, dtype, seed, tier, isa, scale=1.0):
    arrays = maker.arrays(T, B, dtype, seed)
    for array in arrays:
        array *= dtype(scale)
    numbers = numbers_of(arrays, [what for what, _ in maker.arguments])
    made.play(native.addresses(numbers), T, B, [], [], 1, isa, tier=tier)
    return arrays


@pytest.mark.parametrize("scale", [1, None], ids=["", "near zero"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_programs_have_equal_bits(dtype, scale):
    """Near zero many numbers count as zero, which machine code must not notice beforehand."""
    scale = scale or float(np.finfo(dtype).tiny) * 4
    covered = 0
    for seed in range(60):
        maker = Maker(np.random.default_rng(seed))
        made = native.make(maker.program(), np.dtype(dtype))
        if made.register_code() is None:
            continue
        covered += 1
        for T, B in [(1, 1), (300, 1), (5, 3), (70, 7)]:
            for isa in ISAS:
                wanted = played(maker, made, T, B, dtype, seed, "interpreter", isa, scale)
                for tier in ("registers", *MACHINE_CODE):
                    ours = played(maker, made, T, B, dtype, seed, tier, isa, scale)
                    for i, (a, b) in enumerate(zip(ours, wanted, strict=True)):
                        which = f"{tier}, seed {seed}, T {T}, B {B}, {isa}, {i}"
                        np.testing.assert_array_equal(a, b, which)
                        assert np.array_equal(np.signbit(a), np.signbit(b)), which
        assert not MACHINE_CODE or (made.keeps and made.compiling == "")
    assert covered >= 30
