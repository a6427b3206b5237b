"""The machine under a benchmark: what it is, how fast it multiplies, how fast its cores talk."""

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

from ostinato import environment

MM_SIZE = 2048
MM_GFLOP = 2 * MM_SIZE**3 / 1e9
PEERS = ("torch", "jax", "jaxlib", "keras", "optax", "numpy")


def use_cores(n: int) -> None:
    """Keep this process on its first n cores, so that every library's own pool has as many."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n])
    # No pool of compilers beside the contenders; read when torch's compiler is imported.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(n))


def report() -> dict[str, Any]:
    """What the figures depend on; measured now."""
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
    """What changes from one minute to the next."""
    mm = multiply()
    mm()
    return {"mm_gflops": MM_GFLOP / min(_seconds(mm) for _ in range(5)), "latency_ns": latency_ns()}


def multiply() -> Any:
    """torch.mm on 2048×2048 float32, to be called."""
    import torch

    a, b = (torch.randn(MM_SIZE, MM_SIZE) for _ in range(2))
    out = torch.empty(MM_SIZE, MM_SIZE)
    return lambda: torch.mm(a, b, out=out)


def latency_ns() -> float | None:
    """One-way latency of a cache line between two cores; None where it cannot be measured."""
    program, cores = _built("pingpong"), _cores()
    return None if program is None or len(cores) < 2 else _run(program, cores[:2])


@functools.cache
def peak_gflops() -> float | None:
    """Of float32 multiply-adds on the registers of all cores in use: no program is faster.

    None where it cannot be measured.
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
    """A measuring program, built for this process; None without Linux or a C compiler."""
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


_kept: list[Any] = []  # the folders live as long as the process


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _seconds(call: Any) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
