"""Small files of a person's own, one for each task, and the flags that learn from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

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


TASKS = {"classify": classify, "tag": tag, "forecast": forecast, "language": language}


def _write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
