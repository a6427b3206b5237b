"""What this process may use of the machine: cores and memory, as its control groups allow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


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
