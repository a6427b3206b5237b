"""docs/first_file.md: its commands run in their order, in a copy of the examples."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "first_file.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"`((?:runs/|examples/|trips)[\w./]*\.\w+)`")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_commands_of_the_page_run_in_order(tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    program = tmp_path / "bin" / "ostinato"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ostinato_learn.cli "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])

    said = []
    for block in BLOCK.findall(PAGE):
        script = f"set -eo pipefail\n{block}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (block, done.stderr)
        said.append(done.stdout)

    head, check, dry_run, train, predict, stream, c = said
    assert head.startswith("trip,rider,time,speed,turn,mode\n")
    assert "200 sequences; 8 to 20 steps, 2 features" in check
    assert "\n  rules out " in dry_run and "--no-bidirectional" in dry_run
    assert "runs/trips/report.html" in train
    accuracy = float(re.search(r"accuracy on all \d+ test examples +([\d.]+) %", train)[1])
    assert 60 < accuracy < 100  # noise is honest: neither chance, a third, nor certain
    trips = [f"t{n}" for n in range(1, 7)]
    assert [line.split(",")[0] for line in predict.splitlines()] == ["id", *trips]
    assert {line.split(",")[0] for line in stream.splitlines()} == {"trip", *trips}
    assert "steps are right" in c
    files = NAMED.findall(PAGE)
    assert len(files) >= 8
    assert [name for name in files if not (tmp_path / name).is_file()] == []


def test_the_sample_files_are_what_their_program_writes(tmp_path):
    copy = shutil.copy(ROOT / "examples" / "make_trips.py", tmp_path)
    runpy.run_path(copy, run_name="__main__")
    for name in ("trips.csv", "new_trips.csv"):
        assert (tmp_path / name).read_bytes() == (ROOT / "examples" / name).read_bytes()
