"""Numbers for sequences beside simple methods: `python -m benchmarks.studies.regression`.

*Wear* is made: a machine wears by load² in each step in which it is hot, by a third of it in the
others; the target is the sum with noise of a known deviation, which no method can predict. *Slant*
is a digit's: of an MNIST image, read row by row, the slope of the line that its ink is nearest to,
from the moments of the pixels. No setting was chosen by looking at a test part; `SequenceRegressor`
reads in one direction, and has the loss "quantiles" for intervals.
"""

from __future__ import annotations

import time

import numpy as np

from ostinato_learn import SequenceRegressor, datasets
from ostinato_learn.tasks.regress import baselines

NOISE = 2.0
SEEDS = (0, 1, 2)
SETTINGS = {"bidirectional": False, "batch_size": 32, "eval_every": 100}


def wear(n: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Loads and temperatures of n machines over 10 to 40 steps, and the wear at the end."""
    rng = np.random.default_rng(seed)
    X = [rng.normal(size=(steps, 2)).astype(np.float32) for steps in rng.integers(10, 41, n)]
    worn = [float((x[:, 0] ** 2 * np.where(x[:, 1] > 0, 1, 1 / 3)).sum()) for x in X]
    return X, np.array(worn) + rng.normal(0, NOISE, n)


def slant(images: np.ndarray) -> np.ndarray:
    """The slope of each image `[N, 28, 28]`: columns a row, by the moments of its ink."""
    rows, columns = np.mgrid[:28, :28] - 13.5
    ink = images / images.sum((1, 2), keepdims=True)
    centre = [(ink * axis).sum((1, 2), keepdims=True) for axis in (rows, columns)]
    down, across = rows - centre[0], columns - centre[1]
    slope: np.ndarray = (ink * down * across).sum((1, 2)) / (ink * down**2).sum((1, 2))
    return slope


def study(name: str, parts: tuple, more: dict[str, object]) -> None:
    """Print a table row for each method: R² and mean absolute error on the test part."""
    X, y, X_test, y_test = parts
    for method, found in baselines.of_all(X, y[:, None], X_test, y_test[:, None]).items():
        print(f"| {name} | {method} | {found['r2']:.3f} | {found['mae']:.4g} | |")
    for loss in ("squared", "quantiles"):
        measured = []
        began = time.perf_counter()
        for seed in SEEDS:
            model = SequenceRegressor(loss=loss, random_state=seed, **SETTINGS, **more).fit(X, y)
            measured.append(model.evaluate(X_test, y_test))
        r2 = [each["r2"] for each in measured]
        mae = np.mean([each["mae"] for each in measured])
        inside = ""
        if loss == "quantiles":
            inside = f"{100 * np.mean([each['coverage'] for each in measured]):.1f} %"
        print(
            f"| {name} | GRU 64, {loss} | {np.mean(r2):.3f} ({min(r2):.3f} to {max(r2):.3f}) | "
            f"{mae:.4g} | {inside} |",
            f"<!-- {time.perf_counter() - began:.0f} s -->",
        )


def main() -> None:
    X, y = wear(1000, 0)
    X_test, y_test = wear(1000, 1)
    print("| data | method | R² | mean absolute error | inside the 80 % interval |")
    print("|---|---|---|---|---|")
    least, spread = NOISE * np.sqrt(2 / np.pi), y_test.var()
    print(f"| wear | the noise alone | {1 - NOISE**2 / spread:.3f} | {least:.4g} | 80.0 % |")
    study("wear", (X, y, X_test, y_test), {"epochs": 30})
    whole = datasets.mnist("rows")
    X, X_test = whole.train[0][:2000], whole.test[0][:2000]
    study("slant", (X, slant(X), X_test, slant(X_test)), {"iterations": 600})


if __name__ == "__main__":
    main()
