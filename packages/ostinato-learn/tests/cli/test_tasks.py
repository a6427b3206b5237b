"""Each task from a user's own file: trained, measured, used on other files, and gone on with."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from cli_examples import assert_same_run, command
from task_files import QUICK, TASKS

from ostinato_learn import load as ostinato_load
from ostinato_learn import runtime, training
from ostinato_learn.cli import main
from zoo.suites import one_in

MEASURE = {
    "classify": "accuracy",
    "tag": "accuracy",
    "regress": "mae",
    "forecast": "mase",
    "language": "bits_per_character",
}
TABLES = ("classify", "tag", "forecast")
FLAGS = (*QUICK, "--eval-every", 4, "--checkpoint-every", 4)


@pytest.fixture(scope="module")
def trained_tasks(tmp_path_factory) -> Path:
    """A folder with the file and the run of each task."""
    folder, threads = tmp_path_factory.mktemp("tasks"), torch.get_num_threads()
    for task, make in TASKS.items():
        arguments = ("train", *make(folder), *FLAGS, "--quiet", "--output", folder / task)
        assert main([str(a) for a in arguments]) == 0
    torch.set_num_threads(threads)
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_card_and_report_count_the_same_parameters(trained_tasks, task):
    report = (trained_tasks / task / "report.html").read_text("utf-8")
    card = (trained_tasks / task / "model" / "README.md").read_text("utf-8")
    (shown,) = re.findall(r"<dt>parameters</dt><dd>([^<]+)</dd>", report)
    counted = re.search(r"\| parameters \| ([\d,]+) \|", card)[1]
    tensors = safetensors.numpy.load_file(trained_tasks / task / "model" / "model.safetensors")
    tensors = {k: v for k, v in tensors.items() if not k.startswith(("folded.", "copies"))}
    assert re.sub(r"\D", "", shown) == re.sub(r"\D", "", counted)
    assert int(counted.replace(",", "")) == sum(each.size for each in tensors.values())


def file_of(folder: Path, task: str) -> Path:
    return Path(str(TASKS[task](folder)[0]))


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(encoding="utf-8")))


def write(path: Path, rows: list[dict[str, str]], columns: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", restval="x")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("task", TASKS)
def test_a_run_keeps_its_model_its_measures_and_its_configuration(trained_tasks, task):
    run = trained_tasks / task
    for name in ("model/model.safetensors", "metrics.jsonl", "losses.csv", "environment.json"):
        assert (run / name).is_file()
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["test"][MEASURE[task]] >= 0
    assert evaluation["iterations"] == 12
    text = (run / "config.toml").read_text()
    assert "horizon" in text if task == "forecast" else "horizon" not in text
    assert "class_weight" not in text
    assert ("missing" in text) == (task != "language")


@pytest.mark.parametrize("task", TASKS)
def test_evaluate_measures_what_the_run_measured(ostinato, trained_tasks, task):
    evaluation = json.loads((trained_tasks / task / "evaluation.json").read_text())
    outcome = ostinato("evaluate", trained_tasks / task, "--json")
    assert outcome.code == 0
    measured = json.loads(outcome.out)
    assert measured.pop("findings", []) == evaluation.get("findings", [])
    assert {k: evaluation["test"][k] for k in measured} == measured
    words = ostinato("evaluate", trained_tasks / task)
    assert (words.code, words.err) == (0, "")  # nothing is guessed again


def test_origins_of_a_forecast_roll_as_asked(ostinato, trained_tasks):
    """Six series of 60 steps, of which the run kept 5 horizons of 2 for its test."""
    run, file = trained_tasks / "forecast", file_of(trained_tasks, "forecast")

    def measured(*arguments: object) -> dict[str, float]:
        outcome = ostinato("evaluate", run, *arguments, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    assert measured("--windows", 5, "--stride", 2) == measured()
    model = ostinato_load(run / "model")
    values = np.array([float(row["value"]) for row in table(file)]).reshape(6, 60)
    for source, windows, stride in ([], 3, 4), ([file], 20, 1):
        found = measured(*source, "--windows", windows, "--stride", stride)
        assert found["n"] == 6 * 2 * windows
        wanted = model.evaluate(values, windows=windows, stride=stride)
        found.pop("findings", None)  # a training of few updates is below its baseline
        assert found == pytest.approx(wanted, rel=1e-12)

    learnt = ostinato("evaluate", run, "--windows", 3, "--stride", 5)
    assert learnt.code == 2
    assert "begin 12 steps before the end; the run kept 10 steps of each series" in learnt.err
    other = ostinato("evaluate", trained_tasks / "tag", "--stride", 5)
    assert (other.code, other.out) == (2, "")
    assert "--stride is for forecasts" in other.err and "was trained to tag" in other.err


@pytest.mark.parametrize(("task", "rows"), [("classify", 40), ("tag", 30 * 7), ("forecast", 6 * 2)])
def test_predict_answers_for_each_sequence_or_step(ostinato, trained_tasks, task, rows):
    outcome = ostinato("predict", trained_tasks / task, file_of(trained_tasks, task))
    assert (outcome.code, outcome.err) == (0, "")
    answers = list(csv.DictReader(io.StringIO(outcome.out)))
    assert len(answers) == rows
    ids = list(dict.fromkeys(row["id"] for row in table(file_of(trained_tasks, task))))
    assert list(dict.fromkeys(row["id"] for row in answers)) == ids
    if task == "forecast":
        assert [row["time"] for row in answers[:2]] == ["60", "61"]


def test_forecasts_far_from_zero_have_their_digits(ostinato, trained_tasks, tmp_path):
    """A series that varies by 2 around ten million."""
    series = tmp_path / "series.csv"
    values = 1e7 + 2 * np.sin(np.arange(60))
    series.write_text(
        "id,t,value\n" + "".join(f"a,{t},{v!r}\n" for t, v in enumerate(values.tolist()))
    )
    run = trained_tasks / "forecast"
    found = list(csv.DictReader(io.StringIO(ostinato("predict", run, series, "--proba").out)))
    quantiles = runtime.load(run / "model").predict_quantiles([values])[0]
    written = [[float(row[name]) for name in row if name.startswith("q")] for row in found]
    np.testing.assert_allclose(written, quantiles, rtol=1e-11)
    assert len(np.unique(written)) > len(found)


@pytest.mark.parametrize("task", ["classify", "tag"])
@pytest.mark.parametrize("load", [ostinato_load, runtime.load])
def test_python_answers_to_the_numbers_of_a_table_as_the_command_line_does(
    ostinato, trained_tasks, task, load
):
    """Which the model standardises, as it learnt to."""
    file, model = file_of(trained_tasks, task), load(trained_tasks / task / "model")
    features, label = (("a", "b"), "kind") if task == "classify" else (("a",), "sign")
    sequences: dict[str, list[dict[str, str]]] = {}
    for row in table(file):
        sequences.setdefault(row["id"], []).append(row)
    X = [np.array([[float(row[n]) for n in features] for row in s]) for s in sequences.values()]
    y = [np.array([row[label] for row in s]) for s in sequences.values()]
    reported = ostinato("predict", trained_tasks / task, file, "--proba").out
    answers = list(csv.DictReader(io.StringIO(reported)))
    wanted = [[float(v) for k, v in row.items() if "probability_" in k] for row in answers]
    labels = [row["prediction"] for row in answers]
    if task == "classify":
        y, together = np.array([each[0] for each in y]), np.asarray
    else:
        together = np.concatenate
    assert together(model.predict(X)).tolist() == labels
    # The file has six decimals; PyTorch and the runtime differ by some units of 1e-6.
    np.testing.assert_allclose(together(model.predict_proba(X)), wanted, atol=5e-6)
    right = float(np.mean(together(y) == np.array(labels)))
    assert model.evaluate(X, y)["accuracy"] == pytest.approx(right)
    if load is ostinato_load:
        assert model.score(X, y) == pytest.approx(right)
    with pytest.raises(ValueError, match="example 0 of X has no steps"):
        model.predict([X[0][:0], X[1]])


@pytest.mark.parametrize("task", TABLES)
def test_columns_in_another_order_and_among_others_give_the_same_bits(
    ostinato, trained_tasks, tmp_path, task
):
    file = file_of(trained_tasks, task)
    rows = table(file)
    columns = ["later", *reversed(rows[0]), "note"]
    if task != "forecast":  # the series is its own input; labels are not needed
        columns.remove({"classify": "kind", "tag": "sign"}[task])
    moved = write(tmp_path / "moved.csv", rows, columns)
    outcomes = [ostinato("predict", trained_tasks / task, f, "--proba") for f in (file, moved)]
    assert outcomes[0].code == 0
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("task", TABLES)
def test_every_format_and_standard_input_give_the_same_bits(
    ostinato, trained_tasks, tmp_path, task, monkeypatch
):
    import pyarrow.csv
    import pyarrow.parquet

    file = file_of(trained_tasks, task)
    wanted = ostinato("predict", trained_tasks / task, file)
    lines = tmp_path / "same.jsonl"
    numbers = pyarrow.csv.read_csv(file)
    lines.write_text("".join(json.dumps(row) + "\n" for row in numbers.to_pylist()))
    parquet = tmp_path / "same.parquet"
    pyarrow.parquet.write_table(numbers, parquet)
    assert ostinato("predict", trained_tasks / task, lines) == wanted
    assert ostinato("predict", trained_tasks / task, parquet) == wanted
    for each in (file, lines, parquet):
        stream = io.TextIOWrapper(io.BytesIO(each.read_bytes()))
        monkeypatch.setattr("sys.stdin", stream)
        assert ostinato("predict", trained_tasks / task, "-") == wanted


@pytest.mark.parametrize("task", TABLES)
def test_a_file_that_is_read_in_blocks_gives_the_same_bits(
    ostinato, trained_tasks, monkeypatch, task
):
    from ostinato_learn.data.tables import blocks
    from ostinato_learn.jobs.inputs import sources

    file = file_of(trained_tasks, task)
    wanted = ostinato("predict", trained_tasks / task, file)
    monkeypatch.setattr(sources, "AT_ONCE", 15)
    assert ostinato("predict", trained_tasks / task, file) == wanted
    monkeypatch.setattr(blocks, "BLOCK", 500)
    assert ostinato("predict", trained_tasks / task, file) == wanted


def test_a_file_that_breaks_in_a_later_block_leaves_no_output(
    ostinato, trained_tasks, tmp_path, monkeypatch
):
    from ostinato_learn.data.tables import blocks

    file = tmp_path / "late.csv"
    file.write_text(file_of(trained_tasks, "classify").read_text() + "s99,p1,0,x,1,up\n")
    monkeypatch.setattr(blocks, "BLOCK", 500)
    outcome = ostinato("predict", trained_tasks / "classify", file, "-o", tmp_path / "answers.csv")
    assert outcome.code == 2
    assert f"{file}, line 242, column 'a': 'x'" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["late.csv"]


def test_all_probabilities_are_not_for_language_models(ostinato, trained_tasks):
    file = file_of(trained_tasks, "language")
    refused = ostinato("predict", trained_tasks / "language", file, "--proba")
    assert (refused.code, "--proba is not for language models" in refused.err) == (2, True)


def test_a_file_of_another_country(ostinato, trained_tasks, tmp_path):
    """With commas before decimals, in the encoding of an older program; also of a stream."""
    file = file_of(trained_tasks, "classify")
    plain, other = tmp_path / "plain.csv", tmp_path / "other.csv"
    rows = file.read_text().replace(",", ";").replace("up", "öl")
    plain.write_text(rows)
    other.write_bytes(rows.replace(".", ",").encode("cp1252"))
    written = ("--separator", ";", "--decimal", ",", "--encoding", "cp1252")
    _, *flags = TASKS["classify"](tmp_path)
    flags += ["--no-bidirectional", *QUICK, "--quiet", "--output"]
    semicolons = written[:2]
    assert ostinato("train", plain, *semicolons, *flags, tmp_path / "a").code == 0
    assert ostinato("train", other, *written, *flags, tmp_path / "b").code == 0
    wanted = ostinato("predict", tmp_path / "a", plain)
    assert "öl" in wanted.out
    assert ostinato("predict", tmp_path / "b", other).out == wanted.out
    of_plain = ("--decimal", ".", "--encoding", "utf-8")
    assert ostinato("predict", tmp_path / "b", plain, *of_plain).out == wanted.out
    answers = ostinato("stream", tmp_path / "a", plain, "--key", "id")
    assert answers.code == 0
    assert ostinato("stream", tmp_path / "b", other, "--key", "id").out == answers.out
    assert ostinato("stream", tmp_path / "b", plain, "--key", "id", *of_plain).out == answers.out
    for encoding in ("utf-16", "utf-16-be", "cp500"):
        refused = ostinato("stream", tmp_path / "b", other, "--encoding", encoding)
        assert (refused.code, "does not end with one byte" in refused.err) == (2, True)
    refused = ostinato("stream", tmp_path / "b", other, "--separator", "")
    assert (refused.code, "--separator is" in refused.err) == (2, True)


def test_predict_and_evaluate_take_flags_for_how_another_file_is_written(
    ostinato, trained_tasks, tmp_path
):
    run, file = trained_tasks / "tag", file_of(trained_tasks, "tag")
    header, *rows = file.read_text().splitlines()
    other = tmp_path / "other.csv"
    other.write_text("\n".join([header, *rows[7:], *rows[:7]]).replace(",", ";") + "\n")
    refused = ostinato("predict", run, other)
    assert (refused.code, "--separator" in refused.err) == (2, True)
    answers = ostinato("predict", run, other, "--separator", ";")
    wanted = ostinato("predict", run, file)
    assert sorted(answers.out.splitlines()) == sorted(wanted.out.splitlines())
    measured = ostinato("evaluate", run, other, "--separator", ";", "--json")
    assert measured.code == 0
    other.write_text("\n".join([header, *reversed(rows)]) + "\n")
    assert "--sort" in ostinato("predict", run, other, "--no-sort").err
    answers = ostinato("predict", run, other)
    assert "read as: sorted by" in answers.err
    assert sorted(answers.out.splitlines()) == sorted(wanted.out.splitlines())
    assert ostinato("evaluate", run, "--sort").code == 2


def test_predict_reads_a_pipe(trained_tasks):
    file = file_of(trained_tasks, "classify")
    result = subprocess.run(
        command("predict", trained_tasks / "classify", "-"),
        input=file.read_bytes(),
        capture_output=True,
    )
    assert result.returncode == 0
    assert result.stdout.decode().splitlines()[0] == "id,prediction,probability"
    assert len(result.stdout.splitlines()) == 41


@pytest.mark.parametrize("task", TABLES)
def test_a_missing_column_is_named_with_those_that_are_there(
    ostinato, trained_tasks, tmp_path, task
):
    rows = table(file_of(trained_tasks, task))
    column = {"classify": "b", "tag": "a", "forecast": "value"}[task]
    less = write(tmp_path / "less.csv", rows, [name for name in rows[0] if name != column])
    outcome = ostinato("predict", trained_tasks / task, less)
    assert outcome.code == 2
    assert f"{less}: there is no column '{column}'" in outcome.err
    assert "the columns are 'id', 't'" in outcome.err.replace("'person', ", "")


@pytest.mark.parametrize("task", one_in(2, TASKS))
def test_a_resumed_run_ends_with_the_bits_of_one_that_ran_through(
    ostinato, trained_tasks, tmp_path, monkeypatch, task
):
    arguments = ("train", *TASKS[task](trained_tasks), *FLAGS, "--output", tmp_path / "run")

    def send(self, run):
        if run.iteration == 7:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(training.Progress, "on_iteration", send)
    stopped = ostinato(*arguments)
    assert stopped.code == 130
    assert "a checkpoint of iteration" in stopped.err
    monkeypatch.undo()
    assert ostinato(*arguments, "--resume").code == 0
    if not (trained_tasks / task / "predictions.csv").is_file():  # a language model has none
        for run in (trained_tasks / task, tmp_path / "run"):
            (run / "predictions.csv").write_text("")
    assert_same_run(trained_tasks / task, tmp_path / "run")


@pytest.mark.parametrize("task", TASKS)
def test_a_finished_run_is_left_alone(ostinato, trained_tasks, task):
    outcome = ostinato("train", "--resume", "--output", trained_tasks / task)
    assert outcome.code == 0
    assert "is finished; nothing is left to do" in outcome.out


@pytest.mark.parametrize("task", TASKS)
def test_a_flag_that_does_not_exist_is_refused(ostinato, trained_tasks, tmp_path, task):
    outcome = ostinato("train", *TASKS[task](trained_tasks), "--hidden", 4, "-o", tmp_path / "run")
    assert outcome.code == 2
    assert "--hidden" in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("task", "flags"),
    [
        ("classify", ("--horizon", 3)),
        ("classify", ("--crf",)),
        ("classify", ("--level", "word")),
        ("classify", ("--static", "a")),
        ("tag", ("--season", 7)),
        ("tag", ("--class-weight", "balanced")),
        ("tag", ("--known", "a")),
        ("forecast", ("--no-standardize",)),
        ("forecast", ("--group", "id")),
        ("forecast", ("--crf",)),
        ("forecast", ("--test-fraction", 0.3)),
        ("language", ("--id", "id")),
        ("language", ("--bidirectional",)),
        ("language", ("--horizon", 3)),
        ("language", ("--no-standardize",)),
    ],
)
def test_a_parameter_that_the_task_does_not_use_is_refused(
    ostinato, trained_tasks, tmp_path, task, flags
):
    arguments = ("train", *TASKS[task](trained_tasks), "-o", tmp_path / "run")
    outcome = ostinato(*arguments, *flags)
    assert outcome.code == 2
    assert f"not for {task}; leave it out" in outcome.err
    config = tmp_path / "config.toml"
    name = str(flags[0]).removeprefix("--").removeprefix("no-").replace("-", "_")
    section = "task" if name in ("horizon", "crf", "level", "season") else "data"
    section = {"class_weight": "training", "bidirectional": "model"}.get(name, section)
    value = json.dumps(flags[1]) if len(flags) > 1 else json.dumps("--no-" not in str(flags[0]))
    config.write_text(f"[{section}]\n{name} = {value}\n")
    assert ostinato(*arguments, "--config", config).code == 2
    assert not (tmp_path / "run").exists()


def test_two_tasks_or_none_are_refused(ostinato, trained_tasks):
    file = file_of(trained_tasks, "classify")
    both = ostinato("train", file, "--classify", "kind", "--tag", "kind")
    assert (both.code, "wanted one" in both.err) == (2, True)
    none = ostinato("train", file)
    assert (none.code, "wanted one of --classify COLUMN" in none.err) == (2, True)
    text = file_of(trained_tasks, "language")
    assert ostinato("train", text, "--classify", "kind").code == 2
    assert ostinato("train", text, "--language", "kind").code == 2


@pytest.mark.parametrize("task", TASKS)
def test_a_dry_run_shows_the_data_and_leaves_nothing(ostinato, trained_tasks, tmp_path, task):
    file = TASKS[task](trained_tasks)
    outcome = ostinato("train", *file, "--dry-run", "--output", tmp_path / "run")
    assert outcome.code == 0
    for heading in ("first ", "parts", "recipe", "baselines on the test part"):
        assert heading in outcome.out
    if task != "language":
        assert "'id'" in outcome.out and "target" in outcome.out
    if task == "classify":
        assert "'person'   left out" in outcome.out
        assert "down   16, 4" in outcome.out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", ["classify", "tag"])
@pytest.mark.parametrize("row", [2, -1], ids=["the first sequence", "the last"])
def test_a_dry_run_refuses_missing_values_as_a_training_does(ostinato, tmp_path, task, row):
    file, *flags = TASKS[task](tmp_path)
    lines = file.read_text().splitlines()
    a = lines[0].split(",").index("a")
    fields = lines[row].split(",")
    lines[row] = ",".join([*fields[:a], "", *fields[a + 1 :]])
    file.write_text("\n".join(lines) + "\n")
    outcome = ostinato("train", file, *flags, "--dry-run")
    line = row + 1 if row > 0 else len(lines)
    assert outcome.code == 2
    assert f"line {line}, column 'a': the value is missing; wanted one, or missing=" in outcome.err
    assert ostinato("train", file, *flags, "--missing", "mask", "--dry-run").code == 0


def test_a_dry_run_says_where_nothing_is_named(ostinato):
    outcome = ostinato("train", "--dry-run")
    assert outcome.code == 2
    assert "what should be learnt?" in outcome.err


def test_paths_in_a_configuration_are_relative_to_it(
    ostinato, trained_tasks, tmp_path, monkeypatch
):
    (tmp_path / "data").mkdir()
    shutil.copy(file_of(trained_tasks, "tag"), tmp_path / "data" / "mine.csv")
    (tmp_path / "here.toml").write_text(
        '[data]\nsource = "data/mine.csv"\nid = "id"\ntime = "t"\n[task]\ntag = "sign"\n'
    )
    monkeypatch.chdir(tmp_path / "data")
    outcome = ostinato("train", "--config", "../here.toml", "--dry-run")
    assert outcome.code == 0
    assert str(tmp_path / "data" / "mine.csv") in outcome.out


def test_serious_findings_are_reported_before_a_training(ostinato, trained_tasks, tmp_path):
    rows = table(file_of(trained_tasks, "classify"))
    again = [row | {"id": row["id"] + "again"} for row in rows]
    twice = write(tmp_path / "twice.csv", rows + again, list(rows[0]))
    _, *flags = TASKS["classify"](trained_tasks)
    arguments = ("train", twice, *flags, *QUICK, "--iterations", 2)
    outcome = ostinato(*arguments)
    assert outcome.code == 0
    reported = [line for line in outcome.err.splitlines() if "test sequences are training" in line]
    assert len(reported) == 1 and reported[0].startswith(f"ostinato: {twice}: ")
    assert ostinato(*arguments, "--quiet").err.splitlines()[:1] == reported  # hides notes


def test_words_that_were_not_trained_are_counted(ostinato, tmp_path):
    lines = ["id,mode,temp,kind"]
    lines += [
        f"{i},{('idle', 'work', 'rest')[(i + t) % 3]},{t % 4},{'ab'[i % 2]}"
        for i in range(20)
        for t in range(3)
    ]
    file = tmp_path / "machines.csv"
    file.write_text("\n".join(lines) + "\n")
    flags = ("--classify", "kind", "--id", "id", "--features", "mode,temp")
    run = tmp_path / "run"
    assert ostinato("train", file, *flags, *QUICK, "--iterations", 2, "-o", run).code == 0
    file.write_text("\n".join(lines).replace("rest", "burn") + "\n")
    outcome = ostinato("predict", run, file)
    assert outcome.code == 0
    assert "20 values of 'mode' were not in the training part ('burn'" in outcome.err


def test_a_forecast_begins_after_the_last_value(ostinato, trained_tasks, tmp_path):
    """Rows after it are a template of what is to come, also where no input is known ahead."""
    lines = file_of(trained_tasks, "forecast").read_text().splitlines()
    plain, template = tmp_path / "plain.csv", tmp_path / "template.csv"
    plain.write_text("\n".join(lines) + "\n")
    rows = [lines[0]]
    for line in lines[1:]:
        name, t, _ = line.split(",")
        rows.append(line)
        if t == "59":
            rows += [f"{name},{60 + i}," for i in range(5)]
    template.write_text("\n".join(rows) + "\n")
    answers = [ostinato("predict", trained_tasks / "forecast", f).out for f in (plain, template)]
    assert answers[0] == answers[1] != ""
    measures = [ostinato("evaluate", trained_tasks / "forecast", f) for f in (plain, template)]
    assert measures[0].out == measures[1].out != ""


def test_forecasts_of_months_have_the_dates_of_months(ordinary_shops, ostinato, tmp_path):
    """The column of dates is found; without the one of shops, their rows would be one series."""
    flags = ("--forecast", "sales", "--horizon", 2, *QUICK, "--iterations", 2)
    merged = ostinato("train", ordinary_shops, *flags)
    assert merged.code == 2
    assert "all rows are one sequence; wanted the column of sequences" in merged.err
    assert "(--id shop)" in merged.err
    run = tmp_path / "run"
    reported = ostinato("train", ordinary_shops, *flags, "--id", "shop", "-o", run)
    assert (reported.code, "taken as time 'month'" in reported.err) == (0, True)
    lines = [line.split(",") for line in ostinato("predict", run, ordinary_shops).out.split()]
    assert [line[:2] for line in lines[1:]] == [
        [s, month] for s in "ab" for month in ("2026-01-31", "2026-02-28")
    ]
    tested = [line.split(",") for line in (run / "predictions.csv").read_text().split()]
    assert all(cell.isdigit() for line in tested[1:] for cell in line[2:])  # as the sales are
    assert all(line[2].isdigit() for line in lines[1:])
    free = ("train", ordinary_shops, *flags, "--id", "shop", "--bounds", "any", "-o", run)
    assert ostinato(*free, "--overwrite").code == 0
    lines = ostinato("predict", run, ordinary_shops).out.split()
    assert not any(line.split(",")[2].isdigit() for line in lines[1:])
    one = tmp_path / "one.csv"
    one.write_text("shop,month,sales\nc,2024-01-31,5\n")
    refused = ostinato("predict", run, one)
    assert (refused.code, "'c' has one step" in refused.err) == (2, True)


@pytest.fixture
def ordinary_shops(tmp_path):
    """Monthly sales of two shops, by the last day of each month."""
    ends = np.arange("2024-02", "2026-02", dtype="M8[M]").astype("M8[D]") - 1
    rows = [f"{shop},{end},{5 + i % 3}" for shop in "ab" for i, end in enumerate(ends)]
    file = tmp_path / "shops.csv"
    file.write_text("shop,month,sales\n" + "\n".join(rows) + "\n")
    return file


def test_a_forecast_reads_what_is_known_ahead_and_says_when_it_is_not_there(ostinato, tmp_path):
    lines = ["id,t,value,day"]
    for i in range(4):
        for t in range(40):
            lines.append(f"s{i},2024-03-{1 + t // 2:02d} {12 * (t % 2):02d}:00,{t % 4 + i},{t % 2}")
    file = tmp_path / "sales.csv"
    file.write_text("\n".join(lines) + "\n")
    flags = ("--forecast", "value", "--horizon", 2, "--id", "id", "--time", "t")
    inputs = ("--features", "day", "--known", "day")
    run = tmp_path / "run"
    assert ostinato("train", file, *flags, *inputs, *QUICK, "--iterations", 2, "-o", run).code == 0
    short = ostinato("predict", run, file)
    assert short.code == 2
    wanted = "'s0' has 0 rows after its last value of 'value'; to forecast 2 steps, append 2 rows"
    assert f"{file}: {wanted}" in short.err
    rows = [line.split(",") for line in lines[1:]]
    rows[5][2] = rows[9][2] = rows[50][3] = ""
    file.write_text("\n".join([lines[0], *map(",".join, rows)]) + "\n")
    reported = ostinato("train", file, *flags, *inputs, "--dry-run").err
    assert "2 of 160 values of 'value' are missing; they are skipped" in reported
    assert "1 of 160 values of 'day' are missing; they are taken from the step before" in reported
    checked = ostinato("check", file, *flags[:2], *flags[4:], *inputs[:2])
    assert "a forecast steps over them" in checked.out
    assert "--missing dose=zero" in checked.out
    ahead = []
    for i in range(4):
        ahead += rows[40 * i : 40 * (i + 1)]
        ahead += [[f"s{i}", "2024-03-21 00:00", "", "0"], [f"s{i}", "2024-03-21 12:00", "", "1"]]
    file.write_text("\n".join([lines[0], *map(",".join, ahead)]) + "\n")
    outcome = ostinato("predict", run, file)
    assert outcome.code == 0
    answers = list(csv.DictReader(io.StringIO(outcome.out)))
    assert [row["time"] for row in answers[:2]] == ["2024-03-21T00:00", "2024-03-21T12:00"]
    assert len(answers) == 8
    assert f"{file}: 2 of 160 values of 'value' are missing; they are skipped" in outcome.err
    assert "1 of 168 values of 'day' are missing; they are taken from" in outcome.err
    del ahead[60:63]  # and a value that is missing ahead
    ahead[40][3] = ""
    file.write_text("\n".join([lines[0], *map(",".join, ahead)]) + "\n")
    outcome = ostinato("predict", run, file)
    assert "2 of 165 values of 'day' are missing" in outcome.err
    assert "1 of its steps come after a gap of over 1.5 times the usual time" in outcome.err


def test_gaps_of_a_series_are_filled_on_request(ostinato, tmp_path):
    """Of glucose every five minutes, with gaps and late rows."""
    random, lines = np.random.default_rng(0), ["id,time,glucose"]
    for i in range(3):
        for t in range(60):
            if t % 11 and not 20 < t < 30:
                when = np.datetime64("2024-05-01T08:00:00") + 300 * t + int(random.integers(20))
                lines.append(f"s{i},{when},{5 + np.sin(t / 4):.3f}")
    file = tmp_path / "glucose.csv"
    file.write_text("\n".join(lines))
    flags = ("--forecast", "glucose", "--horizon", 2, "--id", "id", "--time", "time", *QUICK)
    checked = ostinato("check", file, *flags[:2], *flags[4:8])
    assert "come after a gap" in checked.out and "--every 5min" in checked.out
    assert (
        "come after a gap"
        not in ostinato("check", file, *flags[:2], *flags[4:8], "--every", "5min").out
    )
    run = tmp_path / "run"
    done = ostinato("train", file, *flags, "--every", "5min", "--output", run)
    assert done.code == 0 and "values of 'glucose' are missing; they are skipped" in done.err
    answers = list(csv.DictReader(io.StringIO(ostinato("predict", run, file).out)))
    times = np.array([row["time"] for row in answers], "M8[s]")
    assert (np.diff(times)[::2] == np.timedelta64(300, "s")).all() and len(times) == 6
    refused = ostinato("train", file, *flags, "--every", "five", "--output", tmp_path / "x")
    assert refused.code == 2 and "--every is 'five'; wanted a number and a unit" in refused.err


def test_a_missing_input_of_a_forecast_is_what_its_column_says(ostinato, tmp_path):
    """Doses are 0 where none is written, and the temperature is that of the step before."""
    random = np.random.default_rng(0)
    rows = [
        [f"s{i}", str(t), f"{random.normal():.3f}", "", f"{20 + t % 5}"]
        for i in range(4)
        for t in range(40)
    ]
    for row in rows[::9]:
        row[3] = "7"
    for row in rows[4::7]:
        row[4] = ""
    head, files = "id,t,glucose,dose,warm", {}
    for name in ("empty", "zeros"):
        files[name] = tmp_path / f"{name}.csv"
        filled = [[*row[:3], row[3] or "0", row[4]] for row in rows] if name == "zeros" else rows
        files[name].write_text("\n".join([head, *map(",".join, filled)]))
    flags = ("--forecast", "glucose", "--horizon", 2, "--id", "id", "--time", "t",
             "--features", "dose,warm", *QUICK, "--iterations", 3)  # fmt: skip
    outcomes = {}
    for name, how in (("empty", ("--missing", "dose=zero")), ("zeros", ())):
        run = tmp_path / name
        outcomes[name] = ostinato("train", files[name], *flags, *how, "--output", run)
        assert outcomes[name].code == 0
    assert "142 of 160 values of 'dose' are missing; they become 0" in outcomes["empty"].err
    predicted = [(tmp_path / name / "predictions.csv").read_text() for name in files]
    assert predicted[0] == predicted[1]
    answers = [ostinato("predict", tmp_path / "empty", file) for file in files.values()]
    assert answers[0].out == answers[1].out
    assert "'dose' are missing; they become 0" in answers[0].err
    refused = ostinato("train", files["empty"], *flags, "--missing", "doses=zero", "-o", "x")
    assert refused.code == 2 and "names the column 'doses', which is no input" in refused.err
    classify = ("--classify", "warm", "--id", "id", "--features", "dose", *QUICK)
    refused = ostinato("train", files["zeros"], *classify, "--missing", "dose=zero")
    assert refused.code == 2


@pytest.mark.parametrize("task", ["tag", "forecast"])
def test_series_that_nothing_tells_apart_are_not_sorted_into_one(ostinato, tmp_path, task):
    file, *flags = TASKS[task](tmp_path)
    del flags[flags.index("--id") : flags.index("--id") + 2]
    file.write_text(file.read_text().replace("id,", "who,", 1))
    features = () if task == "forecast" else ("--features", "a")
    for more in ((), ("--sort",)):
        outcome = ostinato("train", file, *flags, *features, *more, "--quiet")
        assert outcome.code == 2
        assert "the column of sequences as id (--id who)" in outcome.err


def test_the_only_column_of_texts_needs_no_name(ostinato, tmp_path):
    file = tmp_path / "tunes.jsonl"
    lines = [{"number": i, "abc": "|: ABc dBA " * 3 + "cde"[i % 3]} for i in range(30)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = tmp_path / "run"
    arguments = ("train", file, *QUICK, "--truncate", 8, "--output", run, "--language")
    outcome = ostinato(*arguments)
    assert outcome.code == 0
    assert "the column of texts is 'abc'" in outcome.err
    assert 'language = "abc"' in (run / "config.toml").read_text()
    assert "is finished" in ostinato(*arguments, "--resume").out
    answers = ostinato("predict", run, file)
    assert len(answers.out.splitlines()) == 31
    both = tmp_path / "two.csv"
    both.write_text("title,abc\none,AB\ntwo,CD\n")
    refused = ostinato("train", both, "--language")
    assert refused.code == 2
    assert "the columns are 'title', 'abc'" in refused.err


def test_texts_have_the_parts_that_a_column_names(ostinato, tmp_path):
    file = tmp_path / "texts.csv"
    parts = ["train"] * 20 + ["test"] * 4 + ["validation"] * 4
    lines = [f"{'abcab' * 5}{i},{part}" for i, part in enumerate(parts)]
    file.write_text("\n".join(["text,part", *lines]) + "\n")
    flags = ("--language", "text", "--split", "part", "--dry-run")
    outcome = ostinato("train", file, *flags)
    assert outcome.code == 0
    for wanted in ("training     20 texts", "validation   4 texts", "test         4 texts"):
        assert wanted in outcome.out


def test_complete_and_generate_speak_of_the_model_that_they_need(ostinato, trained_tasks):
    run = trained_tasks / "language"
    assert len(ostinato("complete", run, "the ca", "--suggestions", 2).out.splitlines()) == 2
    made = [
        ostinato("generate", run, "--prompt", "the", "--tokens", 9, "--seed", 3).out
        for _ in range(2)
    ]
    assert made[0] == made[1] and made[0].startswith("the")
    reported = ostinato("generate", run, "--prompt", "theß", "--tokens", 3)
    assert reported.code == 0
    assert "the training texts do not have the characters 'ß' of the prompt" in reported.err
    for name in ("complete", "generate"):
        outcome = ostinato(name, trained_tasks / "tag")
        assert outcome.code == 2
        assert "was trained to tag; wanted a language model" in outcome.err


@pytest.mark.parametrize(
    ("flag", "number", "wanted"),
    [("--temperature", n, "wanted 0 or more, and finite") for n in ("-1.0", "nan", "inf")]
    + [("--top-p", n, "wanted a share above 0, 1 at most") for n in ("0.0", "-1.0", "1.5", "nan")],
)
def test_generate_refuses_numbers_that_nothing_is_drawn_with(ostinato, flag, number, wanted):
    outcome = ostinato("generate", "nowhere", f"{flag}={number}")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{flag} is {number}; {wanted}" in outcome.err


def test_texts_are_classified_by_their_words(tmp_path, capsys, monkeypatch):
    verdicts = {"good": "a fine film", "bad": "a dull film, and long"}
    moods = ["good", "bad"] * 40
    lines = [f'{i},"{verdicts[mood]} {i}",{mood}' for i, mood in enumerate(moods)]
    file, run = tmp_path / "reviews.csv", tmp_path / "run"
    file.write_text("\n".join(["id,review,mood", *lines]) + "\n", encoding="utf-8")
    train = ("train", str(file), "--classify", "mood", "--output", str(run), "--epochs", "20")
    assert main(list(train)) == 0
    reported = capsys.readouterr()
    assert "logistic regression on words and pairs" in reported.out
    assert "'review'" in reported.err

    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["test"]["accuracy"] == 1.0
    report = (run / "report.html").read_text(encoding="utf-8")
    assert '<p class="words">a ' in report

    def answers(source: Path | str) -> dict[str, str]:
        assert main(["predict", str(run), str(source)]) == 0
        rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
        return {row["id"]: row["prediction"] for row in rows}

    other = tmp_path / "other.csv"
    other.write_text("id,review\n7,Dull.\n8,FINE\n", encoding="utf-8")
    assert answers(other) == {"7": "bad", "8": "good"}
    other.write_text("n,review\n7,Dull.\n8,FINE\n", encoding="utf-8")
    assert answers(other) == {"1": "bad", "2": "good"}
    tabs = b"id\treview\n7\tdull, dull, dull\n8\tFINE\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(tabs)))
    assert answers("-") == {"7": "bad", "8": "good"}


def test_texts_of_one_group_stay_on_one_side(tmp_path):
    from ostinato_learn.jobs import registry
    from ostinato_learn.jobs.inputs import config as configuration

    rows = [f'{{"text": "{"abc"[i % 3] * 9} {i}", "book": "{i // 5}"}}' for i in range(40)]
    file = tmp_path / "books.jsonl"
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    given = {
        "data.source": str(file),
        "data.group": "book",
        "task.language": "text",
        "training.validation_fraction": 0.25,
    }
    settings = configuration.resolve(given)

    def book(text: str) -> int:
        return int(text.split()[1]) // 5

    texts = registry.read(settings, given).texts
    sides = [{book(text) for text in part} for part in (texts.train, texts.validation, texts.test)]
    assert all(sides) and sum(map(len, sides)) == 8  # eight books, each on one side

    folds = list(registry.folds(settings, given, 4))
    tested = [{book(text) for text in job.texts.test} for job in folds]
    assert sorted(n for side in tested for n in side) == list(range(8))
    for side, job in zip(tested, folds, strict=True):
        assert not side & {book(text) for text in job.texts.train}


def test_a_text_has_no_groups(tmp_path, capsys):
    (tmp_path / "novel.txt").write_text("Once upon a time. " * 50, encoding="utf-8")
    assert main(["train", str(tmp_path / "novel.txt"), "--group", "book"]) == 2
    assert "--group is for tables" in capsys.readouterr().err
