"""`ostinato stream` in this process: rows, answers, keys, snapshots, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import stream_stand_in as stand_in
from cli_examples import SMALL
from task_files import QUICK, classify, tag

from ostinato_learn.cli.streams import answers as stream_answers
from ostinato_learn.cli.streams.rows import Lines
from ostinato_learn.data.formats.dialect import MISSING
from zoo.suites import one_in

HEADER = "step,prediction,probability\n"


@pytest.fixture
def stream(ostinato, tmp_path, monkeypatch):
    """Runs `ostinato stream` on a text, or bytes."""

    def run(content, *options, model=None):
        stand_in.install(monkeypatch, model or stand_in.Model())
        file = tmp_path / "rows"
        if content is not None:
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        return ostinato("stream", "run", file, *options)

    return run


def answers(output):
    """The rows of an output, by name."""
    return list(csv.DictReader(io.StringIO(output)))


def expected(rows):
    """Of rows [(key, x, y)], by hand: (key, step, label, probability)."""
    streams, found = {}, []
    for key, x, y in rows:
        s = streams.setdefault(key, stand_in.Stream())
        a = s.push(np.array([x, y], np.float32))
        found.append((key, a.n, a.label, f"{a.proba.max():.6f}"))
    return found


def shown(output, key=None):
    return [
        (row[key] if key else None, int(row["step"]), row["prediction"], row["probability"])
        for row in answers(output)
    ]


def random_rows(n, keys=("a", "b", 'c "quoted", twice')):
    random = np.random.default_rng(0)
    return [
        (keys[random.integers(len(keys))], *random.normal(size=2).round(3).tolist())
        for _ in range(n)
    ]


def as_csv(rows, header=("device", "x", "y"), end="\n"):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


ROWS = random_rows(50)


def test_an_answer_a_row(stream):
    rows = [(None, x, y) for _, x, y in ROWS]
    done = stream(as_csv([row[1:] for row in rows], ("x", "y")))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(HEADER)
    assert shown(done.out) == expected(rows)


def test_a_stream_for_each_key(stream):
    done = stream(as_csv(ROWS), "--key", "device")
    assert done.code == 0
    assert shown(done.out, "device") == expected(ROWS)


def test_columns_are_found_by_name(stream):
    rows = [(y, "beside", key, x) for key, x, y in ROWS]
    done = stream(as_csv(rows, ("y", "other", "device", "x")), "--key", "device")
    assert shown(done.out, "device") == expected(ROWS)


def test_columns_that_are_named_by_a_flag(stream):
    text = as_csv(ROWS).split("\n", 1)[1]
    flags = ("--key", "device", "--columns", "device,x,y")
    assert shown(stream(text, *flags).out, "device") == expected(ROWS)
    again = stream(as_csv(ROWS), *flags)  # the state has the names, too
    assert shown(again.out, "device") == expected(ROWS)


def test_a_model_without_names_takes_the_order(stream):
    model = stand_in.Model(names=None)
    rows = [(None, x, y) for _, x, y in ROWS]
    for header in ("p,q\n", ""):
        text = header + "".join(f"{x},{y}\n" for _, x, y in rows)
        assert shown(stream(text, model=model).out) == expected(rows)
    done = stream(as_csv(ROWS), "--key", "device", model=model)
    assert shown(done.out, "device") == expected(ROWS)


def test_values_within_objects_have_the_names_that_files_give_them(stream):
    model = stand_in.Model(names=("at.x", "y"))
    rows = [json.dumps({"device": {"id": key}, "at": {"x": x}, "y": y}) for key, x, y in ROWS]
    done = stream("\n".join(rows) + "\n", "--key", "device.id", model=model)
    assert (done.code, done.err) == (0, "")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [(a["device.id"], a["step"], a["prediction"]) for a in found] == [
        each[:3] for each in expected(ROWS)
    ]


def quoted(rows):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return text.getvalue()


LOOKS = {
    "BOM": "\ufeff" + as_csv(ROWS),
    "CRLF": as_csv(ROWS, end="\r\n"),
    "no end": as_csv(ROWS)[:-1],
    "blank lines": "\n\n" + as_csv(ROWS).replace("\n", "\n\n"),
    "quotes": quoted([("device", "x", "y"), *ROWS]),
}


@pytest.mark.parametrize("look", LOOKS)
def test_what_files_look_like(stream, look):
    done = stream(LOOKS[look], "--key", "device")
    assert (done.code, done.err) == (0, "")
    assert shown(done.out, "device") == expected(ROWS)


def test_blanks_around_numbers_and_names(stream):
    done = stream("device, x ,y\na, 1 , 2\n", "--key", "device")
    assert shown(done.out, "device") == expected([("a", 1, 2)])


def test_a_byte_order_mark_before_a_header_that_is_a_key(stream):
    done = stream("\ufeffdevice;x;y\r\na;1;2\r\n", "--key", "device", "--separator", ";")
    assert shown(done.out, "device") == expected([("a", 1, 2)])


def test_json_lines(stream):
    text = "".join(json.dumps({"y": y, "x": x, "device": k, "z": [1]}) + "\n" for k, x, y in ROWS)
    done = stream(text, "--key", "device")
    came = [json.loads(line) for line in done.out.splitlines()]
    meant = expected(ROWS)
    keys = [(r["device"], r["step"], r["prediction"]) for r in came]
    assert [(*key, f"{r['probability']:.6f}") for key, r in zip(keys, came, strict=True)] == meant


def test_json_arrays(stream):
    rows = [(None, x, y) for _, x, y in ROWS]
    done = stream("".join(f"[{x}, {y}]\n" for _, x, y in rows))
    came = [json.loads(line) for line in done.out.splitlines()]
    given = [(r["step"], r["prediction"], f"{r['probability']:.6f}") for r in came]
    assert [(None, *each) for each in given] == expected(rows)
    assert "no column for --key" in stream("[1, 2]\n", "--key", "device").err


def test_answers_as_json(stream):
    done = stream(as_csv(ROWS), "--key", "device", "--json")
    came = [json.loads(line) for line in done.out.splitlines()]
    assert [r["step"] for r in came] == [n for _, n, _, _ in expected(ROWS)]


def test_on_change(stream):
    done = stream(as_csv(ROWS), "--key", "device", "--on-change")
    before, meant = {}, []
    for row in expected(ROWS):
        if before.get(row[0]) != row[2]:
            meant.append(row)
        before[row[0]] = row[2]
    assert 3 < len(meant) < len(ROWS)
    assert shown(done.out, "device") == meant


def test_until_confidence(stream):
    done = stream(as_csv(ROWS), "--key", "device", "--until-confidence", 0.7)
    meant = {}
    for row in expected(ROWS):
        if float(row[3]) >= 0.7:
            meant.setdefault(row[0], row)
    assert sorted(shown(done.out, "device")) == sorted(meant.values())
    alone = stream("x,y\n0,0.1\n0,9\n0,no number\n", "--until-confidence", 0.9)
    assert alone.code == 0  # the last line is not read any more
    assert len(answers(alone.out)) == 1
    never = stream("device,x,y\na,0,0.1\nb,0,9\n", "--key", "device", "--until-confidence", 0.99)
    assert "1 of 2 streams never reached 0.99" in never.err


class Pushed(stand_in.Model):
    """Remembers its rows, and answers as a classifier with several labels does."""

    def __init__(self):
        super().__init__(missing="mask")
        self.rows = []

    def stream(self, state=None):
        return self

    def push(self, x):
        self.rows.append(x.tolist())
        proba = np.array([0.9, 0.2, 0.75], np.float32)
        return stand_in.Answer(len(self.rows), ("warm", "wet"), proba)


def test_until_it_is_sure(stream):
    """From the probability on that the training found."""
    model = stand_in.Model()
    model.sure_from = 0.7
    flags = ("--key", "device", "--until-confidence")
    asked = stream(as_csv(ROWS), *flags, 0.7).out
    assert stream(as_csv(ROWS), *flags, "sure", model=model).out == asked
    model.sure_from = None
    for value, reason in (("sure", "trained with early_error"), ("1.5", "from 0 to 1, or sure")):
        done = stream(as_csv(ROWS), *flags, value, model=model)
        assert done.code == 2
        assert reason in done.err


def test_many_lines_that_the_model_refuses(stream):
    """Each is left out by itself; their number does not matter."""
    text = "x,y\n1,2\n" + "1e9,1\n" * 3000 + "1,2\n"
    done = stream(text, "--skip")
    assert "3000 lines were invalid" in done.err
    assert [row["step"] for row in answers(done.out)] == ["1", "2"]


def test_missing_values(stream):
    model = Pushed()
    assert stream("x,y\n1,2\n,3\nNA, 4\n5,\n", model=model).code == 0
    nan = np.nan
    np.testing.assert_array_equal(model.rows, [[1, 2], [nan, 3], [nan, 4], [5, nan]])
    model = Pushed()
    assert stream('{"x": 1, "y": 2}\n{"x": null, "y": 3}\n', model=model).code == 0
    np.testing.assert_array_equal(model.rows, [[1, 2], [nan, 3]])


def test_values_are_written_as_in_a_table_to_train_on(stream):
    """Missing numbers and truth values are written as in the training file."""
    model = Pushed()
    lines = [f"{missing},1\n" for missing in MISSING]
    assert stream("x,y\n" + "".join(lines), model=model).code == 0
    np.testing.assert_array_equal(model.rows, [[np.nan, 1]] * len(MISSING))
    model = Pushed()
    assert stream("x,y\nTRUE,False\nfalse, true\n", model=model).code == 0
    np.testing.assert_array_equal(model.rows, [[1, 0], [0, 1]])
    model = Pushed()
    assert stream('{"x": true, "y": false}\n', model=model).code == 0
    np.testing.assert_array_equal(model.rows, [[1, 0]])


@pytest.mark.parametrize("value", ["1_000", "٣", "５", "0x1p3"])
def test_what_is_a_number_to_python_alone_is_none(stream, value):
    done = stream(f"x,y\n1,2\n{value},1\n", model=Pushed())
    assert (done.code, f"line 3: {value!r} is not a number" in done.err) == (2, True)


def test_nan_in_json_is_missing(stream):
    model = Pushed()
    assert stream('{"x": NaN, "y": 3}\n', model=model).code == 0
    np.testing.assert_array_equal(model.rows, [[np.nan, 3]])


def test_several_labels(stream):
    """The probability is that of the decision that is least sure."""
    assert stream("x,y\n1,2\n", model=Pushed()).out == HEADER + "1,warm;wet,0.750000\n"
    (line,) = stream("x,y\n1,2\n", "--json", model=Pushed()).out.splitlines()
    assert json.loads(line) == {"step": 1, "prediction": ["warm", "wet"], "probability": 0.75}


def test_a_model_that_reads_text(stream):
    model = stand_in.Model(names=None)
    model.vocabulary = "abc"
    done = stream("x,y\n", model=model)
    assert (done.code, "the model reads text" in done.err) == (2, True)


# ---- lines that are wrong

WRONG = {
    "too few": ("3", "there are 1 fields; wanted 2"),
    "too many": ("3,4,5", "there are 3 fields; wanted 2"),
    "a word": ("3,four", "'four' is not a number"),
    "missing": ("3,", "y is missing or infinite"),
    "infinite": ("inf,1", "x is missing or infinite"),
    "an open quote": ('"3,4', "unexpected end of data"),
    "no text": (b"3,\xff", "it is not text in UTF-8"),
    "too far": ("3,1e9", "too far from those of the training part"),
}


@pytest.mark.parametrize("at", one_in(3, [0, 1, 7, 29]))
@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_line(stream, kind, at):
    wrong, reason = WRONG[kind]
    wrong = wrong if isinstance(wrong, bytes) else wrong.encode()
    rows = [(None, x, y) for _, x, y in ROWS[:30]]
    lines = [f"{x},{y}".encode() for _, x, y in rows]
    text = b"\n".join([b"x,y", *lines[:at], wrong, *lines[at:]]) + b"\n"
    stopped = stream(text)
    assert stopped.code == 2
    assert f"rows, line {at + 2}: " in stopped.err
    assert reason in stopped.err
    assert shown(stopped.out) == expected(rows[:at])
    skipped = stream(text, "--skip")
    assert skipped.code == 0
    assert "1 lines were invalid, and left out" in skipped.err
    assert shown(skipped.out) == expected(rows)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "it is not JSON"),
        ('{"x": 1}', "'y' is missing"),
        ('{"x": 1, "y": "2"}', "'y' is '2'; wanted a number"),
        ('{"x": 1, "y": null}', "y is missing or infinite"),
        ('{"x": 1, "y": 1e400}', "y is missing or infinite"),
        ("7", "not a JSON object"),
        pytest.param('{"x": ' + "[" * 10_000, "nested too deeply", id="lists without end"),
    ],
)
def test_a_wrong_json_line(stream, line, reason):
    done = stream('{"x": 1, "y": 2}\n' + line + "\n")
    assert done.code == 2
    assert f"line 2: {reason}" in done.err or reason in done.err
    assert len(done.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "flags", "reason"),
    [
        ("1,2\n", (), "names no columns"),
        ("x,z\n1,2\n", (), "there is no column 'y'; the columns are x, z"),
        ("x,y\n1,2\n", ("--key", "id"), "there is no column 'id'"),
        ("x,x,y\n1,2,3\n", (), "named twice"),
        ("x,y\n", ("--on-change", "--until-confidence", 0.5), "exclude each other"),
        ("x,y\n", ("--separator", ";;"), "wanted one character"),
        ("x,y\n", ("--separator", "\\n"), "wanted one character"),
        ("x,y\n", ("--state", "/nowhere/at/all"), "no directory"),
    ],
)
def test_refusals(stream, content, flags, reason):
    done = stream(content, *flags)
    assert done.code == 2
    assert reason in done.err
    assert "Traceback" not in done.err


def test_an_empty_input_has_no_answers(stream):
    for content in ("", "\n\n", "x,y\n"):
        done = stream(content)
        assert (done.code, done.err) == (0, "")
        assert done.out in ("", HEADER)


def test_a_file_that_is_not_there(ostinato, monkeypatch, tmp_path):
    stand_in.install(monkeypatch, stand_in.Model())
    done = ostinato("stream", "run", tmp_path / "nothing.csv")
    assert done.code == 2
    assert "No such file" in done.err


# ---- snapshots


def test_going_on(stream, tmp_path):
    """A file that grows: the streams go on where they were, and no header is written again."""
    flags = ("--key", "device", "--state", tmp_path / "state")
    text = as_csv(ROWS)
    lines = text.splitlines(keepends=True)
    first = stream("".join(lines[:21]) + lines[21][:3], *flags)  # in the middle of a line
    assert "the last line has no end yet" in first.err
    second = stream(text, *flags)
    third = stream(text, *flags)
    assert shown(first.out + second.out, "device") == expected(ROWS)
    assert (third.code, third.out) == (0, "")


def test_going_on_with_one_answer_a_key(stream, tmp_path):
    flags = ("--key", "device", "--until-confidence", 0.7, "--state", tmp_path / "state")
    text = as_csv(ROWS)
    lines = text.splitlines(keepends=True)
    parts = [stream("".join(lines[:n]), *flags).out for n in (4, 30, len(lines))]
    assert "".join(parts) == stream(text, *flags[:-2]).out


def test_going_on_with_changes(stream, tmp_path):
    flags = ("--key", "device", "--on-change", "--state", tmp_path / "state")
    text = as_csv(ROWS)
    lines = text.splitlines(keepends=True)
    parts = [stream("".join(lines[:n]), *flags).out for n in (4, 30, len(lines))]
    assert "".join(parts) == stream(text, *flags[:-2]).out


def test_a_stop_at_a_wrong_line_is_saved(stream, tmp_path):
    """Whoever mends the line goes on with it."""
    flags = ("--key", "device", "--state", tmp_path / "state")
    lines = as_csv(ROWS).splitlines(keepends=True)
    stopped = stream("".join([*lines[:9], "a,1,wrong\n", *lines[9:]]), *flags)
    assert stopped.code == 2
    done = stream("".join(lines), *flags)
    assert shown(stopped.out + done.out, "device") == expected(ROWS)


@pytest.mark.parametrize(
    ("content", "flags", "reason"),
    [
        ("device,x,y\nb,1,2\n", ("--key", "device"), "is not the file that"),
        ("device", ("--key", "device"), "is not the file that"),
        (None, ("--key", "x"), "key device, not x"),
        (None, ("--key", "device", "--on-change"), "made with rule"),
    ],
)
def test_a_state_of_something_else(stream, tmp_path, content, flags, reason):
    state = tmp_path / "state"
    assert stream("device,x,y\na,1,2\n", "--key", "device", "--state", state).code == 0
    kept = state.read_bytes()
    done = stream(content, *flags, "--state", state)
    assert done.code == 2
    assert reason in done.err
    assert state.read_bytes() == kept


def test_a_damaged_state(stream, tmp_path):
    state = tmp_path / "state"
    text = "device,x,y\na,1,2\n"
    assert stream(text, "--key", "device", "--state", state).code == 0
    whole = state.read_bytes()
    for damaged in (whole[:-1], b"x" + whole, whole[:30], whole[:-1] + b"\xff", b"nothing"):
        state.write_bytes(damaged)
        done = stream(text, "--key", "device", "--state", state)
        assert done.code == 2
        assert "not a state of ostinato stream, or is damaged" in done.err
    state.write_bytes(whole.replace(b'"a", 16', b'"a", 15'))  # another model's, by its size
    assert "Traceback" not in stream(text, "--key", "device", "--state", state).err


# ---- saved models


def test_a_state_of_another_model(ostinato, trained, tmp_path):
    file, flags = tmp_path / "rows.csv", ("--state", tmp_path / "state")
    file.write_text("x,y\n1,2\n")
    assert ostinato("stream", trained, file, *flags).code == 0
    file.write_text("x,y\n1,2\n3,4\n")
    config = trained / "model" / "config.json"
    config.write_text(config.read_text() + "\n")  # which changes the fingerprint
    done = ostinato("stream", trained, file, *flags)
    assert done.code == 2
    assert "this state belongs to another model" in done.err


def test_a_model_that_reads_both_ways(ostinato, data, tmp_path):
    flags = ("--iterations", 2, "--bidirectional", "--output", tmp_path / "both")
    assert ostinato("train", data, *SMALL, *flags).code == 0
    rows = tmp_path / "rows.csv"
    rows.write_text("x,y\n")
    done = ostinato("stream", tmp_path / "both", rows)
    assert done.code == 2
    assert "rnn layer 0 also reads from the end" in done.err


def test_a_tagger(ostinato, tmp_path):
    """A label for each step; with a CRF it depends on the end, and is refused."""
    rows = tmp_path / "rows.csv"
    rows.write_text("id,a\ns,1\nt,2\ns,3\n")
    for crf in ("--no-crf", "--crf"):
        run = tmp_path / crf
        recipe = (crf, "--no-bidirectional", "--output", run)
        assert ostinato("train", *tag(tmp_path), *QUICK, *recipe).code == 0
        done = ostinato("stream", run, rows, "--key", "id")
        if crf == "--crf":
            assert done.code == 2
            assert "it has a CRF" in done.err
        else:
            assert [(r["id"], r["step"]) for r in answers(done.out)] == [
                ("s", "1"),
                ("t", "1"),
                ("s", "2"),
            ]


def test_columns_of_a_table(ostinato, tmp_path):
    """A model of a table finds its columns by name, and knows what to do about missing values."""
    table = classify(tmp_path)
    recipe = ("--no-bidirectional", "--missing", "mask", "--output", tmp_path / "run")
    assert ostinato("train", *table, *QUICK, *recipe).code == 0
    rows = tmp_path / "rows.csv"
    rows.write_text("b,id,a\n1,s,2\n,s,2\n1,t,\n")
    done = ostinato("stream", tmp_path / "run", rows, "--key", "id")
    assert (done.code, done.err) == (0, "")
    assert [(row["id"], row["step"]) for row in answers(done.out)] == [
        ("s", "1"),
        ("s", "2"),
        ("t", "1"),
    ]
    refused = ostinato("stream", tmp_path / "run", rows, "--key", "device")
    assert "there is no column 'device'; the columns are b, id, a" in refused.err


def _events(folder, n, events=("click", "home", "cart")):
    """A table of visits, by id and step: what was done, and how long."""
    generator = np.random.default_rng(n)
    rows = [
        {
            "id": f"v{i}",
            "event": str(event),
            "secs": round(float(secs), 3),
            "buys": str(i % 2),
            "place": str(i % 3),
            "is": "hit" if event == "click" else "miss",
        }
        for i in range(n)
        for event, secs in zip(generator.choice(events, 5), generator.normal(size=5), strict=True)
    ]
    for name, text in {
        "csv": as_csv([row.values() for row in rows], rows[0]),
        "jsonl": "".join(json.dumps(row) + "\n" for row in rows),
    }.items():
        (folder / f"{n}.{name}").write_text(text)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "flags",
    [
        ("--classify", "buys", "--features", "event,secs"),
        ("--tag", "is", "--features", "secs,event", "--no-crf"),
        ("--classify", "buys", "--features", "event,place,secs", "--categories", "place"),
        ("--tag", "is", "--features", "event", "--no-crf"),  # words of a vocabulary
    ],
)
def test_rows_of_events(ostinato, tmp_path, kind, flags):
    """Columns of names: the last answers to each sequence are those of predict."""
    _events(tmp_path, 40)
    _events(tmp_path, 6, ("click", "home", "new"))
    run, rows = tmp_path / "run", tmp_path / f"6.{kind}"
    recipe = ("--id", "id", "--no-bidirectional", "--output", run)
    assert ostinato("train", tmp_path / f"40.{kind}", *flags, *recipe, *QUICK).code == 0
    wanted = answers(ostinato("predict", run, rows, "--proba").out)
    done = ostinato("stream", run, rows, "--key", "id")
    assert done.code == 0, done.err
    assert ("values of 'event' were not in the training part" in done.err) is ("secs" in flags[3])
    found = (
        [json.loads(line) for line in done.out.splitlines()]
        if kind == "jsonl"
        else answers(done.out)
    )
    if flags[0] == "--classify":
        found = [row for row in found if int(row["step"]) == 5]
    assert len(found) == len(wanted) > 0
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours["id"], ours["prediction"]) == (theirs["id"], theirs["prediction"])
        assert float(ours["probability"]) == pytest.approx(float(theirs["probability"]), abs=2e-6)


def test_an_event_that_is_missing(ostinato, tmp_path):
    _events(tmp_path, 40)
    run, rows = tmp_path / "run", tmp_path / "rows.csv"
    flags = ("--id", "id", "--classify", "buys", "--no-bidirectional", "--output", run)
    for features, wanted in (("event,secs", "a name"), ("event", "a name")):
        table = (tmp_path / "40.csv", "--features", features)
        assert ostinato("train", *table, *flags, "--overwrite", *QUICK).code == 0
        rows.write_text("event,secs\nhome,1\n ,2\n")
        done = ostinato("stream", run, rows)
        assert (
            done.code,
            f"line 3: event is missing or infinite; wanted {wanted}" in done.err,
        ) == (2, True)


def test_a_file_like_the_one_of_the_run(ostinato, tmp_path):
    """Its separator is known, and a column of row numbers has no name, as pandas writes it."""
    source, *flags = classify(tmp_path)
    semicolons = tmp_path / "semicolons.csv"
    semicolons.write_text(Path(source).read_text().replace(",", ";"))
    recipe = ("--no-bidirectional", "--separator", ";", "--output", tmp_path / "run")
    assert ostinato("train", semicolons, *flags, *QUICK, *recipe).code == 0
    rows = tmp_path / "rows.csv"
    rows.write_text(";b;id;a\n0;1;s;2\n1;3;s;2\n")
    done = ostinato("stream", tmp_path / "run", rows, "--key", "id")
    assert (done.code, done.err) == (0, "")
    assert [(row["id"], row["step"]) for row in answers(done.out)] == [("s", "1"), ("s", "2")]


def test_a_device_file_is_trained_on_predicted_and_streamed(ostinato, tmp_path):
    """Comments above the header, markers of missing values, signs between thousands."""
    rng, lines = np.random.default_rng(0), ["# meter 7, Ann", "# units: mg", "id;t;dose;kind;y"]
    for i in range(40):
        for t in range(4):
            dose = "Low" if t == 1 else f"{1000 * (1 + i % 2) + int(rng.integers(9))}"
            dose = dose if dose == "Low" else f"{dose[0]}'{dose[1:]}"
            lines.append(f"s{i};{t};{dose};{'n/a' if t == 2 else 'ab'[i % 2]};{'ud'[i % 2]}")
    file, plain = tmp_path / "device.csv", tmp_path / "plain.csv"
    file.write_text("\n".join(lines))
    cleaned = [line.replace("Low", "").replace("n/a", "").replace("'", "") for line in lines[2:]]
    plain.write_text("\n".join(cleaned))
    flags = ("--id", "id", "--time", "t", "--features", "dose,kind", "--classify", "y",
             "--separator", ";", "--missing", "mask", "--no-bidirectional", *QUICK)  # fmt: skip
    written = ("--na", "Low,n/a", "--thousands", "'")
    for name, source, more in (("run", file, written), ("plain", plain, ())):
        assert ostinato("train", source, *flags, *more, "--output", tmp_path / name).code == 0
    predicted = [
        ostinato("predict", tmp_path / name, source).out
        for name, source in (("run", file), ("plain", plain))
    ]
    assert predicted[0] == predicted[1] and predicted[0].count("\n") == 41
    streamed = [
        ostinato("stream", tmp_path / name, source, "--key", "id").out
        for name, source in (("run", file), ("plain", plain))
    ]
    assert streamed[0] == streamed[1] and streamed[0].count("\n") == 161
    done = ostinato("predict", tmp_path / "run", plain, "--na", "Low", "--skip-lines", 1)
    assert done.code == 2 and "there is no column 'id'" in done.err


def test_rows_without_a_name_have_the_tabs_of_the_run(ostinato, tmp_path, monkeypatch):
    source, *flags = classify(tmp_path)
    table = tmp_path / "TABLE.TSV"
    table.write_text(Path(source).read_text().replace(",", "\t"))
    recipe = ("--no-bidirectional", "--output", tmp_path / "run")
    assert ostinato("train", table, *flags, *QUICK, *recipe).code == 0
    rows = tmp_path / "rows"
    rows.write_text("b\tid\ta\n1\ts\t2\n3\ts\t2\n")
    with rows.open() as handle:
        monkeypatch.setattr("sys.stdin", handle)
        done = ostinato("stream", tmp_path / "run", "--key", "id")
    assert (done.code, done.err) == (0, "")
    assert [(row["id"], row["step"]) for row in answers(done.out)] == [("s", "1"), ("s", "2")]

    commas = tmp_path / "rows.csv"  # which says itself what it has
    commas.write_text(rows.read_text().replace("\t", ","))
    assert ostinato("stream", tmp_path / "run", commas, "--key", "id").out == done.out


@pytest.mark.parametrize("separator", [(), ("--separator", "\\t")], ids=["tsv", "named"])
def test_tabs(stream, tmp_path, ostinato, separator):
    stream(None, model=stand_in.Model())
    rows = tmp_path / ("rows.tsv" if not separator else "rows.csv")
    rows.write_text("device\tx\ty\na\t1\t2\n")
    done = ostinato("stream", "run", rows, "--key", "device", *separator)
    assert (done.code, shown(done.out, "device")) == (0, expected([("a", 1, 2)]))


@pytest.mark.parametrize("letter", ["a", "é", "✓"])
def test_pieces_of_output(monkeypatch, letter):
    """Whole lines that a pipe takes at once, however many bytes a letter has."""

    class Out:
        def __init__(self):
            self.pieces, self.flushed = [], 0

        def write(self, text):
            self.pieces.append(text.encode())

        def flush(self):
            self.flushed += 1

    out = Out()
    monkeypatch.setattr("sys.stdout", out)
    random = np.random.default_rng(0)
    lines = [letter * int(n) + "\n" for n in random.integers(0, 300, 500)]
    stream_answers.show(lines)
    assert b"".join(out.pieces).decode() == "".join(lines)
    assert max(map(len, out.pieces)) <= 4096
    assert min(map(len, out.pieces[:-1])) > 4096 / 8  # and not a write for each line
    assert all(piece.endswith(b"\n") for piece in out.pieces)
    assert out.flushed == len(out.pieces)


def test_a_packed_file_and_another_separator_are_reported(ostinato, stream, tmp_path):
    """Rows come as they are written: nothing is unpacked, and nothing is guessed."""
    assert "--separator ';'" in stream("device;x;y\na;1;2\n", "--key", "device").err
    packed = tmp_path / "rows.csv.gz"
    packed.write_bytes(b"")
    refused = ostinato("stream", "run", packed)
    assert (refused.code, "gzip -dc" in refused.err) == (2, True)


@pytest.mark.parametrize("content", [b"x\n1\n2\n", b"x\n1\n2"])
def test_a_state_is_at_the_end_of_what_was_answered(content):
    lines = Lines()
    for piece in (content[:3], content[3:]):
        lines.done(lines.add(piece))
    lines.done([lines.rest()] if lines.rest() else [], ended=False)
    assert (lines.position, lines.number) == (len(content), 4)
