from __future__ import annotations

import pytest

from ostinato import machine


@pytest.fixture
def system(tmp_path):
    """Writes files below a root as /proc and /sys have them, and returns the root."""

    def write(files):
        for path, content in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(content)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("quota", "wanted"), [("150000 100000", 1.5), ("50000 100000", 0.5), ("max 100000", None)]
)
def test_the_quota_of_the_own_group(system, quota, wanted):
    root = system({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": quota})
    assert machine.cpu_quota(root) == wanted


def test_the_smallest_quota_of_the_groups_around_counts(system):
    root = system(
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/cpu.max": "300000 100000",
            "sys/fs/cgroup/a/cpu.max": "100000 100000",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000",
        }
    )
    assert machine.cpu_quota(root) == 1.0


def test_control_groups_of_version_1(system):
    group = "sys/fs/cgroup/cpu/a"
    root = system(
        {
            "proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/a\n0::/\n",
            f"{group}/cpu.cfs_quota_us": "200000\n",
            f"{group}/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        }
    )
    assert machine.cpu_quota(root) == 2.0


def test_no_control_groups_set_no_limits(tmp_path, system):
    assert machine.cpu_quota(tmp_path) is None
    whole = machine.memory(tmp_path)
    assert machine.memory(system({"proc/self/cgroup": "0::/\n"})) == whole


@pytest.mark.parametrize(
    ("listed", "file"),
    [
        ("0::/job/task\n", "sys/fs/cgroup/job/memory.max"),
        ("3:memory:/job/task\n", "sys/fs/cgroup/memory/job/memory.limit_in_bytes"),
    ],
)
def test_memory_is_no_more_than_a_group_around_allows(system, listed, file):
    assert machine.memory(system({"proc/self/cgroup": listed, file: "1000000\n"})) == 10**6


def test_what_is_available(system):
    root = system({"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    4000 kB\nBuffers: 1 kB\n"})
    assert machine.available_memory(root) == 4000 * 1024
    assert machine.available_memory(root / "nowhere") is None
