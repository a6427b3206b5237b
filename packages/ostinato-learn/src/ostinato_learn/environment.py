"""The environment of a run: versions, machine, threads, git state."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from ostinato.internal import cpu_quota
from ostinato.internal import memory as memory

PACKAGES = (
    "ostinato",
    "numpy",
    "safetensors",
    "typer",
    "torch",
    "scikit-learn",
    "tqdm",
    "matplotlib",
)


def environment() -> dict[str, Any]:
    """The environment in which a result was made, to be stored beside the result.

    Example:
        >>> sorted(environment())
        ['command', 'date', 'git', 'machine', 'packages', 'python', 'threads']
    """
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": command(),
        "python": platform.python_version(),
        "packages": packages(),
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "architecture": platform.machine(),
            "cpu": cpu_model(),
            "cores": cores(),
        },
        "threads": {
            "torch": torch_threads(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
        "git": git_state(),
    }


def command() -> list[str]:
    """The command that started this process, to be run again: `python -m …` for a module."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return [Path(sys.argv[0]).name, *sys.argv[1:]]
    return ["python", "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]]


def packages() -> dict[str, str | None]:
    """The version of each package that ostinato uses; None for one that is not installed."""
    return {name: _version(name) for name in PACKAGES}


def cores() -> int:
    """The number of cores that this process may use.

    taskset, or the CPU quota of a container, can make it smaller than the number of cores of the
    machine. Of a quota of one core and a half, two can be used at times.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    n = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = cpu_quota()
    return n if quota is None else min(n, math.ceil(quota))


def launched() -> bool:
    """Whether this process is one of several of a training, as `torchrun` starts them."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return all(name in os.environ for name in names) and int(os.environ["WORLD_SIZE"]) > 1


def rank() -> int:
    """The number of this process among those of a training; 0 if it is alone."""
    return int(os.environ["RANK"]) if launched() else 0


def processes_here() -> int:
    """The processes of a training on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if launched() else 1


def rank_here() -> int:
    """The number of this process among them."""
    return int(os.environ.get("LOCAL_RANK", 0)) if launched() else 0


def cpu_model() -> str:
    """The model name of the processor, or its architecture where the system gives no name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def torch_threads() -> int | None:
    """PyTorch's number of threads; None if PyTorch is not loaded."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


def git_state() -> dict[str, Any] | None:
    """The commit, and whether tracked files differ from it; None outside a checkout.

    The checkout is that of the working directory, or else that of this package.
    """
    for folder in (Path.cwd(), Path(__file__).parent):
        commit = _git(folder, "rev-parse", "HEAD")
        if commit:
            changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
            return {"commit": commit, "dirty": bool(changes)}
    return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):  # no git, or a huge checkout
        return None
    return result.stdout.strip() if result.returncode == 0 else None
