"""The environment of a run: versions, machine, threads, git state."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = (
    "ostinato", "numpy", "safetensors", "typer", "torch", "scikit-learn", "tqdm", "matplotlib",
)  # fmt: skip


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
    told = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return all(name in os.environ for name in told) and int(os.environ["WORLD_SIZE"]) > 1


def rank() -> int:
    """The number of this process among those of a training; 0 if it is alone."""
    return int(os.environ["RANK"]) if launched() else 0


def processes_here() -> int:
    """The processes of a training on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if launched() else 1


def rank_here() -> int:
    """The number of this process among them."""
    return int(os.environ.get("LOCAL_RANK", 0)) if launched() else 0


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The number of cores that the control groups of this process allow; None: all.

    A group may use quota microseconds of processor time in each period, and its threads sleep for
    the rest of it. The smallest quota counts, of the process's own groups and those around them.

    Args:
        root: the folder of /proc and /sys.
    """
    quotas = []
    for group in _control_groups("cpu", root):
        if (file := group / "cpu.max").is_file():  # version 2
            quota, period = file.read_text().split()
        elif (file := group / "cpu.cfs_quota_us").is_file():  # version 1
            quota, period = file.read_text(), (group / "cpu.cfs_period_us").read_text()
        else:
            continue
        if quota != "max" and int(quota) >= 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory(root: Path = Path("/")) -> int | None:
    """The bytes of memory that this process may use; None if the system does not say.

    A control group can make it smaller than the memory of the machine.

    Args:
        root: the folder of /proc and /sys.
    """
    if not hasattr(os, "sysconf"):
        return None
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group in _control_groups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):  # of version 2, of version 1
            file = group / name
            if file.is_file() and (text := file.read_text().strip()).isdecimal():
                found.append(int(text))
    return min(found)


def available_memory(root: Path = Path("/")) -> int | None:
    """The bytes that programs may still take without swapping, as Linux estimates them.

    At most what this process may use. None if the system does not say.
    """
    table = root / "proc/meminfo"
    if not table.is_file():
        return None
    for line in table.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            allowed = memory(root)
            available = int(rest.split()[0]) * 1024
            return available if allowed is None else min(available, allowed)
    return None


def _control_groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the control groups that this process is in, and of those around them."""
    listed = root / "proc/self/cgroup"
    if not listed.is_file():
        return
    for line in listed.read_text().splitlines():
        controllers, path = line.split(":", 2)[1:]
        if controllers == "":  # version 2
            top = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
        else:
            continue
        own = top / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))


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
