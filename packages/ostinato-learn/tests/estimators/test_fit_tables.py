"""`fit` of a table: names are coded by the model, and the bits are those of the command line."""

from __future__ import annotations

from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
import torch

import ostinato_learn as package
from ostinato_learn import runtime
from ostinato_learn.cli import main
from ostinato_learn.data import Examples, read_examples

pa = pytest.importorskip("pyarrow")

SMALL = {"hidden_size": 4, "batch_size": 8, "iterations": 12}
FLAGS = ("--hidden-size", 4, "--batch-size", 8, "--iterations", 12, "--threads", 1)


def frame(path: Path):
    """The table of a CSV file in memory, with numbers where columns hold them."""
    from pyarrow import csv as reader

    return reader.read_csv(path)


def rows_of(n: int, steps: int = 6, wards: str = "AB", first: int = 0, seed: int = 0) -> list[str]:
    """Stays whose ward decides everything; a row is a step."""
    generator = np.random.default_rng(seed)
    lines = ["stay,t,ward,pulse,outcome,score"]
    for i in range(first, first + n):
        ward = wards[i % len(wards)]
        values = generator.normal(size=steps) + 2 * (ward == "A")
        for t, value in enumerate(values):
            outcome = "home" if ward == "A" else "stay"
            lines.append(f"s{i},{t},{ward},{value:.4f},{outcome},{values.sum():.3f}")
    return lines


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def stays(tmp_path) -> tuple[Path, Path]:
    """A file to learn from, and one to test on, with the stays of one ward alone."""
    train = write(tmp_path / "train.csv", rows_of(48))
    return train, write(tmp_path / "test.csv", rows_of(12, wards="B", first=100, seed=1))


ROLES = {"id": "stay", "time": "t", "features": ("ward",), "task": "classify"}


@pytest.mark.parametrize("how", ["X", "examples"])
def test_names_are_coded_by_the_model_not_by_each_file(stays, how):
    a, b = (read_examples(path, target="outcome", **ROLES) for path in stays)
    assert a.categories != b.categories  # B is 1 in the one file, and 0 in the other
    model = package.SequenceClassifier(hidden_size=8, iterations=60)
    given = (lambda each: each.X) if how == "X" else (lambda each: each)
    model.fit(given(a), a.y)
    assert model.score(given(a), a.y) == 1.0
    assert model.score(given(b), b.y) == 1.0


def test_codes_are_no_numbers(stays):
    X = read_examples(stays[0], target="outcome", **ROLES).X
    refused = (
        lambda: X + 1,
        lambda: X == X,
        lambda: np.asarray(X),
        lambda: np.isfinite(X),
        lambda: X.mean(),
        lambda: torch.as_tensor(X),
    )
    for each in refused:
        with pytest.raises((TypeError, AttributeError, ValueError)):
            each()
    assert X[0].ravel().tolist() == ["A"] * 6  # shown by their names
    numbers = np.zeros((4, 6, 1), np.float32)
    for scaled, said in ((True, "ward"), (False, "names")):
        model = package.SequenceClassifier(iterations=2, standardize=scaled)
        with pytest.raises((TypeError, ValueError), match=said):
            model.fit(numbers, [0, 1, 0, 1]).predict(X)


def test_names_that_were_not_learnt_are_unknown(stays, tmp_path, caplog):
    model = package.SequenceClassifier(**SMALL).fit(
        stays[0], label="outcome", id="stay", features=["ward", "pulse"]
    )
    other = write(tmp_path / "c.csv", rows_of(4, wards="CB"))
    assert len(model.predict(other)) == 4
    assert "12 values of 'ward'" in caplog.text and "'C'" in caplog.text


def test_texts_are_coded_by_the_model(tmp_path):
    good, bad = ["so very good"] * 9 + ["good and fine"] * 9, ["quite bad"] * 9 + ["bad bad"] * 9
    path = tmp_path / "texts.csv"
    lines = ["text,kind", *(f"{t},good" for t in good), *(f"{t},bad" for t in bad)]
    a = read_examples(write(path, lines), target="kind", task="classify", shape="wide")
    b = read_examples(
        write(path, ["text,kind", "bad day,bad", "good day,good"]),
        target="kind",
        task="classify",
        shape="wide",
    )
    model = package.SequenceClassifier(hidden_size=8, iterations=80).fit(a.X, a.y)
    assert model.score(b.X, b.y) == 1.0


def test_a_word_that_a_sequence_has_once_is_found_by_its_name(tmp_path):
    generator = np.random.default_rng(0)

    def shop(names: list[str]) -> list[str]:
        lines = ["shop,t,sort,sales"]
        for i, name in enumerate(names):
            level = {"big": 100, "small": 10}[name]
            lines += [f"{i},{t},{name},{level + generator.normal():.3f}" for t in range(30)]
        return lines

    roles = {"id": "shop", "time": "t", "static": "sort"}
    train = write(tmp_path / "a.csv", shop(["big", "small"] * 4))
    model = package.SequenceForecaster(horizon=2, hidden_size=4, iterations=4)
    model.fit(train, label="sales", **roles)
    both = write(tmp_path / "b.csv", shop(["small", "big"]))
    lines = both.read_text().splitlines()
    alone = write(tmp_path / "c.csv", [lines[0], *lines[1:31]])
    assert (model.predict(both)[0] == model.predict(alone)[0]).all()


def trained(folder: Path, *arguments: object) -> Path:
    threads = torch.get_num_threads()
    code = main([str(a) for a in ("train", *arguments, *FLAGS, "--output", folder / "run", "-q")])
    torch.set_num_threads(threads)
    assert code == 0
    return folder / "run"


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TASKS = {
    "classify": (package.SequenceClassifier, "outcome", "predict_proba"),
    "tag": (package.SequenceTagger, "ward", "predict_proba"),
    "regress": (package.SequenceRegressor, "score", "predict"),
}


@pytest.mark.parametrize("fraction", [0.0, 0.25])
@pytest.mark.parametrize("task", list(TASKS))
def test_same_bits_as_the_command_line(task, fraction, stays, tmp_path, one_thread):
    kind, label, answer = TASKS[task]
    train, test = stays[0], write(tmp_path / "both.csv", rows_of(16, first=100, seed=1))
    features = "pulse" if task == "tag" else "ward,pulse"
    run = trained(
        tmp_path,
        train,
        "--test",
        test,
        f"--{task}",
        label,
        "--id",
        "stay",
        "--time",
        "t",
        "--features",
        features,
        "--validation-fraction",
        fraction,
    )
    for given in (train, frame(train)):
        model = kind(**SMALL, validation_fraction=fraction).fit(
            given, label=label, id="stay", time="t", features=features.split(",")
        )
        ours = getattr(model, answer)(frame(test))
        theirs = getattr(package.load(run), answer)(test)
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert model.score(test) == model.score(frame(test))
    kept = tmp_path / "kept"
    model.save(kept)
    again = runtime.load(kept)
    theirs = getattr(again, answer)(frame(test))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def series(folder: Path, steps: int = 60) -> tuple[Path, Path]:
    """Series whose weekday is known ahead; all of them, and without their last ten steps."""
    generator, lines, short = np.random.default_rng(2), ["shop,t,day,sales"], ["shop,t,day,sales"]
    for i in range(4):
        wave = np.tile([0.0, 1.0, 0.0, -1.0], steps)[:steps] * (1 + i)
        for t, value in enumerate(wave + generator.normal(0, 0.1, steps)):
            line = f"s{i},{t},{t % 4},{value:.4f}"
            lines.append(line)
            short += [line] * (t < steps - 10)
    return write(folder / "all.csv", lines), write(folder / "short.csv", short)


def test_same_bits_of_forecasts(tmp_path, one_thread):
    whole, short = series(tmp_path)  # the command line keeps five horizons for its test
    run = trained(
        tmp_path,
        whole,
        "--forecast",
        "sales",
        "--horizon",
        2,
        "--id",
        "shop",
        "--time",
        "t",
        "--features",
        "day",
        "--known",
        "day",
    )
    model = package.SequenceForecaster(horizon=2, **SMALL).fit(
        frame(short), forecast="sales", id="shop", time="t", features=["day"], known="day"
    )
    lines = short.read_text().splitlines()
    ahead = [
        line
        for i in range(4)
        for line in (*lines[1 + 50 * i : 51 + 50 * i], f"s{i},50,2,", f"s{i},51,3,")
    ]
    later = write(tmp_path / "later.csv", [lines[0], *ahead])
    ours = model.predict_quantiles(frame(later))
    assert np.array_equal(ours, package.load(run).predict_quantiles(later))
    assert np.array_equal(model.predict(later), ours[:, :, 4])
    assert model.evaluate(whole)["n"] == 8
    assert "last value" in model.baselines(whole)


def test_same_bits_of_texts(tmp_path, one_thread):
    words = np.random.default_rng(3).choice(["the", "cat", "sat", "on", "a", "mat"], (40, 12))
    lines = ["number,text", *(f"{i},{' '.join(row)}" for i, row in enumerate(words))]
    train = write(tmp_path / "train.csv", lines)
    test = write(tmp_path / "test.csv", lines[:6])
    run = trained(tmp_path, train, "--test", test, "--language", "text", "--truncate", 16)
    model = package.LanguageModel(**SMALL, truncate=16).fit(frame(train), language="text")
    measured = package.load(run).evaluate(test, label="text")
    assert model.evaluate(frame(test)) == measured
    assert model.predict(test).tolist() == package.load(run).predict(test).tolist()


def test_answers_come_by_id(stays, tmp_path):
    """Rows in another order, and columns too, change nothing but the order of the answers."""
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(stays[0])
    roles = {"label": "outcome", "id": "stay", "time": "t", "features": ["ward", "pulse"]}
    model = package.SequenceClassifier(**SMALL).fit(table, **roles)
    shuffled = table.sample(frac=1, random_state=0)[list(table.columns)[::-1]]
    other = package.SequenceClassifier(**SMALL).fit(shuffled, sort=True, **roles)
    examples = other.read(shuffled, answers=True)
    assert dict(zip(examples.ids, examples.y, strict=True)) == dict(
        zip(table["stay"], table["outcome"], strict=True)
    )
    assert len(model.predict(table)) == len(other.predict(shuffled)) == 48
    with pytest.raises(ValueError, match="label="):
        package.SequenceClassifier().fit(table, table["outcome"], id="stay")


def test_tables_of_all_libraries(stays):
    table = frame(stays[0])
    tables = [table, stays[0], str(stays[0])]
    for name, make in (
        ("pandas", lambda: table.to_pandas()),
        ("polars", lambda: __import__("polars").from_arrow(table)),
        ("polars", lambda: __import__("polars").from_arrow(table).lazy()),
        ("datasets", lambda: __import__("datasets").Dataset(table)),
    ):
        if name in packages_distributions():  # a folder of tests is called datasets, too
            tables.append(make())
    roles = {"label": "outcome", "id": "stay", "time": "t", "features": ["ward", "pulse"]}
    found = [package.SequenceClassifier(**SMALL).fit(each, **roles) for each in tables]
    answers = [m.predict_proba(each) for m, each in zip(found, tables, strict=True)]
    assert all(np.array_equal(each, answers[0]) for each in answers)


def test_evaluate_has_the_baselines_of_the_command_line(stays, tmp_path, one_thread):
    import json

    train, test = stays[0], write(tmp_path / "both.csv", rows_of(16, first=100, seed=1))
    run = trained(
        tmp_path,
        train,
        "--test",
        test,
        "--classify",
        "outcome",
        "--id",
        "stay",
        "--time",
        "t",
        "--features",
        "ward,pulse",
    )
    model = package.SequenceClassifier(**SMALL).fit(
        train, label="outcome", id="stay", time="t", features=["ward", "pulse"]
    )
    found = model.evaluate(test)
    assert found == model.evaluate(test, train=train)
    kept = json.loads((run / "evaluation.json").read_text())
    assert found["accuracy"] == kept["test"]["accuracy"]
    assert (found["baselines"], found["verdict"]) == (kept["baselines"], kept["verdict"])


def test_what_a_table_lacks_is_named(stays):
    with pytest.raises(ValueError, match="label="):
        package.SequenceClassifier().fit(stays[0], id="stay")
    with pytest.raises(TypeError, match="'tiem'"):
        package.SequenceClassifier().fit(stays[0], label="outcome", tiem="t")
    with pytest.raises(TypeError, match="tables"):
        package.SequenceClassifier().fit(np.zeros((4, 3, 1)), label="outcome")
    arrays = package.SequenceClassifier(iterations=2).fit(np.zeros((4, 3, 1)), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="names"):
        arrays.predict(stays[0])


def test_examples_of_numbers_are_as_their_arrays(stays):
    roles = {**ROLES, "features": ("pulse",)}
    examples = read_examples(stays[0], target="outcome", **roles)
    assert isinstance(examples, Examples) and isinstance(examples.X, np.ndarray)
    a = package.SequenceClassifier(**SMALL).fit(examples)
    b = package.SequenceClassifier(**SMALL).fit(examples.X, examples.y)
    assert (a.predict_proba(examples) == b.predict_proba(examples.X)).all()
