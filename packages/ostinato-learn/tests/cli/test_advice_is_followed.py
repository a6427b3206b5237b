"""Every flag that a refusal advises is tried: none is refused again for the same reason.

No advice leaves out a column of numbers that one more flag makes readable.
"""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

import ostinato_learn
from ostinato_learn.jobs.inputs.config import OPTIONS

pytest.importorskip("pyarrow")

ADVICE = re.compile(r"\(((?:--[a-z][a-z-]* [^()]*?(?=\)))|--sort)\)")
TOGETHER = re.compile(r"One answer to all: (.*) \(in Python ")
PLACE = re.compile(r"[\d,.]+|'[^']*'")
ROWS = [(i, t, i % 7 + t / 4, "ab"[i % 2]) for i in range(40) for t in range(6)]
CLASSIFY = ("--classify", "art")
WITH_ID = (*CLASSIFY, "--id", "kunde")
FORECAST = ("--forecast", "x", "--horizon", 2)


def table(
    columns: str = "kunde;tag;x;art",
    x=lambda i, t, x: f"{x:.2f}",
    day=lambda i, t: f"2024-03-{t + 13}",
    name=lambda i: f"K{i}",
) -> str:
    rows = [f"{name(i)};{day(i, t)};{x(i, t, value)};{art}" for i, t, value, art in ROWS]
    return "\n".join([columns, *rows]) + "\n"


def decimals(i: int, t: int, x: float) -> str:
    return f"{x:.2f}".replace(".", ",")


def mixed(i: int, t: int, x: float) -> str:
    """Commas before decimals, and once a point."""
    return "1.5" if (i, t) == (3, 3) else decimals(i, t, x)


def marked(i: int, t: int, x: float) -> str:
    return "n.v." if t == 3 else decimals(i, t, x)


def series(*times: str) -> str:
    return "t,x\n" + "".join(f"{time},{i % 9}\n" for i, time in enumerate(times))


NUMBERS = [str(i) for i in range(60)]
GIVEN = ("--separator", ";", "--decimal", ",")
# A file, and flags with which it is refused. `x` is a column of numbers in all of them.
FILES: dict[str, tuple[str | bytes, tuple[object, ...]]] = {
    "which column is the id": (table(), CLASSIFY),
    "ids and dates": (table(day=lambda i, t: f"0{t + 1}/02/2024"), CLASSIFY),
    "four questions": (table(x=marked, day=lambda i, t: f"0{t + 1}/02/2024"), CLASSIFY),
    "days or months": (table(day=lambda i, t: f"0{t + 1}/02/2024"), (*WITH_ID, "--time", "tag")),
    "a marker": (table(x=marked), WITH_ID),
    "two markers": (table(x=lambda i, t, x: "k.A." if t == 2 else marked(i, t, x)), WITH_ID),
    "missing values": (table(x=lambda i, t, x: "" if t == 3 else f"{x}"), WITH_ID),
    "another decimal mark than given": (
        table(x=decimals),
        (*WITH_ID, "--separator", ";", "--decimal", "."),
    ),
    "thousands of a given dialect": (table(x=lambda i, t, x: f"1.{100 + i}"), (*WITH_ID, *GIVEN)),
    "whole thousands, or three decimals": (table(x=lambda i, t, x: f"1,{100 + i}"), WITH_ID),
    "another separator than given": (table(), (*WITH_ID, "--separator", ",")),
    "a title above another separator": ("a title\n" + table(), WITH_ID),
    "lines above the header": (
        "Export of 2024\nby a logger\n" + table().replace(";", ","),
        WITH_ID,
    ),
    "an encoding that is not clear": (table(name=lambda i: f"è{i}").encode("cp1252"), WITH_ID),
    "a column of texts": (
        table("kunde;notiz;x;art", day=lambda i, t: f"text {i} {t} of some words"),
        WITH_ID,
    ),
    "texts beside a number": (
        "review;x;art\n" + "".join(f"a text of n. {i};{i % 5};{'ab'[i % 2]}\n" for i in range(60)),
        CLASSIFY,
    ),
    "dates in no role": (table("kunde;tag;x;art", day=lambda i, t: "2024-03-01"), WITH_ID),
    "ids that come back": (
        "kunde;x;art\n" + "".join(f"K{i % 40};{i / 4};{'ab'[i % 2]}\n" for i in range(240)),
        WITH_ID,
    ),
    "times that repeat": (series(*(str(i // 2) for i in range(60))), (*FORECAST, "--time", "t")),
    "times in any order": (
        series(*(str((7 * i) % 60) for i in range(60))),
        (*FORECAST, "--time", "t"),
    ),
    "several series in one column of times": (
        "t,x,ort\n" + "".join(f"{i % 30},{i % 9},{'AB'[i // 30]}\n" for i in range(60)),
        (*FORECAST, "--time", "t"),
    ),
    "several series of one time each": (
        "t,x,ort\n" + "".join(f"{i // 2},{i % 9},{'AB'[i % 2]}\n" for i in range(60)),
        (*FORECAST, "--time", "t"),
    ),
    "names in a column of numbers": (
        table(x=lambda i, t, x: f"{x}" if t % 2 else f"k{i % 3}"),
        WITH_ID,
    ),
}


def advised(message: str) -> list[list[str]]:
    """The flags of each advice; of several questions that are asked at once, one answer to all."""
    if (all_of_them := TOGETHER.search(message)) is not None:
        return [shlex.split(all_of_them[1])]
    return [shlex.split(flags) for flags in ADVICE.findall(message)]


def reason(message: str) -> str:
    """A refusal without places and values."""
    return PLACE.sub("…", message.splitlines()[-1])[:120]


@pytest.mark.parametrize("case", FILES)
def test_advice_is_not_refused_again(ostinato, tmp_path, case):
    content, flags = FILES[case]
    file = tmp_path / "a.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused = ostinato("train", file, *flags, "--dry-run")
    assert refused.code == 2, refused.out
    followed = advised(refused.err)
    assert followed, refused.err
    for advice in followed:
        done = ostinato("train", file, *without(flags, advice), *advice, "--dry-run")
        again = done.code != 0 and reason(done.err) == reason(refused.err)
        assert not again, (advice, done.err)
        if TOGETHER.search(refused.err):
            assert done.code == 0, (advice, done.err)
        if "--features" in advice and "x" in str(flags):
            named = advice[advice.index("--features") + 1].split(",")
            assert "x" in named or "notiz" in named, refused.err


def without(flags: tuple[object, ...], advice: list[str]) -> list[object]:
    """The flags but for those that the advice gives anew."""
    kept: list[object] = []
    pairs = zip(flags[::2], flags[1::2], strict=True)
    for flag, value in pairs:
        kept += [] if flag in advice else [flag, value]
    return kept


def test_the_flags_of_all_advice_exist():
    """Also of those refusals that no file here provokes."""
    known = {option.flag for option in OPTIONS.values()} | {"--test", "--from"}
    root = Path(ostinato_learn.__file__).parent
    for path in sorted((root / "data").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for flag in re.findall(r"\((--[a-z][a-z-]*)", node.value):
                    assert flag in known, (path.name, node.lineno, flag)


def test_python_asks_the_same_questions_at_once(ostinato, tmp_path):
    content, flags = FILES["four questions"]
    file = tmp_path / "a.csv"
    file.write_text(str(content))
    (_, flags), message = (flags, ostinato("train", file, *flags, "--dry-run").err)
    with pytest.raises(ValueError, match="4 questions") as refused:
        ostinato_learn.SequenceClassifier(iterations=2).fit(file, label="art")
    assert str(refused.value).splitlines()[-1] in message
    answers = dict(
        re.findall(r"(\w+)=('[^']*'|\('[^']*',\))", str(refused.value).split("Python")[1])
    )
    values = {name: ast.literal_eval(value) for name, value in answers.items()}
    assert set(values) == {"id", "na", "time_format", "missing"}
    ostinato_learn.SequenceClassifier(iterations=2).fit(file, label="art", **values)
