"""Files as other programs export them: no refusal before a model; Python reads alike."""

from __future__ import annotations

import json
from datetime import date, timedelta

import numpy as np
import pytest
import torch

import ostinato_learn as package

pytest.importorskip("pyarrow")

SMALL = {"hidden_size": 4, "batch_size": 8, "iterations": 12}
FLAGS = ("--hidden-size", 4, "--batch-size", 8, "--iterations", 12, "--threads", 1)


def values() -> list[tuple[int, int, float, str]]:
    """Trips of six steps: trip, step, value, mode."""
    drawn = np.random.default_rng(0).uniform(0, 300, (40, 6))
    return [
        (i, t, 1000 * (1 + i % 2) + float(drawn[i, t]), ("Rad", "Fußgänger")[i % 2])
        for i in range(40)
        for t in range(6)
    ]


def german() -> bytes:
    """As Excel in Germany writes CSV."""
    rows = ["Fahrt;Datum;Größe;Art"]
    for i, t, value, mode in values():
        written = f"{value:,.2f}".translate({44: ".", 46: ","})
        rows.append(f"F{i};{date(2024, 1, 1) + timedelta(t):%d.%m.%Y};{written};{mode}")
    return ("\r\n".join(rows) + "\r\n").encode("cp1252")


def tabs() -> bytes:
    """Every field in quotes, under a name that ends with .csv."""
    rows = ['"Fahrt"\t"Datum"\t"Größe"\t"Art"']
    for i, t, value, mode in values():
        rows.append(f'"F{i}"\t"2024-01-0{1 + t} 08:00:00"\t"{value:.2f}"\t"{mode}"')
    return "\n".join(rows).encode()


def of_sheets() -> bytes:
    """UTF-16 with tabs, which spreadsheets call Unicode text."""
    return tabs().replace(b'"', b"").decode().encode("utf-16")


def thousands() -> bytes:
    rows = ["Fahrt|Datum|Größe|Art"]
    for i, t, value, mode in values():
        rows.append(f"F{i}|{1 + t}/31/2024|{value:,.2f}|{mode}".replace("/31/", "/20/"))
    return "\n".join(rows).encode()


FILES = {
    "a German export": (german, "read as: ; decimal , thousands . cp1252"),
    "tabs and quotes": (tabs, "read as: tabs"),
    "Unicode text": (of_sheets, "read as: tabs utf-16"),
    "bars, months first": (thousands, "read as: | thousands ,"),
}


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", FILES)
def test_no_refusal_before_the_first_model(ostinato, tmp_path, one_thread, case):
    """From the dry run to answers, which are those of Python to the last bit."""
    content, said = FILES[case]
    file, run = tmp_path / "export.csv", tmp_path / "run"
    file.write_bytes(content())
    aim = ("--classify", "Art", "--id", "Fahrt", "--time", "Datum")
    looked = ostinato("train", file, *aim, "--dry-run")
    assert (looked.code, said in looked.err) == (0, True), looked.err
    assert ostinato("train", file, *aim, *FLAGS, "--test", file, "--output", run).code == 0
    answered = ostinato("predict", run, file)
    assert answered.code == 0 and answered.out.count("Rad") > 0
    model = package.SequenceClassifier(**SMALL).fit(file, label="Art", id="Fahrt", time="Datum")
    theirs = package.load(run)
    assert np.array_equal(model.predict_proba(file), theirs.predict_proba(file))
    wanted = sorted(value for _, _, value, _ in values())
    assert np.allclose(np.sort(model.read(file).values.ravel()), wanted, rtol=1e-5)


def test_a_later_file_is_read_like_the_file_of_the_training(ostinato, tmp_path, one_thread):
    """Whole thousands alone have two readings; the model knows which one is meant."""
    file, run, later = tmp_path / "export.csv", tmp_path / "run", tmp_path / "later.csv"
    file.write_bytes(german())
    aim = ("--classify", "Art", "--id", "Fahrt", "--time", "Datum")
    assert ostinato("train", file, *aim, *FLAGS, "--output", run, "--quiet").code == 0
    later.write_text("Fahrt;Datum;Größe\nF1;01.01.2024;1.180\nF1;02.01.2024;2.150\n", "cp1252")
    assert ostinato("predict", run, later).code == 0
    assert package.load(run).read(later).values.ravel().tolist() == [1180, 2150]


def test_lists_of_objects_lose_no_number(ostinato, tmp_path):
    file = tmp_path / "events.jsonl"
    rows = [
        {
            "id": i,
            "label": "ab"[i % 2],
            "events": [{"amount": i % 2 + 0.5, "kind": "x"} for _ in range(3)],
        }
        for i in range(40)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    looked = ostinato("train", file, "--classify", "label", "--dry-run")
    assert looked.code == 0 and "'events.amount'" in looked.out
