"""`train --from RUN`: a network goes on as it was, on data of other scales and other words."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_examples import assert_same_run
from task_files import KINDS, QUICK

from ostinato_learn import SequenceClassifier, training
from ostinato_learn import load as ostinato_load
from ostinato_learn.cli import main
from ostinato_learn.jobs.inputs.config import tomllib

UNMOVED = ("--iterations", 1, "--learning-rate", 1e-30, "--optimizer", "sgd", "--threads", 1)


def events(folder: Path, words=("open", "shut", "wait"), scale=1.0) -> tuple[object, ...]:
    """Sequences to classify by a number and a name; a value of each is missing."""
    generator = np.random.default_rng(7)
    lines = ["id,t,a,what,kind"]
    for i in range(30):
        for t in range(5):
            a = "" if t == i % 5 else f"{scale * (i % 2 + generator.normal(0, 0.2)):.4f}"
            what = "" if t == (i + 1) % 5 else words[generator.integers(len(words))]
            lines.append(f"s{i},{t},{a},{what},{'up' if i % 2 else 'down'}")
    path = folder / "events.csv"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    columns = ("--id", "id", "--time", "t", "--features", "a,what")
    return (path, "--classify", "kind", *columns)


def changed(kind: str, folder: Path) -> Path:
    """The file of a kind with numbers of another scale and other names."""
    if kind == "events":
        return Path(str(events(folder, ("ajar", "open", "wait", "zoom"), scale=40.0)[0]))
    path = Path(str(KINDS[kind](folder)[0]))
    if path.suffix == ".txt":
        path.write_text(path.read_text().replace("mat", "bat"))
    elif path.suffix == ".csv":
        header, *lines = [line.split(",") for line in path.read_text().splitlines()]
        scaled = [i for i, name in enumerate(header) if name in ("a", "b", "value")]
        for line in lines:
            for i in scaled:
                line[i] = f"{9 * float(line[i]) + 4:.4f}"
        path.write_text("\n".join(",".join(line) for line in [header, *lines]) + "\n")
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        other = {"old": "aged", "n1": "m1"}
        rows = parquet.read_table(path).to_pylist()
        for row in rows:
            row["word"] = [other.get(word, word) for word in row["word"]]
            for name in {"past", "price"} & row.keys():
                row[name] = [None if value is None else 3 * value + 1 for value in row[name]]
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    return path


@pytest.fixture(scope="module")
def origins(tmp_path_factory) -> Path:
    """A folder with a run of each kind, and with its file."""
    pytest.importorskip("pyarrow")
    folder, threads = tmp_path_factory.mktemp("origins"), torch.get_num_threads()
    for kind, make in {**KINDS, "events": events}.items():
        (folder / f"{kind}.files").mkdir()
        missing = ("--missing", "mask") if kind == "events" else ()
        arguments = (*make(folder / f"{kind}.files"), *missing, *QUICK, "--quiet")
        assert main([str(a) for a in ("train", *arguments, "-o", folder / kind)]) == 0
    torch.set_num_threads(threads)
    return folder


def flags_of(kind: str, folder: Path) -> tuple[object, ...]:
    """The flags of a kind without its file, horizon and season."""
    flags = list((events if kind == "events" else KINDS[kind])(folder)[1:])
    for known in ("--horizon", "--season"):
        if known in flags:
            del flags[flags.index(known) : flags.index(known) + 2]
    return tuple(flags)


@pytest.mark.parametrize("kind", [*KINDS, "events"])
def test_what_has_not_learnt_anything_new_answers_as_before(ostinato, origins, tmp_path, kind):
    flags = flags_of(kind, tmp_path)
    file, run = changed(kind, tmp_path), tmp_path / "run"
    outcome = ostinato("train", file, *flags, "--from", origins / kind, *UNMOVED, "-o", run)
    assert outcome.code == 0, outcome.err
    if kind in ("language",):
        answers = [ostinato("complete", of, "the cat").out for of in (origins / kind, run)]
    else:
        every = () if kind == "regress" else ("--proba",)  # which is for quantiles
        answers = [ostinato("predict", of, file, *every).out for of in (origins / kind, run)]
    assert answers[0] == answers[1] != ""


@pytest.mark.parametrize("kind", [*KINDS, "events"])
def test_an_origin_knows_the_columns(ostinato, origins, tmp_path, kind):
    flags = flags_of(kind, tmp_path)
    file, start = changed(kind, tmp_path), ("--from", origins / kind)
    with_flags = ostinato("train", file, *start, *flags, "--print-config")
    length = ("--truncate", 16) if kind == "language" else ()
    without = ostinato("train", file, *start, *length, "--print-config")
    assert (with_flags.code, without.code) == (0, 0), without.err
    assert without.out == with_flags.out


def test_other_columns_may_be_asked_for(ostinato, origins, tmp_path):
    path, *_ = KINDS["classify"](tmp_path)
    text = Path(str(path)).read_text()
    path.write_text(text.replace("id,person,t,a,b,kind", 'nr,person,t,a,b,"up, or not"'))
    flags = ("--id", "nr", "--classify", '"up, or not"', "--iterations", 1)
    outcome = ostinato("train", path, *flags, "--from", origins / "classify", "-o", tmp_path / "1")
    assert outcome.code == 0, outcome.err
    again = ostinato("train", path, "--from", tmp_path / "1", "--print-config")
    assert again.code == 0, again.err
    data, task = (tomllib.loads(again.out)[section] for section in ("data", "task"))
    assert (data["id"], data["features"], task["classify"]) == ("nr", "a,b", '"up, or not"')


def test_an_interrupted_run_does_not_need_its_origin(ostinato, origins, tmp_path, monkeypatch):
    flags = flags_of("words", tmp_path)
    file, origin = changed("words", tmp_path), tmp_path / "origin"
    shutil.copytree(origins / "words", origin)
    flags = (file, *flags, "--from", origin, "--iterations", 20, "--threads", 1)
    assert ostinato("train", *flags, "-o", tmp_path / "whole").code == 0

    def stop(self, run):
        if run.iteration == 13:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(training.Progress, "on_iteration", stop)
        assert ostinato("train", *flags, "-o", tmp_path / "broken").code == 130
    shutil.rmtree(origin)
    assert ostinato("train", "--resume", "-o", tmp_path / "broken").code == 0
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
    begun = ostinato("train", *flags, "--overwrite", "-o", tmp_path / "broken")
    assert (begun.code, "origin: no such run or model" in begun.err) == (2, True)


def test_a_dry_run_names_the_origin(ostinato, origins, tmp_path):
    path, *flags = KINDS["tag"](tmp_path)
    shown = ostinato("train", path, *flags, "--from", origins / "tag", "--dry-run").out
    assert f"the weights of {origins / 'tag'}\n" in shown
    assert "lstm, 4 units" in shown


def test_a_run_that_is_overwritten_may_be_its_own_origin(ostinato, origins, tmp_path):
    path, *flags = KINDS["classify"](tmp_path)
    shutil.copytree(origins / "classify", tmp_path / "run")
    before = ostinato("predict", tmp_path / "run", path, "--proba").out
    for _ in range(2):
        outcome = ostinato(
            "train",
            path,
            *flags,
            "--from",
            tmp_path / "run",
            *UNMOVED,
            "--overwrite",
            "-o",
            tmp_path / "run",
        )
        assert outcome.code == 0, outcome.err
    assert ostinato("predict", tmp_path / "run", path, "--proba").out == before


def test_fewer_labels_than_the_origin_knows_may_be_learnt(ostinato, origins, tmp_path):
    path, *flags = KINDS["classify"](tmp_path)
    text = Path(str(path)).read_text()
    three = tmp_path / "three.csv"
    three.write_text(text + "".join(f"x{i},p{i},0,5,5,still\n" for i in range(8)))
    assert ostinato("train", three, *flags, *QUICK, "-o", tmp_path / "three").code == 0
    outcome = ostinato(
        "train", path, *flags, "--from", tmp_path / "three", *UNMOVED, "-o", tmp_path / "two"
    )
    assert outcome.code == 0, outcome.err
    answers = [ostinato("predict", tmp_path / run, path, "--proba").out for run in ("two", "three")]
    assert answers[0] == answers[1]
    refused = ostinato("train", three, *flags, "--from", origins / "classify", *UNMOVED)
    assert refused.code == 2
    assert "y has the label 'still', which was not trained; wanted one of 'down'" in refused.err


@pytest.mark.parametrize(
    ("kind", "flags", "message"),
    [
        ("classify", ("--features", "a"), "reads the features 'a', 'b', and the data have 'a'"),
        ("events", ("--missing", "fill"), "data.missing is fill, but the weights from"),
        ("tag", ("--crf",), "task.crf is True, but the weights from"),
        ("forecast", ("--horizon", 3), "task.horizon is 3, but the weights from"),
        ("inputs", ("--known", "past,price"), "reads the features 'past', 'word', 'price', 'size'"),
        ("language", ("--level", "word"), "task.level is word, but the weights from"),
    ],
)
def test_what_does_not_fit_the_origin_is_refused(ostinato, origins, tmp_path, kind, flags, message):
    given = (*flags_of(kind, tmp_path), *flags)
    file = changed(kind, tmp_path)
    before = set(tmp_path.iterdir())
    outcome = ostinato(
        "train", file, *given, "--from", origins / kind, *UNMOVED, "-o", tmp_path / "run"
    )
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    assert set(tmp_path.iterdir()) == before


def test_the_model_of_another_task_is_refused(ostinato, origins, tmp_path):
    path, *flags = KINDS["tag"](tmp_path)
    outcome = ostinato("train", path, *flags, "--from", origins / "classify", *UNMOVED)
    assert outcome.code == 2
    assert "has the task classify; this is tag" in outcome.err
    text = KINDS["language"](tmp_path)[0]
    outcome = ostinato("train", text, "--from", origins / "classify", *UNMOVED)
    assert outcome.code == 2
    assert "has the task classify; this is language" in outcome.err


@pytest.mark.parametrize("kind", ["classify", "tag", "labels"])
def test_a_model_of_the_command_line_goes_on_in_python(origins, kind):
    model = ostinato_load(origins / kind / "model")
    X = np.random.default_rng(3).normal(5, 9, (12, 4, model.n_features_in_))
    answers = model.predict_proba(X)
    if kind == "tag":
        y: object = [np.resize(model.classes_, 4)] * 12
    elif kind == "labels":
        y = np.eye(2, dtype=int)[np.arange(12) % 2]
    else:
        y = np.resize(model.classes_, 12)
    model.set_params(warm_start=True, iterations=1, learning_rate=1e-30, optimizer="sgd")
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), answers)


def of_python(kind, folder):
    """A model that was fitted to arrays, or texts, in Python; and a table to go on with."""
    if kind == "arrays":
        X = np.random.default_rng(0).normal(size=(12, 6, 2))
        model = SequenceClassifier(hidden_size=4, iterations=3).fit(X, ["up", "down"] * 6)
        table = KINDS["classify"](folder)
    else:
        texts = [f"{word} film" for word in ("good", "bad", "fine", "poor")] * 5
        model = SequenceClassifier(hidden_size=4, iterations=3).fit(texts, ["up", "down"] * 10)
        table = (folder / "texts.csv", "--classify", "kind", "--features", "text")
        rows = [f"{text},{'down' if i % 2 else 'up'}" for i, text in enumerate(texts)]
        table[0].write_text("\n".join(["text,kind", *rows]) + "\n")
    model.save(folder / "python")
    return folder / "python", table


@pytest.mark.parametrize("kind", ["arrays", "texts"])
def test_a_model_of_python_goes_on_with_a_table(ostinato, tmp_path, kind):
    origin, (path, *flags) = of_python(kind, tmp_path)
    given = (path, *flags, "--from", origin, *UNMOVED)
    outcome = ostinato("train", *given, "-o", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    answers = ostinato("predict", tmp_path / "run", path, "--proba").out
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["data"]["standardize"] == (kind == "arrays")  # as the model in Python
    assert config["data"]["missing"] == "error"
    refused = ostinato("train", *given, "--missing", "fill")
    assert (refused.code, "data.missing is fill, but the weights" in refused.err) == (2, True)
    if kind == "arrays":  # its columns now have names
        header, *lines = path.read_text().splitlines()
        order = [header.split(",").index(c) for c in ("id", "person", "t", "b", "a", "kind")]
        rows = [",".join(line.split(",")[i] for i in order) for line in (header, *lines)]
        path.write_text("\n".join(rows) + "\n")
    assert ostinato("predict", tmp_path / "run", path, "--proba").out == answers != ""


def test_arrays_and_tables_go_on_with_each_other(ostinato, origins, tmp_path):
    """Features of arrays have no names: they are taken in their order."""
    X = np.random.default_rng(0).normal(size=(12, 6, 2)).astype(np.float32)
    np.savez(tmp_path / "a.npz", X=X, y=["up", "down"] * 6)
    flags = ("--from", origins / "classify", *UNMOVED, "-o", tmp_path / "of arrays")
    assert ostinato("train", tmp_path / "a.npz", *flags).code == 0
    answers = [
        [line.split(",")[-2:] for line in ostinato("predict", run, tmp_path / "a.npz").out.split()]
        for run in (origins / "classify", tmp_path / "of arrays")
    ]
    assert answers[0] == answers[1] != []
    path, *flags = KINDS["classify"](tmp_path)
    again = (path, *flags, "--from", tmp_path / "of arrays", *UNMOVED, "-o", tmp_path / "table")
    assert ostinato("train", *again).code == 0
    runs = (origins / "classify", tmp_path / "table")
    answers = [ostinato("predict", run, path, "--proba").out for run in runs]
    assert answers[0] == answers[1] != ""
