"""`ostinato stream` as a process of its own: pipes, signals, kills, and what it imports."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cli_examples import command

from ostinato_learn import runtime

pytestmark = pytest.mark.process
HEADER = b"device,step,prediction,probability\n"


def started(run, *arguments, **options):
    return subprocess.Popen(command("stream", run, *arguments), stdout=subprocess.PIPE, **options)


def rows(n, n_keys=7):
    chosen = random.Random(0)
    numbers = (f"{chosen.gauss(0, 1):.3f},{chosen.gauss(0, 1):.3f}" for _ in range(n))
    return [f"device {chosen.randrange(n_keys)},{each}\n" for each in numbers]


def answer_in(process, seconds=20):
    """The next line of output, without waiting for more."""
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    assert ready, "no answer came"
    return process.stdout.readline()


def fed(run, *flags):
    return started(
        run,
        "-",
        "--key",
        "device",
        *flags,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )


def test_an_answer_comes_at_once_and_not_for_half_a_line(trained):
    process = fed(trained)
    process.stdin.write(b"device,x,y\na,1,2\n")
    assert answer_in(process) == HEADER
    assert answer_in(process).startswith(b"a,1,up,")
    process.stdin.write(b"b,1,")
    assert not select.select([process.stdout], [], [], 0.3)[0]
    process.stdin.write(b"2\nb,")
    assert answer_in(process).startswith(b"b,1,up,")
    process.stdin.close()
    process.stdout.close()
    assert process.wait(20) == 2  # "b," is no row
    assert b"line 4: there are 2 fields; wanted 3" in process.stderr.read()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.slow
def test_a_signal_saves_what_was_answered(trained, tmp_path, number, code):
    """A pipe cannot be read twice: what was answered before the signal is in the state."""
    flags = ("--state", tmp_path / "state", "--state-every", 1000)
    process = fed(trained, *flags)
    process.stdin.write(b"device,x,y\na,1,2\n")
    assert [answer_in(process) for _ in range(2)][1].startswith(b"a,1,")
    process.send_signal(number)
    assert process.wait(20) == code
    again = fed(trained, *flags)
    again.stdin.write(b"a,1,2\n")  # as `tail -F` goes on
    assert answer_in(again).startswith(b"a,2,up,")
    again.stdin.close()
    assert again.wait(20) == 0
    third = fed(trained, *flags)
    third.stdin.write(b"device,x,y\na,1,2\n")  # the header again
    assert answer_in(third).startswith(b"a,3,up,")
    third.stdin.close()
    assert third.wait(20) == 0


@pytest.mark.slow
def test_a_signal_while_nobody_reads(trained, tmp_path):
    """The command ends though its answers wait for a reader; they come again the next time."""
    file, flags = tmp_path / "rows.csv", ("--key", "device", "--state", tmp_path / "state")
    file.write_text("device,x,y\n" + "".join(rows(20_000)))
    unbroken = started(trained, file, "--key", "device").communicate()[0]
    process = started(trained, file, *flags, stderr=subprocess.PIPE)
    begun = process.stdout.read(100)
    time.sleep(2)  # until the pipe is full
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    first = begun + process.stdout.read()
    assert first.endswith(b"\n")
    second = started(trained, file, *flags).communicate()[0]
    kept = list(dict.fromkeys((first + second).splitlines()))
    assert kept == list(dict.fromkeys(unbroken.splitlines()))


@pytest.mark.slow
def test_an_idle_pipe_is_saved(trained, tmp_path):
    flags = ("--state", tmp_path / "state", "--state-every", 0.2)
    process = fed(trained, *flags)
    process.stdin.write(b"device,x,y\na,1,2\n")
    answer_in(process)
    answer_in(process)
    deadline = time.monotonic() + 20
    while not (tmp_path / "state").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    again = fed(trained, *flags)
    again.stdin.write(b"a,1,2\n")
    assert answer_in(again).startswith(b"a,2,up,")
    again.kill()


@pytest.mark.slow
def test_a_reader_that_leaves(trained, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("device,x,y\n" + "".join(rows(50_000)))
    process = started(trained, file, "--key", "device", stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == b""


KILLS = 20


@pytest.mark.slow
def test_twenty_kills(trained, tmp_path):
    """kill -9 at random moments: the answers are those of an unbroken run, some of them twice."""
    file, state = tmp_path / "rows.csv", tmp_path / "state"
    file.write_text("device,x,y\n" + "".join(rows(120_000)))
    unbroken = started(trained, file, "--key", "device").communicate()[0]
    assert unbroken.count(b"\n") == 120_001
    chosen = random.Random(1)
    output, kills = [], 0
    while True:
        process = started(
            trained, file, "--key", "device", "--state", state, "--state-every", 0.002
        )
        # Twenty of these, and as many full pipes of 64 KB, are less than the 2.6 MB of all answers.
        enough = chosen.randrange(1, len(unbroken) // 60)
        came = bytearray()
        while len(came) < enough or kills >= KILLS:
            piece = os.read(process.stdout.fileno(), chosen.choice([100, 4096, 1 << 16]))
            if not piece:
                break
            came += piece
        else:
            time.sleep(chosen.uniform(0, 0.15))  # it may be waiting for room in the pipe
            process.kill()
            kills += 1
        while piece := process.stdout.read(1 << 16):
            came += piece  # what was in the pipe when it was killed
        output.append(bytes(came))
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert kills == KILLS
    assert all(piece.endswith(b"\n") or not piece for piece in output)
    seen, kept = set(), []
    for line in b"".join(output).splitlines(keepends=True):
        key_and_step = tuple(line.split(b",")[:2])
        if key_and_step not in seen:
            seen.add(key_and_step)
            kept.append(line)
    assert b"".join(kept) == unbroken


@pytest.mark.slow
def test_it_runs_without_torch(trained):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from ostinato_learn.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "stream", str(trained), "-"],
        input=b"x,y\n1,2\n",
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"step,prediction,probability\n1,up,")


@pytest.mark.slow
def test_answers_are_those_of_predict(trained, tmp_path):
    """To the sequence of each key so far, bit for bit as far as digits are shown."""
    lines = rows(200, n_keys=3)
    file = tmp_path / "rows.csv"
    file.write_text("device,x,y\n" + "".join(lines))
    output = started(trained, file, "--key", "device").communicate()[0].decode().splitlines()[1:]
    model = runtime.load(trained / "model")
    so_far = {}
    for line, shown in zip(lines, output, strict=True):
        key, *values = line.split(",")
        so_far.setdefault(key, []).append([float(v) for v in values])
        X = np.array([so_far[key]], np.float32)
        proba = model.predict_proba(X)[0]
        label = model.labels[proba.argmax()]
        assert shown == f"{key},{len(so_far[key])},{label},{proba.max():.6f}"
