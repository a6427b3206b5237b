"""What the engine reads of the processor and the system."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostinato.engine import native

CPUINFO = Path("/proc/cpuinfo")
NEEDED = {
    "avx512": {"avx512f", "avx512dq", "avx512vl", "avx512bw", "avx2", "fma"},
    "avx2": {"avx2", "fma"},
    "neon": {"asimd"},
    "base": set(),
}


@pytest.mark.skipif(not CPUINFO.exists(), reason="needs /proc/cpuinfo of Linux")
def test_the_instruction_sets_are_those_that_linux_names():
    lines = CPUINFO.read_text().splitlines()
    flags = set(next(x for x in lines if x.startswith(("flags", "Features"))).split())
    assert native.available_isas() == [isa for isa, needed in NEEDED.items() if needed <= flags]
