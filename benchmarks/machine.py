"""The machine under a benchmark: its parts, its rate of multiplication, latency between cores."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ostinato_learn import environment

MM_SIZE = 2048
MM_GFLOP = 2 * MM_SIZE**3 / 1e9
PEERS = ("torch", "jax", "jaxlib", "keras", "optax", "numpy")


def use_cores(n: int) -> None:
    """Bind this process to its first n cores, so that every library makes a pool of n threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n])
    # torch's compiler reads this at import: no pool of compiler processes beside the contenders.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(n))


def report() -> dict[str, Any]:
    """The properties of the machine and the packages on which figures depend, measured now."""
    import torch

    from ostinato.engine import native

    here = environment.environment()
    ready = native.unavailable() is None
    return {
        "date": here["date"],
        "cpu": here["machine"]["cpu"],
        "cores": here["machine"]["cores"],
        "system": here["machine"]["system"],
        "python": here["python"],
        "packages": {name: _version(name) for name in PEERS},
        "ostinato": here["packages"]["ostinato"],
        "git": here["git"],
        "instruction_set": native.best_isa() if ready else None,
        "torch_threads": torch.get_num_threads(),
        "peak_gflops": peak_gflops(),
        **state(),
    }


def state() -> dict[str, Any]:
    """The properties that may change within minutes: the rate of torch.mm, the latency."""
    mm = multiply()
    mm()
    return {"mm_gflops": MM_GFLOP / min(_seconds(mm) for _ in range(5)), "latency_ns": latency_ns()}


def multiply() -> Any:
    """A function that runs torch.mm once on 2048×2048 float32."""
    import torch

    a, b = (torch.randn(MM_SIZE, MM_SIZE) for _ in range(2))
    out = torch.empty(MM_SIZE, MM_SIZE)
    return lambda: torch.mm(a, b, out=out)


def latency_ns() -> float | None:
    """The one-way latency of a cache line between two cores; None where it cannot be measured."""
    program, cores = _built("pingpong"), _cores()
    return None if program is None or len(cores) < 2 else _run(program, cores[:2])


@functools.cache
def peak_gflops() -> float | None:
    """The rate of float32 multiply-adds on registers, on all cores in use.

    No program is faster. None where it cannot be measured.
    """
    program = _built("peak")
    return None if program is None else _run(program, _cores())


def _run(program: Path, cores: list[int]) -> float:
    command = [str(program), *map(str, cores)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@functools.cache
def _built(name: str) -> Path | None:
    """Compile `name`.c for this process; None without Linux or a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        return None
    folder = tempfile.TemporaryDirectory(prefix=f"ostinato-{name}-")
    _kept.append(folder)
    program = Path(folder.name) / name
    flags = ["-O2", "-march=native", "-ffp-contract=fast", "-pthread"]
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run([compiler, *flags, "-o", program, source], check=True)
    return program


_kept: list[Any] = []  # keeps the folders of `_built` until the process ends


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _seconds(call: Any) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
