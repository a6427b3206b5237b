"""What can only be seen from outside: imports, streams, pipes, signals, and a kill."""

from __future__ import annotations

import html
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from cli_examples import SMALL, assert_same_run, command, process

from zoo.suites import one_in

pytestmark = pytest.mark.process
QUICK = ("--eval-every", 20, "--checkpoint-every", 10)


@pytest.mark.parametrize("line", ["--help", "train --help", "train --print-config"])
def test_help_imports_neither_torch_nor_numpy(line):
    code = (
        "import sys; from ostinato_learn.cli import main; code = main(sys.argv[1:]);"
        "print(sorted({'torch', 'numpy', 'sklearn'} & set(sys.modules)), code, file=sys.stderr)"
    )
    result = python(code, *line.split())
    assert result.stderr == "[] 0\n"
    assert result.stdout


def test_every_parameter_is_a_flag():
    from ostinato_learn.jobs.inputs.config import OPTIONS

    text = process("train", "--help-all").stdout
    flags = [o.flag for o in OPTIONS.values() if o.key != "data.source"]
    flags += [
        "--output",
        "--resume",
        "--overwrite",
        "--config",
        "--set",
        "--print-config",
        "--json",
    ]
    assert [flag for flag in flags if f"{flag} " not in text] == []


def test_version():
    import ostinato

    assert process("--version").stdout == f"ostinato {ostinato.__version__}\n"


@pytest.mark.slow
def test_results_on_stdout_progress_on_stderr_without_colour(data, tmp_path):
    result = process("train", data, *SMALL, "--iterations", 2, env={**os.environ, "NO_COLOR": "1"})
    assert result.returncode == 0
    assert "accuracy on all 12 test examples" in result.stdout
    assert result.stderr.startswith("iteration      0")
    assert "\x1b" not in result.stdout + result.stderr
    assert "\r" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    one_in(3, [["--help"], ["doctor"], ["predict"]]),
)
def test_a_closed_pipe_is_quiet(arguments, trained, data):
    if arguments == ["predict"]:
        arguments = ["predict", trained, data]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write) as nobody:
        result = subprocess.run(
            command(*arguments), stdout=nobody, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert result.stderr == ""
    assert result.returncode == 141


def test_without_torch_the_command_that_installs_it_is_named(data):
    code = (
        "import sys; sys.modules['torch'] = None; from ostinato_learn.cli import main;"
        f"sys.exit(main(['train', {str(data)!r}]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert "pip install 'ostinato-learn[torch]'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "code"),
    one_in(2, [(signal.SIGTERM, 143), (signal.SIGINT, 130)], of_several=True),
)
def test_a_signal_ends_with_its_code_and_the_run_can_be_resumed(data, tmp_path, number, code):
    run = tmp_path / "run"
    started = start(data, run, 1_000_000)
    wait_for(run / "checkpoint" / "checkpoint.json")
    started.send_signal(number)
    _, err = started.communicate(timeout=60)
    assert started.returncode == code
    assert f"ostinato train --resume --output {run}" in err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_killed_at_any_moment_and_resumed_the_bits_are_the_same(ostinato, data, tmp_path):
    whole = tmp_path / "whole"
    assert ostinato(*training(data, whole, 600)).code == 0
    for i, delay in enumerate((0.05, 0.3)):
        run = tmp_path / f"killed-{i}"
        started = start(data, run, 600)
        wait_for(run / "checkpoint" / "checkpoint.json")
        time.sleep(delay)
        started.kill()
        started.communicate(timeout=60)
        assert started.returncode == -signal.SIGKILL  # it had not ended by itself
        assert ostinato("train", "--resume", "--output", run).code == 0
        assert_same_run(whole, run)


def training(data, run, iterations) -> tuple[object, ...]:
    return ("train", data, *SMALL, *QUICK, "--iterations", iterations, "--output", run)


def start(data, run, iterations) -> subprocess.Popen:
    line = command(*training(data, run, iterations))
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.005)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-c", code, *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_a_run_keeps_the_command_that_made_it(data, tmp_path):
    arguments = ("train", data, *SMALL, "--iterations", 2, "--output", tmp_path / "my run")
    assert process(*arguments).returncode == 0
    kept = json.loads((tmp_path / "my run" / "environment.json").read_text())["command"]
    assert kept == ["python", "-m", "ostinato_learn.cli", *map(str, arguments)]
    assert shlex.join(kept) in html.unescape((tmp_path / "my run" / "report.html").read_text())
