"""Mistakes that would lose something are refused before anything is done; notes and comfort."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import task_files
from cli_examples import SMALL, command, make_file, process

from ostinato_learn import environment
from ostinato_learn.cli import output
from zoo.suites import one_in

QUICK = (*SMALL, "--iterations", 3)


def altered(data: Path, name: str, **changed) -> Path:
    """A copy of a file with other arrays; None leaves one out."""
    with np.load(data) as arrays:
        content = {**arrays, **changed}
    path = data.with_name(name)
    np.savez(path, **{key: array for key, array in content.items() if array is not None})
    return path


@pytest.fixture
def arrays(data):
    with np.load(data) as archive:
        return dict(archive)


# ---- results that are written


def test_an_existing_file_is_replaced_only_when_asked(ostinato, trained, data, tmp_path):
    result = tmp_path / "predictions.csv"
    result.write_text("mine")
    refused = ostinato("predict", trained, data, "--output", result)
    assert refused.code == 2
    assert refused.err == (
        f"ostinato: {result} exists already; take another name, or --overwrite\n"
    )
    assert result.read_text() == "mine"
    assert ostinato("predict", trained, data, "--output", result, "--overwrite").code == 0
    assert result.read_text() != "mine"


def test_a_link_to_a_file_is_refused_and_then_stays_a_link(ostinato, trained, data, tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    assert ostinato("predict", trained, data, "-o", link).code == 0
    assert ostinato("predict", trained, data, "-o", link).code == 2
    assert link.is_symlink()
    assert target.read_text().startswith("index,")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone/p.csv", "there is no directory {folder}/gone; make it first"),
        ("data.npz/p.csv", "cannot be written: Not a directory"),
        ("here", "cannot be written: Is a directory"),
        ("x" * 300, "cannot be written: File name too long"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_at_once(ostinato, data, tmp_path, name, message):
    (tmp_path / "here").mkdir()
    before = sorted(tmp_path.rglob("*"))
    outcome = ostinato("predict", "no run: it is not reached", data, "-o", tmp_path / name)
    assert outcome.code == 2
    assert outcome.err.startswith(f"ostinato: {tmp_path / name}")
    assert message.format(folder=tmp_path) in outcome.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_predict_into_a_pipe_writes_to_it_and_never_replaces_it(ostinato, trained, data, tmp_path):
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()), daemon=True)
    reader.start()
    assert ostinato("predict", trained, data, "--output", pipe).code == 0
    reader.join(timeout=10)
    assert received == [ostinato("predict", trained, data, "--output", "-").out]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_run_that_cannot_be_made_is_refused_before_data_are_read(ostinato, tmp_path):
    unread = tmp_path / "unread.npz"
    unread.write_bytes(b"not read")
    (tmp_path / "file").touch()
    places = [tmp_path / "file" / "x", tmp_path / ("x" * 300)]
    places += [Path(p) for p in ("/dev/null/x", "/proc/nope") if Path(p).parent.exists()]
    before = sorted(tmp_path.rglob("*"))
    for place in places:
        outcome = ostinato("train", unread, "--output", place)
        assert outcome.code == 2
        assert outcome.err.startswith(f"ostinato: {place} cannot be made or written: ")
        assert len(outcome.err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


# ---- sizes and weights


@pytest.mark.parametrize(
    "flags",
    [("--hidden-size", 10**7), ("--layers", 10**12), ("--cell=lstm", "--hidden-size", 10**18)],
)
def test_what_the_memory_cannot_hold_is_refused_with_both_sizes(ostinato, data, tmp_path, flags):
    outcome = ostinato("train", data, *flags, "--output", tmp_path / "run")
    assert outcome.code == 2
    assert f"this machine has {environment.memory() / 1e9:,.1f} GB" in outcome.err
    assert "takes at least" in outcome.err
    assert not (tmp_path / "run").exists()


def test_the_least_memory_is_that_of_weights_and_states():
    from ostinato_learn.jobs.inputs.config import Config
    from ostinato_learn.jobs.inputs.limits import least_memory

    sizes = {"n_train": 1000, "max_length": 28, "n_features": 28, "n_classes": 10}
    weights, states = 21_514, 128 * 28 * 128  # of the notebook's network
    assert least_memory(Config(), sizes) == 4 * (3 * weights + states)
    deep = Config().updated({"model.layers": 3, "model.cell": "gru", "training.optimizer": "sgd"})
    from ostinato_learn.models import ClassifierNet

    weights = sum(w.numel() for w in ClassifierNet(28, 10, "gru", 128, 3).parameters())
    assert least_memory(deep, sizes) == 4 * (2 * weights + 3 * 3 * states)


def test_a_memory_that_turns_out_full_is_no_bug(ostinato, data, monkeypatch):
    from ostinato_learn.jobs.inputs import partition

    monkeypatch.setattr(partition, "_divided", lambda *_: bytearray(2**62))
    outcome = ostinato("train", data)
    assert outcome.code == 1
    assert outcome.err.startswith("ostinato: the memory is full")


def test_threads_beyond_reason_are_refused_with_the_number_that_is_best(ostinato, data, tmp_path):
    outcome = ostinato("train", data, "--threads", 100_000, "--output", tmp_path / "run")
    assert outcome.code == 2
    assert "--threads is 100,000; wanted at most" in outcome.err
    assert f"best {environment.cores()}" in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("up=0,down=0", "leaves 0 of the classes a weight above zero; wanted two or more"),
        ("up=0", "leaves 1 of the classes a weight above zero; wanted two or more"),
        ("up=-1", "--class-weight: up=-1; wanted a number, 0 or more"),
        ("up=nan", "up=nan; wanted a number"),
        ("up=1,down=inf", "down=inf; wanted a number"),
        ("up=1, up=2", "up is there twice"),
    ],
)
def test_weights_that_teach_nothing(ostinato, data, tmp_path, weights, message):
    outcome = ostinato(
        "train", data, *QUICK, "--class-weight", weights, "--output", tmp_path / "run"
    )
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "run").exists()


def test_one_class_of_three_may_weigh_nothing(ostinato, data, arrays):
    arrays["y"][:6] = "flat"
    three = altered(data, "three.npz", y=arrays["y"])
    assert ostinato("train", three, *QUICK, "--class-weight", "flat=0").code == 0


# ---- files


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.eye(2)[np.arange(60) % 2], "y has shape [60, 2]; wanted [60], a label for each"),
        (np.eye(2)[np.arange(60) % 2], "of one-hot rows, y.argmax(axis=1) makes such labels"),
        (np.zeros((60, 1), int), "y.ravel() makes such labels"),
        (np.ones(60, complex), "y is complex128; wanted labels as integers or strings"),
        (np.array(["a", None] * 30, object), "y is an array of Python objects"),
        (np.where(np.arange(60) % 2, 0, np.nan), "y holds numbers such as nan; wanted classes"),
    ],
)
def test_labels_of_another_form_are_refused_with_what_makes_them(
    ostinato, trained, data, y, message
):
    wrong = altered(data, "wrong.npz", y=y)
    for arguments in (("train", wrong), ("evaluate", trained, wrong)):
        outcome = ostinato(*arguments)
        assert outcome.code == 2
        assert f"{wrong}: {message}" in outcome.err or message in outcome.err
        assert str(wrong) in outcome.err


def test_labels_as_bytes_are_strings(ostinato, trained, data, arrays):
    same = altered(data, "bytes.npz", y=arrays["y"].astype("S"))
    outcomes = [ostinato("evaluate", trained, file, "--json") for file in (data, same)]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].code == 0


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "X has NaN at"), (1e300, "X has 1e+300 at"), (np.inf, "X has inf at")],
)
def test_values_that_cannot_be_used_are_named_with_their_file(
    ostinato, trained, data, arrays, value, message
):
    X = arrays["X"].astype(np.float64)
    X[3, 1, 0] = value
    wrong = altered(data, "wrong.npz", X=X)
    for arguments in (
        ("train", wrong),
        ("train", data, "--test", wrong),
        ("evaluate", trained, wrong),
        ("predict", trained, wrong),
    ):
        outcome = ostinato(*arguments)
        assert outcome.code == 2
        assert f"{wrong}: {message} example 3, step 1, feature 0" in outcome.err


def test_features_and_labels_of_a_file_that_do_not_fit_the_model(ostinato, trained, data, arrays):
    wide = altered(data, "wide.npz", X=np.zeros((60, 5, 7)))
    for name in ("predict", "evaluate"):
        outcome = ostinato(name, trained, wide)
        assert outcome.code == 2
        assert f"{wide}: X has 7 features a step; wanted 2" in outcome.err
    other = altered(data, "other.npz", y=np.char.upper(arrays["y"]))
    assert f"{other}: y has the label 'UP'" in ostinato("evaluate", trained, other).err
    assert ostinato("predict", trained, other).code == 0


def test_arrays_that_are_ignored_are_named_unless_quiet(ostinato, trained, data):
    more = altered(data, "more.npz", Y=np.zeros(60), lengths=np.full(60, 5))
    note = f"ostinato: {more}: ignored the arrays Y, lengths\n"
    assert ostinato("predict", trained, more).err == note
    assert ostinato("predict", trained, more, "--quiet").err == ""
    assert ostinato("evaluate", trained, more).err == note  # quiet was for one command


def test_test_examples_that_are_learnt_from_are_reported(ostinato, data, arrays, tmp_path):
    copied = altered(data, "copied.npz", X=arrays["X"][::-1], y=arrays["y"][::-1])
    half = altered(data, "half.npz", X=np.r_[arrays["X"][:3], arrays["X"][:57] + 9])
    other = make_file(tmp_path / "other.npz", n=10)
    with np.load(other) as content:
        other = altered(other, "other.npz", X=content["X"] + 1)
    for test, shown in (
        (data, "60 of 60"),
        (copied, "60 of 60"),
        (half, "3 of 60"),
        (other, None),
    ):
        outcome = ostinato("train", data, "--test", test, *QUICK)
        assert outcome.code == 0
        notes = [line for line in outcome.err.splitlines() if line.startswith("ostinato: ")]
        if shown is None:
            assert not notes
        else:
            (note,) = [note for note in notes if "test sequences are training sequences" in note]
            assert f"{data}: {shown} (" in note


# ---- standard input, quiet, help


def test_predict_and_evaluate_read_standard_input(ostinato, trained, data, tmp_path):
    ts = tmp_path / "data.ts"
    with np.load(data) as arrays:
        lines = [
            ":".join(",".join(map(repr, column.tolist())) for column in x.T) + f":{y}"
            for x, y in zip(arrays["X"], arrays["y"], strict=True)
        ]
    ts.write_text("\n".join(["@classLabel true down up", "@data", *lines]))
    wanted = ostinato("predict", trained, data).out
    for file in (data, ts):
        with file.open("rb") as content:
            result = subprocess.run(
                command("predict", trained, "-"), stdin=content, capture_output=True, text=True
            )
        assert (result.stdout, result.stderr, result.returncode) == (wanted, "", 0)


def test_standard_input_that_is_nothing_or_closed(ostinato, trained, monkeypatch):
    with Path(os.devnull).open() as nothing, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", nothing)
        outcome = ostinato("evaluate", trained, "-")
        assert outcome.code == 2
        assert "standard input: the file is empty" in outcome.err
        patch.setattr(sys, "stdin", None)
        outcome = ostinato("predict", trained, "-")
        assert outcome.code == 2
        assert "standard input is closed" in outcome.err


def test_training_on_standard_input_is_refused_with_the_reason(ostinato):
    outcome = ostinato("train", "-")
    assert outcome.code == 2
    assert "wanted a file: a resumed run reads it again" in outcome.err


def test_quiet_leaves_the_results(ostinato, data, tmp_path):
    outcome = ostinato("train", data, *QUICK, "-q", "-o", tmp_path / "run")
    assert outcome.err == ""
    assert "accuracy on all 12 test examples" in outcome.out
    assert "always the most frequent class" in outcome.out
    assert (tmp_path / "run" / "evaluation.json").is_file()
    assert ostinato("train", data, "-q", "--hidden-size", 0).err  # errors stay


def test_the_most_frequent_class_is_shown_beside_the_accuracy(ostinato, trained, data, arrays):
    result = json.loads((trained / "evaluation.json").read_text())["test"]
    assert result["most_frequent_class"] == 0.5
    y = np.where(np.arange(60) < 45, "up", "down")
    uneven = altered(data, "uneven.npz", y=y)
    assert (
        json.loads(ostinato("evaluate", trained, uneven, "--json").out)["most_frequent_class"]
        == 0.75
    )


def test_help_has_a_heading_for_each_section(ostinato):
    from ostinato_learn.jobs.inputs.config import OPTIONS, SECTIONS

    text = ostinato("train", "--help-all").out
    blocks = text.split("\n[")
    assert [block.split("]")[0] for block in blocks[1:]] == list(SECTIONS)
    for block in blocks[1:]:
        section = block.split("]")[0]
        flags = [word for word in block.split() if word.startswith("--")]
        wanted = {o.flag for o in OPTIONS.values() if o.section == section}
        wanted -= {"--source"}
        assert wanted <= set(flags)
    assert "--output" in blocks[0]


@pytest.mark.parametrize("command", ["train", "cv", "tune"])
def test_the_first_help_is_short_and_names_the_other(ostinato, command):
    short, whole = (ostinato(command, flag).out for flag in ("--help", "--help-all"))
    first, every = (
        {word for word in text.split() if word.startswith("--")} for text in (short, whole)
    )
    wanted = {"--classify", "--regress", "--id", "--group", "--na", "--separator", "--output"}
    wanted |= {"--no-bidirectional", "--help", "--help-all"}
    wanted |= {"--decimal", "--encoding", "--sort", "--repeated", "--missing"}  # of files
    assert wanted <= first < every
    assert ("--dry-run" in first) == (command == "train")
    assert len(first) <= 33 and len(every) > 60
    refused = ostinato(command, "--no-such-flag")
    assert refused.code == 2 and f"(see ostinato {command} --help)" in refused.err


def test_no_command_is_described_by_half_a_sentence(ostinato, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    commands = ostinato("-h").out.split("Commands:")[1].splitlines()[1:]
    assert len(commands) > 10
    assert [line for line in commands if line.endswith("...")] == []


def test_the_short_flags(ostinato):
    assert ostinato("-V").out == ostinato("--version").out


@pytest.mark.process
def test_a_shell_asks_the_command_for_completions():
    # Typer looks for the shell among the parents, of which a test may have none.
    named = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = process("--show-completion", "bash", env=named)
    assert script.returncode == 0
    assert "_OSTINATO_COMPLETE=complete_bash" in script.stdout


COMPLETED = [
    ("ostinato train --hidden", "--hidden-size"),
    ("ostinato pre", "predict"),
    ("ostinato train m", "mnist"),
    ("ostinato train mnist --cell l", "lstm"),
]


@pytest.mark.process
@pytest.mark.parametrize(("words", "wanted"), one_in(3, COMPLETED, of_several=True))
def test_a_shell_completes_commands_flags_and_values(words, wanted):
    environ = {
        **os.environ,
        "_OSTINATO_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    completed = process(env=environ)
    assert completed.stdout.split() == [wanted], completed.stderr


def test_a_terminal_without_unicode_gets_ascii(monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    output.say("97.5 % ± 0.3 … ☂")
    stdout.flush()
    assert stdout.buffer.getvalue() == b"97.5 % +- 0.3 ... ?\n"


@pytest.mark.parametrize(
    "command, missing, extras",
    [
        ("train", ["pyarrow", "torch"], ["tables", "torch"]),
        ("cv", ["pyarrow", "sklearn"], ["tables", "torch"]),
        ("tune", ["pyarrow", "torch", "optuna"], ["tables", "tune"]),
        ("tune", ["optuna", "torch"], ["tune"]),
        ("train", ["pyarrow"], ["tables"]),
        ("check", ["pyarrow", "torch"], ["tables"]),
    ],
)
def test_one_command_installs_all_that_is_missing(
    ostinato, tmp_path, monkeypatch, command, missing, extras
):
    arguments = task_files.tag(tmp_path)
    for package in missing:
        monkeypatch.setitem(sys.modules, package, None)
    outcome = ostinato(command, *arguments)
    assert outcome.code == 2
    wanted = " ".join(f"'ostinato-learn[{extra}]'" for extra in extras)
    assert outcome.err.rstrip().endswith(f"pip install {wanted}")
