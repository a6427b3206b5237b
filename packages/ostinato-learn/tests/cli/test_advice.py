"""A message says what came, what was wanted, and what to do; and following its advice works."""

from __future__ import annotations

import json

import numpy as np
import pytest

WAVE = [round(5 + np.sin(t / 4), 3) for t in range(60)]
FORECAST = ("--forecast", "x", "--horizon", 2, "--time", "t")
TEXTS = [(f"{['good', 'bad'][i % 2]} thing number {i}", i, "ab"[i % 2]) for i in range(300)]
LONG = ("--classify", "label", "--id", "id")
RATED = ("--classify", "label", "--shape", "wide")


def series(*numbers: str, minutes: int = 15, jitter: int = 0) -> str:
    """A series with a gap; its first values are those given."""
    start, values = np.datetime64("2024-05-01T08:00:00"), [*numbers, *WAVE[len(numbers) :]]
    times = [start + 60 * minutes * t + jitter * (t % 3) for t in range(60)]
    rows = [f'{times[t]},"{values[t]}"' for t in range(60) if not 30 < t < 35]
    return "\n".join(["t,x", *rows])


def long(*rows: str, columns: str = "id,x,label") -> str:
    """Sequences of two steps, after the given rows."""
    steps = (f"s{i},{i}.{t},{'ab'[i % 2]}" for i in range(40) for t in (1, 2))
    return "\n".join([columns, *rows, *steps])


def texts(*changed: str, columns: str = "text,n,label") -> str:
    """Rows of a text, a number and a label; the first ones are those given."""
    return "\n".join([columns, *changed, *(f"{a},{b},{c}" for a, b, c in TEXTS[len(changed) :])])


CASES = {
    "gaps": (series(), FORECAST, "missing values (--every 15min)", ("--every", "15min")),
    "gaps of a clock that is not exact": (
        series(minutes=20, jitter=9), FORECAST, "(--every 20min)", ("--every", "20min")),
    "a marker with a full stop": (
        long("s0,abs.,a"), LONG, "(--na abs.)", ("--na", "abs.", "--missing", "fill")),
    "a marker, with a decimal comma": (
        long("s0,MARK,a").translate({44: ";", 46: ","}).replace("MARK", "abs."),
        (*LONG, "--separator", ";", "--decimal", ","),
        "(--na abs.)", ("--na", "abs.", "--missing", "fill")),
    "thousands": (
        series("3,998"), FORECAST, "before its decimals; or say thousands=',' (--thousands ,)\n",
        ("--thousands", ",")),
    "a text beside numbers": (
        texts(), RATED, "'text' does not hold numbers; name a column of texts alone "
        "(--features text), or the features (--features n --shape wide)", ("--features", "text")),
    "a text among the features": (
        texts(), (*RATED, "--features", "n,text"), "or the column of a text alone (--features "
        "text)", ("--features", "text")),
    "many names beside numbers": (
        "id,word,n,label\n" + "\n".join(f"s{i // 9},w{i},{i},{'ab'[i % 2]}" for i in range(300)),
        ("--tag", *LONG[1:], "--features", "n,word"),
        "at most 256 names; or this feature alone (--features word)", ("--features", "word")),
    "an id in capitals": (
        long(columns="Trip ID,x,label"), LONG[:2], "(--id 'Trip ID')", ("--id", "Trip ID")),
    "a device": (
        long(columns="dev,x,label"), LONG[:2], "(--id dev)", ("--id", "dev")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_advice_of_flags_works(ostinato, tmp_path, case):
    content, flags, advice, followed = CASES[case]
    file = tmp_path / "a.csv"
    file.write_text(content)
    assert advice in ostinato("train", file, *flags, "--dry-run").err
    done = ostinato("train", file, *flags, *followed, "--dry-run")
    assert done.code == 0 and advice not in done.err


REFUSED = {
    "texts that are missing": (
        texts(",1,a", "good,2,b", " ,3,a"), (*RATED, "--features", "text"),
        "line 2, column 'text': the text is missing (2 such rows of 300 read); wanted one in each "
        "row: remove the rows without a text"),
    "labels of texts": (
        texts("good,1,", "bad,2,b", "good,3,"), (*RATED, "--features", "text"),
        "column 'label': the value is missing (2 such rows of 300 read); wanted one in each row: "
        "write a name there, such as none, or remove the rows without one"),
    "labels of steps": (
        long("s0,1,", "s0,2,", "s0,3,a"), ("--tag", *LONG[1:]),
        "(2 such rows of 83 read); wanted one in each row: write a name there, such as none"),
    "labels of sequences": (
        long("z,1,", "z,2,"), LONG,
        "line 2, column 'label': the value is missing (2 such rows of 82 read); wanted one for "
        "each sequence: write one in its rows, or remove them"),
    "numbers of sequences": (
        texts("good,,a", "bad,,b"), ("--regress", "n", "--features", "text", "--shape", "wide"),
        "the target is missing, or infinite (2 such rows of 300 read); wanted one number for each "
        "sequence: remove those without one"),
    "a year of two digits": (
        series().replace("2024-05-01T08:00:00", "1.5.24"), FORECAST,
        "'1.5.24' is not a time; wanted a year of four digits, such as 31.01.2024 or 2024-01-31"),
    "a year of two digits, in no role": (
        long(columns="id,x,label").replace(".", ".3.2"), LONG,
        "'x' is text; if '0.3.21' is a date, the year needs four digits; name the features"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_count_and_say_what_to_do(ostinato, tmp_path, case):
    content, flags, message = REFUSED[case]
    file = tmp_path / "a.csv"
    file.write_text(content)
    done = ostinato("train", file, *flags, "--dry-run")
    assert done.code == 2 and message in done.err


def test_null_as_a_label_in_json_lines(ostinato, tmp_path):
    file = tmp_path / "a.jsonl"
    labels = [None, "hot", None]
    file.write_text("\n".join(json.dumps({"x": i, "alarm": labels[i % 3]}) for i in range(60)))
    done = ostinato("train", file, "--tag", "alarm", "--features", "x", "--dry-run")
    assert "line 1, column 'alarm': the value is missing (40 such rows of 60 read)" in done.err
