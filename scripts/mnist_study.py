"""The figures of benchmarks/results/mnist.md: accuracy and time of a training on MNIST, over seeds.

    python scripts/mnist_study.py choose     ranks settings of the GRU on validation images
    python scripts/mnist_study.py table      measures on the test images, and writes the page

Run it while no other program uses the cores: the times are wall-clock times of whole trainings.
"""

from __future__ import annotations

import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from ostinato.engine import native
from ostinato_learn import SequenceClassifier, datasets

PAGE = Path(__file__).parent.parent / "benchmarks" / "results" / "mnist.md"
N_VALIDATION = 10_000

# Settings for the GRU; `choose` ranks them by accuracy on the last 10,000 training images.
CANDIDATES: list[dict[str, Any]] = [
    {"optimizer": optimizer, "learning_rate": rate, "schedule": "cosine", "clip_norm": 1.0}
    for optimizer, rate in [
        ("rmsprop", 1e-3),
        ("rmsprop", 2e-3),
        ("adam", 2e-3),
        ("adam", 4e-3),
    ]
]
# The best settings by `choose` (see benchmarks/results/mnist.md).
GRU: dict[str, Any] = {
    "cell": "gru",
    "optimizer": "adam",
    "learning_rate": 4e-3,
    "schedule": "cosine",
    "clip_norm": 1.0,
}
# (name, settings, command, seeds)
ROWS: list[tuple[str, dict[str, Any], str, int]] = [
    ("the notebook's experiment, better start", {}, "ostinato train mnist", 5),
    (
        "… clipped at 1, cosine schedule",
        {"clip_norm": 1.0, "schedule": "cosine"},
        "ostinato train mnist --clip-norm 1 --schedule cosine",
        5,
    ),
    (
        "the notebook's own start",
        {"init": "notebook"},
        "ostinato train mnist --init notebook",
        5,
    ),
    (
        "GRU",
        GRU,
        "ostinato train mnist --cell gru --optimizer adam --learning-rate 0.004 "
        "--clip-norm 1 --schedule cosine",
        3,
    ),
]


def train(X: Any, y: Any, settings: dict[str, Any], seed: int) -> SequenceClassifier:
    model = SequenceClassifier(recipe="notebook", random_state=seed, **settings)
    return model.fit(X, y)


def choose() -> None:
    (X, y), _ = datasets.mnist()
    X_train, X_val = X[:-N_VALIDATION], X[-N_VALIDATION:]
    y_train, y_val = y[:-N_VALIDATION], y[-N_VALIDATION:]
    for settings in CANDIDATES:
        model = train(X_train, y_train, {"cell": "gru", **settings}, seed=0)
        print(f"{100 * model.score(X_val, y_val):.2f} %  {settings}", flush=True)


def table() -> None:
    (X, y), (X_test, y_test) = datasets.mnist()
    lines = []
    for name, settings, command, n_seeds in ROWS:
        accuracies, first_128, times = [], [], []
        for seed in range(n_seeds):
            model = train(X, y, settings, seed)
            accuracies.append(100 * model.score(X_test, y_test))
            first_128.append(100 * model.score(X_test[:128], y_test[:128]))
            times.append(model.history_.reports[-1]["elapsed_s"])
            result = f"{accuracies[-1]:.2f} % {times[-1]:.1f} s"
            print(name, seed, result, file=sys.stderr, flush=True)
        spread = f"{min(accuracies):.2f}–{max(accuracies):.2f}"
        lines.append(
            f"| {name} | {n_seeds} | **{statistics.mean(accuracies):.2f} %** | {spread} % | "
            f"{statistics.mean(first_128):.2f} % | {statistics.median(times):.1f} s | `{command}` |"
        )
    machine = (
        f"{platform.machine()}, {torch.get_num_threads()} threads, {native.best_isa()}, "
        f"PyTorch {torch.__version__}, Python {platform.python_version()}"
    )
    PAGE.write_text(PAGE_TEXT.format(rows="\n".join(lines), machine=machine), encoding="utf-8")


PAGE_TEXT = """# MNIST, row by row: accuracy and time

5000 iterations of 128 images, 128 hidden units, seeds 0, 1, 2, …; accuracy on all 10,000 test
images. The notebook of 2018 reported 95.31 % on the first 128 test images after 75.7 s. Its start
leaves U and W at zero; the default start is Glorot for U and orthogonal for W.

| | seeds | mean accuracy | from – to | mean on the notebook's 128 | median time | command |
|---|---|---|---|---|---|---|
{rows}

Machine: {machine}. Times are of whole trainings (`elapsed_s`), on shared processor cores.

Made by `python scripts/mnist_study.py table`. The GRU's settings are the best of four by accuracy
on the last 10,000 training images (`python scripts/mnist_study.py choose`), before any of them saw
a test image.
"""


if __name__ == "__main__":
    commands = {"choose": choose, "table": table}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]]()
