"""Test suites of other people's packages, from their source distributions, with and without us.

A suite is one whose source distribution has its tests: those of many packages do not.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

SECONDS = 900  # for a suite


@dataclass(frozen=True)
class Suite:
    """Which tests of a package run.

    Attributes:
        distribution: its name where pip finds it.
        tests: files and folders.
        chosen: for pytest's -k.
        environment: variables that it needs.
        differs: tests that compare a native run with one in Python to the last bit, or that want
            None where the loop's gradient is zero.
    """

    distribution: str
    tests: tuple[str, ...]
    chosen: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    differs: tuple[str, ...] = ()


# By the name of the package.
SUITES = {
    "norse": Suite("norse", ("norse",), "not pretrained"),  # they load weights from the network
    "sinabs": Suite("sinabs", ("tests",), differs=("test_alif_i_syn_recordings",)),
    "hydrodl2": Suite("hydrodl2", ("tests",)),
    "resdag": Suite(
        "resdag",
        ("tests/test_layers", "tests/test_models"),
        differs=(
            "test_state_persistence_on_device",
            "test_feedback_only",
            "test_with_driving_input",
            "test_forward_equals_forward_stateless",
            "test_save_full_load_full_roundtrip",
            "test_copies_batch_switches",
            "test_portable_roundtrip_preserves",
            "test_omitted_switch_preserves",
            "test_forecast_matches_original_sequence_loop",
        ),
    ),
    "keras": Suite("keras", ("keras/src/layers/rnn",), environment=(("KERAS_BACKEND", "torch"),)),
    "torch_struct": Suite("torch_struct", ("torch_struct",)),
    "opacus": Suite("opacus", ("opacus/tests/dp_layers/dp_rnn_test.py",)),
    "linear_operator": Suite("linear_operator", ("test/utils",)),
}


@dataclass(frozen=True)
class Outcome:
    """What pytest says of a suite; of loops (native, all over tensors) if it ran with us.

    Seconds are of processor time, of all threads and of processes that tests start.
    """

    passed: int
    failed: frozenset[str]
    seconds: float
    loops: tuple[int, int] | None


def unpacked(suite: Suite, into: Path) -> Path:
    """The source distribution of a package."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
    options = ["--no-build-isolation", "--dest", str(into)]
    subprocess.run([*pip, *options, suite.distribution], check=True)
    (archive,) = into.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    (found,) = [p for p in into.iterdir() if p.is_dir()]
    return found


def outcome(suite: Suite, folder: Path, fast: bool) -> Outcome:
    """Run a suite, with modules and functions accelerated or without.

    Raises:
        RuntimeError: no test passed.
    """
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    of_path = {"PYTHONPATH": os.pathsep.join(paths)}
    began = _seconds_of_children()
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *suite.tests, "-k", suite.chosen, "-rfE",
         "-p", "no:cacheprovider", "-o", "addopts=", "--continue-on-collection-errors",
         *(("-p", "accelerated") if fast else ())],
        cwd=folder, env=os.environ | of_path | dict(suite.environment), timeout=SECONDS,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = _seconds_of_children() - began
    passed = re.search(r"(\d+) passed", ran.stdout)
    if passed is None:
        raise RuntimeError(f"{suite.distribution}: {ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    failed = frozenset(re.findall(r"^(?:FAILED|ERROR) (\S+)", ran.stdout, re.MULTILINE))
    loops = re.search(r"ostinato: (\d+) loops native of (\d+)", ran.stdout)
    counts = None if loops is None else (int(loops[1]), int(loops[2]))
    return Outcome(int(passed[1]), failed, seconds, counts)


def _seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def new_failures(suite: Suite, plain: Outcome, fast: Outcome) -> set[str]:
    """The tests that fail with us alone, but for those that are known to differ."""
    return {
        test
        for test in fast.failed - plain.failed
        if not any(name in test for name in suite.differs)
    }
