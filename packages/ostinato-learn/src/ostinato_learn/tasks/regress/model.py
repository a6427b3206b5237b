"""`Regressor`: a model that gives a number, or several, to a whole sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ostinato_learn.runtime.values import Array, fail, items, text
from ostinato_learn.saved import checks
from ostinato_learn.saved.read import Saved
from ostinato_learn.tasks.reading import HOW_TO_READ, SequenceReader

LOSSES = ("squared", "absolute", "quantiles")
MAX_TARGETS = 1 << 20


@dataclass(eq=False, repr=False, kw_only=True)
class Regressor(SequenceReader):
    """A model that gives a number, or several, to a sequence.

    Attributes:
        targets: the names of the K targets.
        loss: the loss of its training, one of `LOSSES`.
        levels: the levels of the Q quantiles, increasing, with 0.5 among them; () without
            quantiles.
        is_one: whether the targets of the training were `[N]`; predictions then are, too.

    Example:
        >>> from ostinato_learn import SequenceRegressor
        >>> X = np.random.default_rng(0).normal(size=(20, 5, 1))
        >>> numbers = X.mean((1, 2))
        >>> trained = SequenceRegressor(hidden_size=4, iterations=2, loss="quantiles")
        >>> trained.fit(X, numbers).save("runs/numbers/model")
        >>> model = ostinato_learn.runtime.load("runs/numbers/model")
        >>> model.predict(X).shape, model.predict_quantiles(X).shape
        ((20,), (20, 1, 9))
        >>> sorted(model.evaluate(X, numbers))[:2]
        ['coverage', 'mae']
    """

    task = "regress"
    estimator = "SequenceRegressor"

    targets: tuple[str, ...]
    loss: str = "squared"
    levels: tuple[float, ...] = ()
    is_one: bool = True

    @classmethod
    def values(cls, saved: Saved, where: str) -> dict[str, Any]:
        fitted = saved.fitted
        checks.names(fitted, {"targets", "loss", "is_one", *HOW_TO_READ}, where)
        names = items(fitted["targets"], f"{where}: 'targets'", MAX_TARGETS)
        if fitted["loss"] not in LOSSES or type(fitted["is_one"]) is not bool:
            fail(f"{where}: 'loss' is {str(fitted['loss'])[:60]!r}, or 'is_one' is no bool")
        levels: list[float] = []
        if fitted["loss"] == "quantiles":
            levels = checks.levels(saved.net.get("levels"), None, where)
        n = len(names) * max(1, len(levels))
        if not names or (saved.graph is not None and saved.graph.n_outputs != n):
            fail(f"{where}: {len(names)} targets are not those of the network")
        return {
            "targets": tuple(text(name, f"{where}: 'targets'") for name in names),
            "loss": fitted["loss"],
            "levels": tuple(levels),
            "is_one": fitted["is_one"],
            **cls.how_to_read(saved, where),
        }

    def fitted(self) -> dict[str, Any]:
        own = {"targets": list(self.targets), "loss": self.loss, "is_one": self.is_one}
        return own | self.read_as()

    @property
    def labels(self) -> Array:
        """The names of the outputs, `[K · Q]`: a target, or with quantiles "target, 0.1"."""
        names = [f"{t}, {level:g}" for t in self.targets for level in self.levels]
        return np.array(names or self.targets)

    @property
    def gives_numbers(self) -> bool:
        return True

    def answer_names(self) -> list[str]:
        return [f"the value of {name!r}" for name in self.labels.tolist()]

    def described_answer(self) -> dict[str, Any]:
        return {"answer": "quantiles" if self.levels else "values", "targets": list(self.targets)}

    def predict_quantiles(self, X: Any) -> Array:
        """The quantiles of each target, `[N, K, Q]` float64; Q is 1 if the model has no quantiles.

        Raises:
            ValueError: X cannot be used; the message says why.
        """
        found = self.outputs(self.prepared(X), np.float64)
        return found.reshape(len(found), len(self.targets), -1)

    def predict(self, X: Any) -> Array:
        """The number for each sequence, `[N]`, or `[N, K]`; with quantiles the medians."""
        return self.points(self.predict_quantiles(X))

    def points(self, quantiles: Array) -> Array:
        """The result of `predict`, computed from the result of `predict_quantiles`."""
        values = quantiles[:, :, self.levels.index(0.5) if self.levels else 0]
        return values[:, 0] if self.is_one else values

    def evaluate(self, X: Any, y: Any) -> dict[str, Any]:
        """Measure the model on sequences with targets y, `[N]` or `[N, K]`.

        Returns:
            r2, mae and rmse, each the mean over the targets; with quantiles also pinball,
            coverage (the share of values in the widest interval) and width (its mean width); n, the
            sequences; and of several targets "targets", the measures of each by its name. r2 is
            None where a target is the same everywhere.

        Raises:
            ValueError: X or y cannot be used.
        """
        return self.measured(self.predict_quantiles(X), y)

    def measured(self, quantiles: Array, y: Any) -> dict[str, Any]:
        """The measures of `evaluate`, computed from the result of `predict_quantiles`."""
        y = as_targets(y, len(quantiles), len(self.targets))
        each = [_measured(y[:, k], quantiles[:, k], self.levels) for k in range(len(self.targets))]
        whole: dict[str, Any] = {**mean_of(each), "n": len(y)}
        if len(each) > 1:
            whole["targets"] = dict(zip(self.targets, each, strict=True))
        return whole

    def stream_parts(self) -> dict[str, Any]:
        return self._reading() | {"naming": self._named}

    def _named(self, row: Array) -> Any:
        values = self.points(row.reshape(1, len(self.targets), -1))[0]
        return float(values) if self.is_one else tuple(map(float, values))


MODEL = Regressor


def as_targets(y: Any, n: int, k: int | None = None) -> Array:
    """Targets as `[N, K]` float64, each checked to be finite.

    Raises:
        ValueError: the targets have another shape, or one is missing or infinite.
    """
    try:
        found = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(_not_a_number(y)) from None
    shape = list(found.shape)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or len(found) != n or (k is not None and found.shape[1] != k):
        wanted = f"[{n}]" if k in (None, 1) else f"[{n}, {k}]"
        raise ValueError(f"y has shape {shape}; wanted {wanted}, the target of each sequence")
    wrong = np.argwhere(~np.isfinite(found))
    if len(wrong):
        raise ValueError(f"y[{wrong[0][0]}] is {found[tuple(wrong[0])]}; wanted finite numbers")
    return found


def _not_a_number(y: Any) -> str:
    """The reason why targets are not an array of numbers."""
    rows = np.asarray(y, dtype=object).tolist()
    for i, value in enumerate(rows if isinstance(rows, list) else ()):
        try:
            np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            return f"y[{i}] is {value!r}; wanted a number for each sequence"
    return "y is no array of numbers; wanted [N], or [N, K] for K targets of each sequence"


def measures(y: Array, values: Array) -> dict[str, float | None]:
    """r2, mae and rmse of predictions `values` `[N]` for true values `[N]`."""
    errors = values - y
    spread = float(((y - y.mean()) ** 2).sum())
    return {
        "r2": 1 - float((errors**2).sum()) / spread if spread else None,
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt((errors**2).mean())),
    }


def mean_of(each: list[dict[str, float | None]]) -> dict[str, float | None]:
    """The mean of each measure over the targets; None if a target lacks the measure."""
    whole: dict[str, float | None] = {}
    for name in each[0]:
        known = [measured[name] for measured in each]
        whole[name] = None if None in known else float(np.mean(known))  # type: ignore[arg-type]
    return whole


def _measured(y: Array, quantiles: Array, levels: tuple[float, ...]) -> dict[str, float | None]:
    if not levels:
        return measures(y, quantiles[:, 0])
    errors, q = y[:, None] - quantiles, np.array(levels)
    low, high = quantiles[:, 0], quantiles[:, -1]
    return {
        **measures(y, quantiles[:, levels.index(0.5)]),
        "pinball": float(np.maximum(q * errors, (q - 1) * errors).mean()),
        "coverage": float(((low <= y) & (y <= high)).mean()),
        "width": float((high - low).mean()),
    }
