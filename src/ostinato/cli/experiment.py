"""One training from data to results, with everything that its run directory keeps.

This module imports torch; commands import it when they train.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ostinato import environment, files, report, training
from ostinato.cli import limits, runs, sources
from ostinato.cli.config import Config
from ostinato.cli.evaluate import measure
from ostinato.cli.failures import BadInput, Failure, Interrupted
from ostinato.cli.output import predictions_csv
from ostinato.cli.rundir import RunDir
from ostinato.cli.sources import Part
from ostinato.data import as_sequences
from ostinato.interrupt import Terminated
from ostinato.training.fitted import FittedClassifier, Labelled, load
from ostinato.training.history import History

NOTEBOOK_IMAGES = 128


@dataclass(frozen=True)
class Result:
    evaluation: dict[str, Any]  # what evaluation.json holds
    run: RunDir | None


class Recorder(training.Callback):
    """Opens the run directory when the training begins, and keeps metrics and checkpoints there.

    By then all arguments have been checked, so that a wrong flag leaves nothing behind.
    """

    def __init__(self, open_run: Callable[[], RunDir], settings: Config, surroundings: dict):
        self.run: RunDir | None = None
        self._open_run = open_run
        self._settings = settings
        self._environment = surroundings
        self._parts: list[training.Callback] = []

    def on_start(self, run: training.Run) -> None:
        self.run = self._open_run()
        if run.resumed:
            self.run.go_on(self._settings.toml())
        else:
            self.run.begin(self._settings.toml(), self._environment)
        every = self._settings.run.checkpoint_every
        self._parts = [
            training.MetricsFile(self.run.metrics),
            training.LossFile(self.run.losses),
            training.Checkpoint(self.run.checkpoint, every),
        ]
        for part in self._parts:
            part.on_start(run)

    def on_iteration(self, run: training.Run) -> None:
        for part in self._parts:
            part.on_iteration(run)

    def on_report(self, run: training.Run, report: dict[str, Any]) -> None:
        for part in self._parts:
            part.on_report(run, report)

    def on_end(self, run: training.Run) -> None:
        for part in self._parts:
            part.on_end(run)


def run(
    settings: Config,
    train: Part,
    test: Part,
    open_run: Callable[[], RunDir] | None = None,
    resumed: RunDir | None = None,
    quiet: bool = False,
) -> Result:
    """Train and measure.

    Args:
        settings: the resolved configuration.
        train, test: the data.
        open_run: gives the directory of the run, once it is needed; None: nothing is kept.
        resumed: the run to go on with.
        quiet: no progress on stderr.

    Raises:
        BadInput, ValueError: the data or the settings cannot be used.
        Failure: the training diverged.
        Interrupted: Ctrl-C or SIGTERM.
    """
    settings = _with_threads(settings)
    surroundings = environment.environment() | {"data": _data(settings, train, test)}
    if resumed is not None:
        _check_same_data(resumed, surroundings["data"])
    limits.check_memory(settings, surroundings["data"])
    given = Labelled.of(as_sequences(train.X), train.y)
    weights = class_weight(settings.training.class_weight, train.y)
    checkpoint = _checkpoint(resumed)
    start = None
    if settings.run.from_ is not None and checkpoint is None:
        start = _start(settings.run.from_, train)
    recorder = Recorder(open_run, settings, surroundings) if open_run else None
    callbacks: list[training.Callback] = [recorder] if recorder else []
    if not quiet:
        callbacks.append(training.Progress())
    try:
        if fraction := settings.training.validation_fraction:
            given = given.split(fraction, settings.training.seed)
        model, history = FittedClassifier.fit(
            given,
            settings.model,
            _plan(settings),
            class_weight=weights,
            start=start,
            callbacks=callbacks,
            resume=checkpoint,
        )
        evaluation = _results(recorder.run if recorder else None, model, history, test, settings)
        if not quiet:
            name = "evaluation and report" if recorder else "evaluation"
            print(f"{name}: {evaluation['evaluation_s']:.1f} s", file=sys.stderr)
    except training.Diverged as error:
        kept = recorder.run if recorder else None
        where = f"; the last good checkpoint is in {kept.checkpoint}" if kept else ""
        raise Failure(f"{error}{where}") from None
    except (KeyboardInterrupt, Terminated) as error:
        code = Terminated.exit_code if isinstance(error, Terminated) else Interrupted.exit_code
        raise Interrupted(_how_to_go_on(recorder.run if recorder else None), code) from None
    return Result(evaluation, recorder.run if recorder else None)


def _start(origin: str, train: Part) -> FittedClassifier:
    """A model that reads the same features and tells the same classes apart."""
    model = load(runs.find(Path(origin)).model)
    came, wanted = sources.n_features(train.X), model.net.config["n_features"]
    if came != wanted:
        raise BadInput(
            f"--from {origin} was trained on {wanted} features a step, and the data have {came}; "
            "wanted the same"
        )
    known, labels = model.classes.tolist(), np.unique(train.y).tolist()
    if known != labels:
        raise BadInput(
            f"--from {origin} tells the classes {_some(known)} apart, and the data have "
            f"{_some(labels)}; wanted the same"
        )
    return model


def _some(labels: list[Any], most: int = 10) -> str:
    shown = ", ".join(map(repr, labels[:most]))
    return shown if len(labels) <= most else f"{shown}, … ({len(labels)})"


def _plan(settings: Config) -> training.Plan:
    given = asdict(settings.training)
    return training.Plan(**{f.name: given[f.name] for f in fields(training.Plan)})


def estimator_parameters(settings: Config, y: np.ndarray) -> dict[str, Any]:
    """The configuration as arguments of `SequenceClassifier`."""
    parameters = asdict(settings.model) | asdict(settings.training)
    parameters["random_state"] = parameters.pop("seed")
    parameters["class_weight"] = class_weight(settings.training.class_weight, y)
    return parameters | {"warm_start": False, "verbose": 0}


def class_weight(given: str | None, y: np.ndarray) -> str | dict[Any, float] | None:
    """`balanced`, or the mapping meant by "cat=1,dog=2.5"."""
    if given is None or given == "balanced":
        return given
    labels = {str(label): label for label in np.unique(y).tolist()}
    weights: dict[Any, float] = {}
    for pair in given.split(","):
        name, equals, number = pair.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            equals, weight = "", 0.0
        if not equals:
            raise BadInput(f"--class-weight {given}: wanted balanced, or label=weight,label=weight")
        if not 0 <= weight < math.inf:
            raise BadInput(f"--class-weight: {pair.strip()}; wanted a number, 0 or more")
        if name.strip() not in labels:
            raise BadInput(
                f"--class-weight: there is no class {name.strip()!r}; there are {', '.join(labels)}"
            )
        label = labels[name.strip()]
        if label in weights:
            raise BadInput(f"--class-weight: {name.strip()} is there twice; wanted one weight")
        weights[label] = weight
    return weights


def _with_threads(settings: Config) -> Config:
    """Set the number of threads, and keep it in the configuration: some bits depend on it.

    PyTorch's own choice does not know of the CPU quota of a container.
    """
    threads = settings.run.threads or min(torch.get_num_threads(), environment.cores())
    torch.set_num_threads(threads)
    return settings.updated({"run.threads": threads})


def _data(settings: Config, train: Part, test: Part) -> dict[str, Any]:
    return {**sources.describe(train, test), "sha256": sources.digest(settings.data)}


def _check_same_data(run: RunDir, data: dict[str, Any]) -> None:
    began = run.surroundings().get("data", data)
    if began != data:
        files = ", ".join(data["sha256"]) or "the data set"
        raise BadInput(
            f"{files} is no longer what the run in {run.path} began with; begin another run"
        )


def _checkpoint(run: RunDir | None) -> str | None:
    """The checkpoint to resume from; None if the run was stopped before its first one."""
    if run is None or not (files.current(run.checkpoint) / "checkpoint.json").is_file():
        return None
    return str(run.checkpoint)


def _how_to_go_on(run: RunDir | None) -> str:
    checkpoint = _checkpoint(run)
    if run is None or checkpoint is None:
        return "interrupted; nothing was kept"
    state = json.loads((files.current(run.checkpoint) / "checkpoint.json").read_text("utf-8"))
    return (
        f"interrupted; a checkpoint of iteration {state['iteration']} is kept.\n"
        f"Go on with: ostinato train --resume --output {run.path}"
    )


def _evaluate(
    model: FittedClassifier, history: History, test: Part, settings: Config
) -> dict[str, Any]:
    evaluation: dict[str, Any] = {"test": measure(model, test)}
    if settings.data.source == "mnist":
        first = slice(NOTEBOOK_IMAGES)
        evaluation["notebook_128"] = measure(model, Part(test.X[first], test.y[first]))
    return evaluation | {
        "elapsed_s": history.reports[-1]["elapsed_s"],
        "iterations": history.iterations,
        "outcome": history.outcome,
        "best_iteration": history.best_iteration,
    }


def _results(
    run: RunDir | None, model: FittedClassifier, history: History, test: Part, settings: Config
) -> dict[str, Any]:
    """Measure and write the results; evaluation.json last, as it says that the run is finished."""
    began = time.perf_counter()
    evaluation = _evaluate(model, history, test, settings)
    if run is not None:
        _keep(run, model, history, test, evaluation, settings)
    evaluation["evaluation_s"] = time.perf_counter() - began
    if run is not None:
        files.write_json(run.evaluation, evaluation)
    return evaluation


def _keep(
    run: RunDir,
    model: FittedClassifier,
    history: History,
    test: Part,
    evaluation: dict[str, Any],
    settings: Config,
) -> None:
    """The model, the predictions and the report."""
    model.save(run.model, estimator_parameters(settings, model.classes), history.iterations)
    proba = model.predict_proba(test.X)
    files.write_text(run.predictions, predictions_csv(model.classes, proba, test.y))
    contents = report.collect(
        model,
        test.X,
        test.y,
        title=_title(settings),
        metrics=history.reports,
        losses=history.course,
        evaluation=evaluation,
        config=settings.tables(),
        environment=run.surroundings(),
    )
    report.write_report(run.report, contents)


def _title(settings: Config) -> str:
    source = Path(settings.data.source or "").name
    return f"{source}, {settings.model.cell}, {settings.model.hidden_size} units"
