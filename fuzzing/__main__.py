"""Fuzz one target: `python -m fuzzing TARGET [options of libFuzzer]`, such as -runs=2000000.

Inputs that reach new branches are added to a folder of their own, build/fuzz/TARGET; one that
fails is written to the working directory, and the process ends with it. Needs atheris.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ostinato_learn", "fuzzing.targets"]):
    from fuzzing.targets import CORPUS, TARGETS


def main() -> None:
    name, *options = sys.argv[1:]
    found = Path("build/fuzz") / name
    found.mkdir(parents=True, exist_ok=True)
    atheris.Setup([sys.argv[0], *options, str(found), str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


main()
