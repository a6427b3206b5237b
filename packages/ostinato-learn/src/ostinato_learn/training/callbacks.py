"""Callbacks observe a training, or act between two of its iterations."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from ostinato_learn.files import write_bytes
from ostinato_learn.training.history import LOSS_EVERY, Report
from ostinato_learn.training.run import Run

SHARES = ("accuracy", "f1", "coverage")  # measures from 0 to 1: how their names end
ANNOUNCE_AFTER_S = 1.0  # the pace is known, and the user still waits


class Callback:
    """A method for each event of a training; override those that you need, all are empty.

    To stop a training from within, raise; `on_end` is called all the same.

    Attributes:
        everywhere: whether each process of a training calls it, if there are several; otherwise
            only the first one does.

    Example: the losses of a training, as a list.
        >>> import numpy as np, ostinato_learn
        >>> class Losses(ostinato_learn.training.Callback):
        ...     def on_start(self, run):
        ...         self.all = []
        ...     def on_report(self, run, report):
        ...         self.all.append(report["loss"])
        >>> losses = Losses()
        >>> X = np.random.default_rng(0).normal(size=(40, 3, 2))
        >>> model = ostinato_learn.SequenceClassifier(hidden_size=4, iterations=20, eval_every=10)
        >>> model.fit(X, X[:, 0, 0] > 0, callbacks=[losses]).n_iter_
        20
        >>> len(losses.all)  # the first is made before the first update
        3
    """

    everywhere = False

    def on_start(self, run: Run) -> None:
        """Before the first iteration; in a resumed training, before the first new one."""

    def on_iteration(self, run: Run) -> None:
        """After every update, which `run.iteration` already counts."""

    def on_report(self, run: Run, report: Report) -> None:
        """A report was made; it is the last of `run.history.reports`."""

    def on_end(self, run: Run) -> None:
        """The training ended, with or without an error; see `run.history.outcome`."""


class MetricsFile(Callback):
    """Writes every report as one line of JSON (floats are exact to the last bit).

    At the start the file is replaced by the reports so far: an empty file for a new training, the
    reports of the checkpoint for a resumed one. Reports later than the checkpoint are dropped.

    Args:
        path: the file; an old one is replaced.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def on_start(self, run: Run) -> None:
        write_bytes(self.path, b"".join(map(_line, run.history.reports)))

    def on_report(self, run: Run, report: Report) -> None:
        with self.path.open("ab") as file:
            file.write(_line(report))


class LossFile(Callback):
    """Writes the losses of `History` as CSV, a line for every tenth iteration (floats are exact).

    As for `MetricsFile`, the file begins with the losses of the checkpoint, or empty.

    Args:
        path: the file; an old one is replaced.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._written = 0

    def on_start(self, run: Run) -> None:
        write_bytes(self.path, b"iteration,loss\n")
        self._written = 0
        self._write(run)

    def on_iteration(self, run: Run) -> None:
        if len(run.history.losses) > self._written:
            self._write(run)

    def on_end(self, run: Run) -> None:
        self.on_iteration(run)

    def _write(self, run: Run) -> None:
        new = run.history.losses[self._written :]
        lines = [f"{LOSS_EVERY * (self._written + i)},{loss!r}\n" for i, loss in enumerate(new)]
        with self.path.open("ab") as file:
            file.write("".join(lines).encode())
        self._written += len(new)


def _line(report: Report) -> bytes:
    return json.dumps(report, allow_nan=False).encode() + b"\n"


class Progress(Callback):
    """Shows reports as lines, each with iterations/s and the time left; on a terminal also a bar.

    Without a bar, a line after the first second says how long the training will take.

    Args:
        stream: where to write; by default stderr.
    """

    def __init__(self, stream: TextIO | None = None):
        self.stream = sys.stderr if stream is None else stream
        self._bar: Any = None
        self._pace: Pace | None = None
        self._announced = False

    def on_start(self, run: Run) -> None:
        self._pace, self._announced = None, False
        if self.stream.isatty():
            from tqdm import tqdm

            sized = _knows_its_size(self.stream)
            self._bar = tqdm(
                total=run.total,
                initial=run.iteration,
                file=self.stream,
                unit="it",
                dynamic_ncols=sized,
                ncols=None if sized else 80,
                leave=False,
            )

    def on_iteration(self, run: Run) -> None:
        if self._pace is None:
            self._pace = Pace(run.iteration)
        elif self._bar is None and not self._announced and self._pace.elapsed_s > ANNOUNCE_AFTER_S:
            self._announced = True
            self._print(f"{run.total:,} iterations: {self._pace.describe(run)}")
        if self._bar is not None:
            shown = [f"loss {run.loss:.4f}", *_measures(run.measured, "train_")]
            self._bar.set_postfix_str(", ".join(shown), refresh=False)
            self._bar.update()

    def on_report(self, run: Run, report: Report) -> None:
        pace = self._pace.describe(run) if self._pace and run.iteration < run.total else ""
        self._print("   ".join(filter(None, [describe(report), pace])))

    def on_end(self, run: Run) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _print(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self.stream)
        else:
            print(line, file=self.stream, flush=True)


class Pace:
    """Iterations a second since the first one, which is left out: it records and compiles."""

    def __init__(self, iteration: int):
        self._began = iteration
        self._clock = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._clock

    def describe(self, run: Run) -> str:
        """The pace and the time left, in words; "" before the second iteration."""
        made = run.iteration - self._began
        if not made:
            return ""
        rate = made / max(self.elapsed_s, 1e-9)
        digits = 0 if rate >= 10 else 1 if rate >= 1 else 2
        return f"{rate:,.{digits}f} it/s, {duration((run.total - run.iteration) / rate)} left"


def duration(seconds: float) -> str:
    """Seconds in words, to about a percent.

    Example:
        >>> duration(0.4), duration(75), duration(1860), duration(100_000)
        ('under 1 s', '1 min 15 s', '31 min', '27 h 47 min')
    """
    whole = round(seconds)
    if not whole:
        return "under 1 s"
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _knows_its_size(terminal: TextIO) -> bool:
    """Whether a terminal knows its size; if it says 0, tqdm shows nothing."""
    try:
        return all(os.get_terminal_size(terminal.fileno()))
    except OSError:  # also io.UnsupportedOperation: the stream is not a file
        return False


def describe(report: Report) -> str:
    """A report as a line of text.

    Example:
        >>> describe({"iteration": 1000, "epoch": 2.13, "loss": 0.25, "train_accuracy": 0.9375,
        ...           "learning_rate": 0.001, "elapsed_s": 15.1})
        'iteration   1000   epoch  2.13   loss 0.2500   training accuracy 93.75 %   15.1 s'
    """
    parts = [
        f"iteration {report['iteration']:6d}",
        f"epoch {report['epoch']:5.2f}",
        f"loss {report['loss']:.4f}",
        *(f"training {measure}" for measure in _measures(report, "train_")),
    ]
    if "validation_loss" in report:
        parts += [f"validation {measure}" for measure in _measures(report, "validation_")]
    return "   ".join([*parts, f"{report['elapsed_s']:.1f} s"])


def _measures(report: Report, prefix: str) -> list[str]:
    """The measures whose names begin with `prefix`, in words; shares of 1 as percentages."""
    return [
        f"{name.removeprefix(prefix).replace('_', ' ')} "
        + (percent(value) if name.endswith(SHARES) else f"{value:.4f}")
        for name, value in report.items()
        if name.startswith(prefix)
    ]


def percent(share: float) -> str:
    """A share of 1 as a percentage, such as "97.50 %"."""
    return f"{100 * share:.2f} %"


def check_callbacks(callbacks: Any) -> None:
    """Raise TypeError if these are not a list of callbacks."""
    came = type(callbacks).__name__
    if isinstance(callbacks, (list, tuple)):
        wrong = [c for c in callbacks if isinstance(c, type) or not hasattr(c, "on_start")]
        if not wrong:
            return
        came = repr(wrong[0])
    raise TypeError(f"callbacks has {came}; wanted a list of objects: [training.Progress()]")


def tell(callbacks: Iterable[Callback], event: str, *arguments: Any) -> None:
    """Call the method `event` of all callbacks, in their order."""
    for callback in callbacks:
        getattr(callback, event)(*arguments)
