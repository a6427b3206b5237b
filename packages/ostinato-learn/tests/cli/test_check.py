"""ostinato check: exit codes, text and JSON, files, tables, data sets and runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cli_examples import make_file

from ostinato_learn.data.checks import check
from ostinato_learn.data.sequences.examples import Examples


@pytest.fixture
def noise(tmp_path):
    """A file without anything to find, and its arrays."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(100, 30, 2)).astype(np.float32)
    y = generator.choice(["up", "down"], 100)
    np.savez(tmp_path / "noise.npz", X=X, y=y)
    return tmp_path / "noise.npz", X, y


def table(path, rows=40, steps=6):
    """A long table: 40 people with 6 steps each, three in four of them for training."""
    generator = np.random.default_rng(1)
    lines = ["id,time,speed,who,part,mode"]
    for i in range(rows):
        part = "test" if i % 4 == 0 else "train"
        lines += [
            f"s{i},{t},{generator.normal():.6f},p{i % 10},{part},{'car' if i % 2 else 'bus'}"
            for t in range(steps)
        ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_nothing_to_find(ostinato, noise):
    path, _, _ = noise
    done = ostinato("check", path)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{path}: 100 sequences; 30 steps, 2 features\n\nnothing found\n"


def test_a_file_without_labels(ostinato, tmp_path):
    path = make_file(tmp_path / "bare.npz", labelled=False)
    assert ostinato("check", path).code == 0


def test_serious_findings_have_exit_code_1(ostinato, noise):
    path, X, y = noise
    np.savez(path.with_name("test.npz"), X=X[:10], y=y[:10])
    done = ostinato("check", path, "--test", path.with_name("test.npz"))
    assert done.code == 1
    assert "serious: 10 of 10 (100 %) test sequences are training sequences too" in done.out
    assert "  where: test sequence 1 = training sequence 1; test sequence 2" in done.out
    assert "\n  do: leave them out" in done.out
    assert done.out.endswith("1 serious, 0 warnings, 0 notes\n")


def test_json_is_what_the_library_finds(ostinato, noise):
    path, X, y = noise
    X[3, 4, 1], X[90] = np.nan, X[5]
    np.savez(path, X=X, y=y)
    done = ostinato("check", path, "--json")
    shown = json.loads(done.out)
    assert shown["findings"] == [f.as_json() for f in check(Examples(X, y))]
    assert {f["code"] for f in shown["findings"]} >= {"missing-values", "copies"}
    assert (shown["sequences"], shown["test_sequences"], shown["serious"]) == (100, None, done.code)


def test_a_table_with_parts_and_groups(ostinato, tmp_path):
    path = table(tmp_path / "trips.csv")
    roles = ("--classify", "mode", "--features", "speed", "--id", "id", "--time", "time")
    assert ostinato("check", path, *roles, "--quiet").code == 0
    done = ostinato("check", path, *roles, "--split", "part", "--group", "who", "--quiet")
    assert done.code == 1
    assert "30 sequences for training, 10 for testing; 6 steps, 1 feature" in done.out
    assert "5 of 5 (100 %) groups of the test part are in the training part too" in done.out
    done = ostinato("check", path, *roles, "--split", "part", "--group", "id", "--quiet")
    assert done.code == 0


def test_a_forecast(ostinato, tmp_path):
    path = table(tmp_path / "trips.csv")
    done = ostinato("check", path, "--forecast", "speed", "--id", "id", "--time", "time", "-q")
    assert done.code == 0
    assert "40 sequences; 6 steps, 1 feature" in done.out


def test_the_flags_of_train_mean_here_what_they_mean_there(ostinato, tmp_path):
    path = table(tmp_path / "trips.csv")
    rows = path.read_text().splitlines()
    rows[1] = "s0,0,,p0,test,bus"
    path.write_text("\n".join(rows) + "\n")
    named = ("--id", "id", "--time", "time")
    roles = ("--classify", "mode", "--features", "speed", *named)
    drawn = ostinato("check", path, *roles, "--test-fraction", 0.25, "--missing", "mask", "-q").out
    assert "30 sequences for training, 10 for testing" in drawn
    assert "with --missing mask a training accepts them" in drawn
    (tmp_path / "trips.toml").write_text(
        '[data]\nid = "id"\ntime = "time"\nfeatures = ["speed"]\ntest_fraction = 0.25\n'
        'missing = "mask"\n[task]\nclassify = "mode"\n'
    )
    assert ostinato("check", path, "--config", tmp_path / "trips.toml", "-q").out == drawn
    series = ("--forecast", "speed", *named)
    for flags, message in [
        ((*roles, "--static", "who"), "--static is for forecast, not for classify"),
        ((*named, "--horizon", 2), "--horizon is for one task; name the target"),
        ((*series, "--season", 2), "--season need --horizon"),
        ((*series, "--horizon", 6), "6"),
        ((*roles, "--no-standardize"), "--no-standardize changes nothing here"),
    ]:
        done = ostinato("check", path, *flags)
        assert message in done.err
        assert done.code == (0 if "--no-standardize" in flags else 2)


def test_a_data_set(ostinato):
    done = ostinato("check", "vowels")
    assert done.code == 0
    assert "270 sequences for training, 370 for testing" in done.out
    assert "[shortcut-order]" in done.out


def test_a_run_has_the_parts_that_it_was_trained_with(ostinato, trained, data):
    before = {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()}
    shown = json.loads(ostinato("check", trained, "--json").out)
    assert (shown["sequences"], shown["test_sequences"]) == (48, 12)
    assert shown["source"] == str(data)
    assert {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()} == before
    with np.load(data) as arrays:
        X, y = arrays["X"], arrays["y"]
    np.savez(data, X=np.concatenate([X[:30], X[:30]]), y=np.concatenate([y[:30], y[:30]]))
    done = ostinato("check", trained)
    assert done.code == 1
    assert "[same-sequence]" in done.out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("austen", "--classify", "mode"), "--classify is not for austen"),
        (("nowhere.npz",), "nowhere.npz: no such file"),
        (("nowhere",), "'nowhere' is not a data set"),
        (("-",), "- is for evaluate and predict"),
        (("vowels", "--group", "who"), "--group is for tables"),
        (("vowels", "--level", "word"), "--level is for language, not for classify; leave it out"),
        (("vowels", "--test", "vowels"), "--test is for files"),
    ],
)
def test_refusals(ostinato, arguments, message):
    done = ostinato("check", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_flags_are_not_for_a_run(ostinato, trained):
    done = ostinato("check", trained, "--test-fraction", 0.5)
    assert done.code == 2
    assert "--test-fraction is for a file" in done.err


def test_a_model_alone_has_no_data(ostinato, trained):
    done = ostinato("check", trained / "model")
    assert done.code == 2
    assert "is a model without a run; name the FILE to check" in done.err


def test_a_damaged_file(ostinato, tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    done = ostinato("check", tmp_path / "bad.npz")
    assert done.code == 2
    assert "not an .npz archive" in done.err
