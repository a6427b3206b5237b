"""PyTorch's own tests of its recurrent layers, with torch.nn's classes and with ostinato's.

    python scripts/torch_rnn_tests.py DIRECTORY [--select EXPRESSION] [FILE …]

DIRECTORY is the folder `test` of PyTorch's sources, preferably of the version installed. The tests
run where they are; no part of them is in ostinato. They need `pip install expecttest`. Every test
whose name fits (rnn, gru, lstm, packed, cell) runs twice, and every difference of outcome is
listed. Exits 1 if a test passes with torch.nn's classes alone, or if the native engine played no
call. torch_rnn_plugin.py replaces the classes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch

FILES = [
    "test_nn.py",
    "test_modules.py",
    "nn",
    "test_expanded_weights.py",
    "test_autocast.py",
    "test_stateless.py",
    "test_autograd.py",
    "test_overrides.py",
]
SELECT = "rnn or gru or lstm or packed or cell"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("files", nargs="*", default=FILES)
    parser.add_argument("--select", default=SELECT, metavar="EXPRESSION", help="pytest's -k")
    options = parser.parse_args()
    theirs, ours = (
        run(options.directory, options.files, options.select, flags)
        for flags in ([], ["--ostinato"])
    )
    print(f"\nPyTorch {torch.__version__}, tests of {version(options.directory)}")
    print(f"torch.nn:  {counts(theirs)}\nostinato:  {counts(ours)}\ncalls:     {ours['calls']}")
    n_lost = 0
    for name, before in theirs["outcomes"].items():
        after = ours["outcomes"].get(name, "absent")
        if after != before:
            print(f"{before} → {after}: {name}")
            n_lost += before == "passed"
    print(f"{n_lost} tests pass with torch.nn's classes alone")
    return 1 if n_lost or not ours["calls"].get("engine") else 0


def run(directory: Path, files: list[str], select: str, flags: list[str]) -> dict[str, Any]:
    """Run the tests once: the outcome of each, and the counts of what played the layers."""
    here = str(Path(__file__).resolve().parent)
    paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder, "outcomes.json")
        command = [
            sys.executable, "-m", "pytest", "-q", "--tb=short", "-W", "ignore",
            "--noconftest", "-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider",
            "-p", "torch_rnn_plugin", "-k", select, "--outcomes", str(outcomes), *flags, *files,
        ]  # fmt: skip
        subprocess.run(command, cwd=directory, env={**os.environ, "PYTHONPATH": paths})
        if not outcomes.exists():
            sys.exit("pytest has not come to its end")
        result: dict[str, Any] = json.loads(outcomes.read_text(encoding="utf-8"))
        return result


def version(directory: Path) -> str:
    file = directory.resolve().parent / "version.txt"
    return file.read_text().strip() if file.exists() else "an unknown version"


def counts(run: dict[str, Any]) -> str:
    return ", ".join(f"{n} {what}" for what, n in sorted(Counter(run["outcomes"].values()).items()))


if __name__ == "__main__":
    sys.exit(main())
