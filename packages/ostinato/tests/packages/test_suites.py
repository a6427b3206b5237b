"""Test suites of other people's packages, from their source distributions, with and without us.

No test may fail that passes without acceleration. A suite is one whose source distribution has its
tests: those of many packages do not.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.packages

# Package → the folder of its tests, and the tests left out: they load weights from the network.
SUITES = {"norse": ("norse", "not pretrained")}
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A function that gives the unpacked source distribution of a package."""

    def unpacked(package: str) -> Path:
        folder = tmp_path_factory.mktemp(package)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        options = ["--no-build-isolation", "--dest", str(folder)]
        subprocess.run([*pip, *options, package], check=True)
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        (found,) = [p for p in folder.iterdir() if p.is_dir()]
        return found

    return unpacked


def outcome(folder: Path, package: str, *options: str) -> str:
    """The end of what pytest says of a suite."""
    tests, chosen = SUITES[package]
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", tests, "-k", chosen, "-rfE", *options,
         "-p", "no:cacheprovider", "--continue-on-collection-errors"],
        cwd=folder, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert " passed" in found.stdout, found.stdout[-2000:] + found.stderr[-2000:]
    return found.stdout


@pytest.mark.parametrize("package", SUITES)
def test_no_test_of_a_suite_fails_that_passes_without_us(package, sources):
    pytest.importorskip(package)
    folder = sources(package)
    plain, fast = (outcome(folder, package, *o) for o in ((), ("-p", "accelerated")))
    assert {*_FAILED.findall(fast)} <= {*_FAILED.findall(plain)}
    found = re.search(r"ostinato: (\d+) loops native of (\d+)", fast)
    assert found and int(found[1]) > 0, fast[-500:]
