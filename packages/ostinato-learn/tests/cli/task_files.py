"""Small files of a user's own, for each task, and the flags that learn from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

QUICK = ("--hidden-size", 4, "--batch-size", 8, "--threads", 1, "--iterations", 12)


def classify(folder: Path, n: int = 40, steps: int = 6) -> tuple[object, ...]:
    """Two classes, in eight groups, that are easy to tell apart."""
    generator = np.random.default_rng(0)
    lines = ["id,person,t,a,b,kind"]
    for i in range(n):
        up = i % 2
        for t, (a, b) in enumerate(generator.normal(size=(steps, 2)) + (1 if up else -1)):
            lines.append(f"s{i},p{i % 8},{t},{a:.4f},{b:.4f},{'up' if up else 'down'}")
    columns = ("--id", "id", "--time", "t", "--features", "a,b")
    return (_write(folder / "classify.csv", lines), "--classify", "kind", *columns)


def tag(folder: Path, n: int = 30, steps: int = 7) -> tuple[object, ...]:
    """The sign of each step."""
    generator = np.random.default_rng(1)
    lines = ["id,t,a,sign"]
    for i in range(n):
        for t, a in enumerate(generator.normal(size=steps)):
            lines.append(f"s{i},{t},{a:.4f},{'plus' if a > 0 else 'minus'}")
    return (_write(folder / "tag.csv", lines), "--tag", "sign", "--id", "id", "--time", "t")


def forecast(folder: Path, n: int = 6, steps: int = 60) -> tuple[object, ...]:
    """Waves of four steps with noise."""
    generator = np.random.default_rng(2)
    lines = ["id,t,value"]
    for i in range(n):
        wave = np.tile([0.0, 1.0, 0.0, -1.0], steps)[:steps] * (1 + i)
        for t, value in enumerate(wave + generator.normal(0, 0.1, steps)):
            lines.append(f"s{i},{t},{value:.4f}")
    file = _write(folder / "forecast.csv", lines)
    return (file, "--forecast", "value", "--horizon", 2, "--season", 4, "--id", "id", "--time", "t")


def language(folder: Path, n: int = 240) -> tuple[object, ...]:
    """A text of few words."""
    words = np.array(["the", "cat", "sat", "on", "a", "mat"])
    drawn = words[np.random.default_rng(3).integers(0, len(words), 8 * n)]
    return (_write(folder / "text.txt", [" ".join(drawn)]), "--truncate", 16)


def regress(folder: Path, n: int = 40, steps: int = 6) -> tuple[object, ...]:
    """The sum of all values with noise."""
    generator = np.random.default_rng(5)
    lines = ["id,t,a,b,total"]
    for i in range(n):
        values = generator.normal(size=(steps, 2))
        total = values.sum() + generator.normal(0, 0.1)
        for t, (a, b) in enumerate(values):
            lines.append(f"s{i},{t},{a:.4f},{b:.4f},{total:.4f}")
    columns = ("--id", "id", "--time", "t")
    return (_write(folder / "regress.csv", lines), "--regress", "total", *columns)


TASKS = {
    "classify": classify,
    "tag": tag,
    "regress": regress,
    "forecast": forecast,
    "language": language,
}


def words(folder: Path) -> tuple[object, ...]:
    """Lists of words with spans of names, in letters of bilou."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    generator, rows = np.random.default_rng(0), []
    for _ in range(30):
        row = {"word": [], "tag": []}
        for _ in range(generator.integers(1, 6)):
            n = generator.integers(0, 3)
            row["word"] += [f"n{generator.integers(9)}" for _ in range(n)] + ["says"]
            row["tag"] += [["U-P"], ["B-P", "L-P"]][n - 1] if n else []
            row["tag"] += ["O"]
        rows.append(row)
    path = folder / "words.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    return (path, "--tag", "tag")


def dates(folder: Path) -> tuple[object, ...]:
    """The signs of numbers, with days as times but for the last step of the last sequences."""
    path, *flags = TASKS["tag"](folder)
    head, *lines = [line.split(",") for line in path.read_text().splitlines()]
    for i, line in enumerate(lines):
        line[1] = f"2024-01-0{1 + int(line[1])}" + " 12:30" * (i > 180 and i % 7 == 6)
    path.write_text("\n".join(",".join(line) for line in [head, *lines]))
    return (path, *flags, "--features", "a")


def inputs(folder: Path) -> tuple[object, ...]:
    """Series with missing values, and inputs of every kind, some known for two further steps."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    generator, rows = np.random.default_rng(4), []
    for i in range(8):
        n = 40 + 3 * i
        values = [float(v) for v in generator.normal(i, 1, n)]
        values[5] = None
        rows.append(
            {
                "value": [*values, None, None],
                "past": [None if t % 9 < 2 else float(t) for t in range(n + 2)],
                "word": ["new" if t < 2 * i else "old" for t in range(n + 2)],
                "price": [float(v) for v in generator.normal(50, 5, n + 2)],
                "t": [i * 1000 + t for t in range(n + 2)],
                "size": i / 3,
                "name": f"s{i}",
            }
        )
    path = folder / "series.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    flags = ("--forecast", "value", "--horizon", 2, "--features", "past,word,price")
    return (path, *flags, "--known", "price", "--static", "size", "--id", "name", "--time", "t")


def ragged(folder: Path) -> tuple[object, ...]:
    """Sequences of 1 to 6 steps to classify."""
    path, *flags = classify(folder)
    header, *lines = Path(str(path)).read_text().splitlines()
    of = [(line, *line.split(",", 3)) for line in lines]
    kept = [line for line, name, _, t, _ in of if int(t) <= int(name[1:]) * 7 % 6]
    return (_write(folder / "ragged.csv", [header, *kept]), *flags)


def labels(folder: Path) -> tuple[object, ...]:
    """Two features, each of which tells of a label."""
    generator = np.random.default_rng(5)
    lines = ["id,a,b,low,high"]
    for i in range(40):
        low, high = generator.integers(0, 2, 2)
        lines += [
            f"s{i},{a - low:.4f},{b + high:.4f},{low},{high}"
            for a, b in generator.normal(0, 0.3, (4, 2))
        ]
    path = _write(folder / "labels.csv", lines)
    return (path, "--classify", "low,high", "--id", "id", "--features", "a,b")


KINDS = {
    **TASKS,
    "inputs": inputs,
    "dates": dates,
    "words": words,
    "ragged": ragged,
    "labels": labels,
}


def _write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
