"""From files as people export them to a first model: one refusal at most, whose advice works.

Python gives the answers of the command line, to the last bit. `test_exported_files.py` has the
journeys of one table that several programs write.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import torch
from task_files import QUICK

import ostinato_learn as package

pytest.importorskip("pyarrow")

SMALL = {"hidden_size": 4, "batch_size": 8, "iterations": 12}


def reviews() -> bytes:
    """A TSV file of texts, with quotes in them, and a number beside them."""
    drawn, rows = np.random.default_rng(0), ["review\tstars\tverdict"]
    for i in range(60):
        word = drawn.choice(["great", "lovely"] if i % 2 else ["awful", "poor"])
        things = " ".join(drawn.choice(["room", "food", "bed", "view"], 5))
        rows.append(
            f'"The ""{word}"" {things}, no. {i}"\t{1 + i % 5}\t{"good" if i % 2 else "bad"}'
        )
    return ("\n".join(rows) + "\n").encode()


def events() -> bytes:
    """Purchases of customers, a line of JSON each."""
    drawn, lines = np.random.default_rng(1), []
    for i in range(40):
        purchases = [
            {
                "at": f"2024-05-0{1 + t}T10:00:00",
                "amount": round(float(drawn.exponential(20 + 60 * (i % 2))), 2),
                "shop": str(drawn.choice(["web", "atm"])),
            }
            for t in range(3 + i % 4)
        ]
        lines.append({"customer": f"C{i}", "fraud": "ny"[i % 2], "events": purchases})
    return "\n".join(map(json.dumps, lines)).encode()


def glucose() -> bytes:
    """A sensor's file, which has some times twice; months come first."""
    drawn, rows = np.random.default_rng(2), ["PatientID,Timestamp,Glucose (mg/dL),State"]
    for i in range(24):
        for t in range(30):
            when = f"{datetime(2024, 1, 1 + i, 8) + timedelta(minutes=5 * t):%m/%d/%Y %H:%M}"
            value, state = 100 + 40 * (i % 2) + 5 * drawn.normal(), ("normal", "high")[i % 2]
            for again in range(2 if t % 17 == 3 else 1):
                rows.append(f"P{i},{when},{value + again:.0f},{state}")
    return ("\n".join(rows) + "\n").encode()


def activity() -> bytes:
    """Two long recordings, with decimal commas."""
    drawn, rows = np.random.default_rng(3), ["subject;time;ax;ay;activity"]
    for subject in (1, 2):
        for t in range(400):
            kind = t // 50 % 3
            numbers = [t * 0.02, *(drawn.normal(size=2) * (0.2, 0.6, 1.2)[kind])]
            written = ";".join(f"{number:.3f}" for number in numbers).replace(".", ",")
            rows.append(f"{subject};{written};{('sit', 'walk', 'run')[kind]}")
    return "\n".join(rows).encode()


def shops() -> bytes:
    """Sales of Excel in Germany, whose last week is to be forecast: only the plan is known."""
    rows = ["Filiale;Datum;Umsatz;Aktion"]
    for shop in range(4):
        for t in range(100):
            sale = int((t + shop) % 9 == 0)
            sold = 1000 * (1 + shop) + 200 * np.sin(t * 2 * np.pi / 7) + 500 * sale
            written = f"{sold:,.2f}".translate({44: ".", 46: ","}) if t < 93 else ""
            rows.append(f"F{shop};{date(2024, 1, 1) + timedelta(t):%d.%m.%Y};{written};{sale}")
    return ("\r\n".join(rows) + "\r\n").encode("cp1252")


@dataclass(frozen=True)
class Journey:
    """A file, what is learnt of it, and what the dry run of the first model says."""

    name: str
    content: Callable[[], bytes]
    aim: tuple[object, ...]
    estimator: str
    columns: dict[str, Any]
    said: str
    more: dict[str, Any] = field(default_factory=dict)
    refusals: int = 0


JOURNEYS = {
    "reviews": Journey(
        "a.tsv", reviews, ("--classify", "verdict"), "SequenceClassifier",
        {"label": "verdict"}, "'review'", refusals=1),
    "events": Journey(
        "a.jsonl", events, ("--classify", "fraud"), "SequenceClassifier",
        {"label": "fraud"}, "2 features: 'events.amount', 'events.shop'"),
    "glucose": Journey(
        "a.csv", glucose, ("--classify", "State", "--id", "PatientID"), "SequenceClassifier",
        {"label": "State", "id": "PatientID"}, "month-first", refusals=1),
    "activity": Journey(
        "a.csv", activity, ("--tag", "activity", "--id", "subject"), "SequenceTagger",
        {"label": "activity", "id": "subject"}, "training   2 of 320 steps"),
    "shops": Journey(
        "a.csv", shops, ("--forecast", "Umsatz", "--horizon", 7, "--id", "Filiale", "--known",
        "Aktion"), "SequenceForecaster", {"label": "Umsatz", "id": "Filiale", "known": ["Aktion"]},
        "known ahead", {"horizon": 7}),
}  # fmt: skip


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def advice(message: str) -> tuple[list[str], dict[str, Any]]:
    """The flags of the first advice, and the same as keywords."""
    flags = shlex.split(re.findall(r"\((--[^()]*)\)", message)[0])
    names = [flag.removeprefix("--").replace("-", "_") for flag in flags[::2]]
    return flags, dict(zip(names, flags[1::2], strict=True))


@pytest.mark.parametrize("case", JOURNEYS)
def test_from_an_export_to_a_model(ostinato, tmp_path, one_thread, case):
    way = JOURNEYS[case]
    file, run = tmp_path / way.name, tmp_path / "run"
    file.write_bytes(way.content())
    flags, columns = list(way.aim), dict(way.columns)
    looked = ostinato("train", file, *flags, "--dry-run")
    if way.refusals:
        assert looked.code == 2
        followed, words = advice(looked.err)
        flags, columns = [*flags, *followed], columns | words
        looked = ostinato("train", file, *flags, "--dry-run")
    assert looked.code == 0, looked.err
    assert way.said in looked.out + looked.err
    whole = () if case in ("shops", "activity") else ("--test", file)
    done = ostinato("train", file, *flags, *whole, *QUICK, "--output", run, "--quiet")
    assert done.code == 0, done.err
    theirs = package.load(run)
    answered = ostinato("predict", run, file)
    assert answered.code == 0, answered.err
    assert np.isfinite(theirs.evaluate(file)[MEASURE.get(case, "loss")])
    if case == "activity":  # whose training part ends before the file
        file = tmp_path / "begins.csv"
        rows = activity().decode().splitlines()
        file.write_text("\n".join([rows[0], *rows[1:321], *rows[401:721]]))
    ours = getattr(package, way.estimator)(**SMALL, **way.more).fit(file, **columns)
    if case == "shops":  # the command line keeps windows for its test
        assert ours.predict(file).shape == theirs.predict(file).shape
        return
    for a, b in zip(ours.predict_proba(file), theirs.predict_proba(file), strict=True):
        assert np.array_equal(a, b)


MEASURE = {"shops": "mase"}
