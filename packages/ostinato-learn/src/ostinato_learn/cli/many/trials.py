"""The search space of `ostinato tune`, and the study in which it keeps its trials.

    axis    a parameter that is searched, and its values around the recipe of the task
    trial   a training with one value for each axis; pruned: ended early, because it is worse
    study   the trials so far, in a directory:

study.json     what is tuned, on which data, over which space, by which sampler and pruner
journal.log    every trial and report, as Optuna's journal storage appends them
best.toml      the configuration of the best trial; `ostinato train --config` takes it
trials.csv     all finished trials, the best first

A trial is a pure function of the study and of the number of finished trials: the sampler is seeded
anew for each. A trial that was running when the process ended is run again by the next process, so
that interruptions do not change the result of a study. If trials run side by side, each worker asks
the study in the journal for its own, and a trial also depends on those that run when it begins, and
so on the clock.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ostinato.internal import needs
from ostinato_learn import files
from ostinato_learn.cli.output import check_directory
from ostinato_learn.hyperparameters import Value
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs.config import OPTIONS, Config, Given
from ostinato_learn.jobs.inputs.task import unused
from ostinato_learn.jobs.output import csv_text

if TYPE_CHECKING:
    import optuna

COUNTED = ("training.eval_every", "training.warmup")  # iterations that depend on the batch size
STEPS = 20  # a trial is compared with others after each twentieth of its schedule
NAME = "tune"
FORMAT = 1

SAMPLER: dict[str, Any] = {"name": "TPESampler", "n_startup_trials": 8}
# No trial is pruned in the first quarter of a schedule, where its loss does not predict its last.
PRUNER: dict[str, Any] = {
    "name": "MedianPruner",
    "n_startup_trials": 4,
    "n_warmup_steps": STEPS // 4,
}


@dataclass(frozen=True)
class SearchedParameter:
    """A parameter and the values to try, which always include that of the recipe.

    Attributes:
        key: of the configuration.
        choices: the values.
        factors: the values are the recipe's, times these.
        around: the values lie between the recipe's divided by this and times this, on a
            logarithmic scale.
    """

    key: str
    choices: tuple[Value, ...] = ()
    factors: tuple[float, ...] = ()
    around: float | None = None

    def values(self, base: Value) -> list[Value]:
        """The bounds (with `around`) or the choices, given the recipe's value."""
        if self.around is not None:
            return [base / self.around, base * self.around]
        values = [*self.choices, *(max(1, round(base * factor)) for factor in self.factors)]
        return list(dict.fromkeys([*values, base]))

    def suggest(self, trial: optuna.Trial, base: Value) -> Value:
        """The value that a trial tries."""
        values = self.values(base)
        if self.around is None:
            return trial.suggest_categorical(self.key, values)
        value = trial.suggest_float(self.key, values[0], values[1], log=True)
        return float(f"{value:.3g}")


SPACE = (
    SearchedParameter("training.learning_rate", around=10.0),
    SearchedParameter("training.batch_size", factors=(0.5, 1, 2)),
    SearchedParameter("training.weight_decay", choices=(0.0, 0.01, 0.1)),
    SearchedParameter("model.cell", choices=("gru", "lstm")),
    SearchedParameter("model.hidden_size", factors=(0.5, 1, 2)),
    SearchedParameter("model.layers", choices=(1, 2)),
    SearchedParameter("model.bidirectional", choices=(False, True)),
    SearchedParameter("model.dropout", choices=(0.0, 0.1, 0.3, 0.5)),
    SearchedParameter("model.readout", choices=("last", "mean", "attention")),
)


def space(settings: Config, given: Given) -> tuple[SearchedParameter, ...]:
    """The axes of a task, without the parameters that the user has set."""
    left_out = unused(settings) | given.keys()
    return tuple(axis for axis in SPACE if axis.key not in left_out)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
        said: the outcome in words, if it was not trained to its end.
        pruned: whether it counts as bad; if not, and there are no reports, the time was up.
        reports: the best report of each draw.
    """

    said: str = ""
    pruned: bool = False
    reports: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Study:
    """An open study; a process that gets a copy of one in a journal opens the journal.

    Attributes:
        study: Optuna's.
        base: the configuration that trials change.
        axes: the parameters that they change.
        decided: the keys that the user set, which trials keep.
        seed: the seed of the sampler.
        path: the directory; None: nothing is kept.
        journal: the file of the trials; None: they are in memory.
        fresh: whether it is new.
        findings: those of the data check that put the losses in doubt; see `run/findings.py`.
    """

    study: optuna.Study
    base: Config
    axes: tuple[SearchedParameter, ...]
    decided: frozenset[str]
    seed: int
    path: Path | None
    fresh: bool
    findings: Sequence[dict[str, Any]] = ()
    journal: Path | None = None

    @property
    def best_file(self) -> Path | None:
        return None if self.path is None else self.path / "best.toml"

    def ask(self) -> tuple[optuna.Trial, Given]:
        """The next trial, and its changes of the recipe."""
        import optuna

        options = {name: value for name, value in SAMPLER.items() if name != "name"}
        trial, state = self.study.ask(), optuna.trial.TrialState
        states = (state.COMPLETE, state.PRUNED, state.RUNNING)
        before = [
            each.state
            for each in self.study.get_trials(deepcopy=False, states=states)
            if each.number < trial.number
        ]
        # Running trials count as bad ones, so that the sampler avoids their values.
        options["constant_liar"] = state.RUNNING in before
        seed = (self.seed + len(before)) % 2**32  # another one for each, also side by side
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, **options)
        used = {axis.key: axis.suggest(trial, self.base.get(axis.key)) for axis in self.axes}
        used |= self._scaled(used)
        trial.set_user_attr("used", used)
        return trial, used

    def tell(self, trial: optuna.Trial, outcome: Outcome) -> str:
        """Keep an outcome; return it in words."""
        import optuna

        found = outcome.reports
        if outcome.pruned:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        if not found:
            return outcome.said
        for name in found[0]:
            if name.startswith("validation_"):
                values = [report[name] for report in found]
                trial.set_user_attr(name, statistics.fmean(values))
                trial.set_user_attr(f"draws_{name}", values)
        loss = statistics.fmean(report["validation_loss"] for report in found)
        self.study.tell(trial, loss)
        best = self.best()
        leads = " (the best so far)" if best is not None and best.number == trial.number else ""
        return f"validation loss {loss:.4g}{leads}"

    def check_seen(self) -> None:
        """Raise BadInput if this process does not see the journal."""
        if self.journal is not None and not self.journal.is_file():
            raise BadInput(
                f"{platform.node()} does not see {self.journal}; wanted an --output that all "
                "machines share"
            )

    def finished(self) -> list[optuna.trial.FrozenTrial]:
        """Trials that were trained to their end or pruned, the best first."""
        import optuna

        states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        trials = self.study.get_trials(deepcopy=False, states=states)
        return sorted(trials, key=lambda t: (t.state != states[0], _loss(t), t.number))

    def best(self) -> optuna.trial.FrozenTrial | None:
        """The trial with the lowest validation loss; None if none was trained to its end."""
        import optuna

        first = next(iter(self.finished()), None)
        complete = optuna.trial.TrialState.COMPLETE
        return first if first is not None and first.state == complete else None

    def config_of(self, trial: optuna.trial.FrozenTrial) -> str:
        """The configuration of a trial as TOML."""
        settings = self.base.updated(trial.user_attrs["used"])
        head = f"# ostinato tune: trial {trial.number}, validation loss {_loss(trial):.6g}\n"
        head += "".join(f"# {each['severity']}: {each['message']}\n" for each in self.findings)
        return head + settings.toml(without=unused(settings))

    def keep(self) -> None:
        """Write the best configuration and the table of trials."""
        best = self.best()
        if self.path is None:
            return
        if best is not None:
            files.write_text(self.path / "best.toml", self.config_of(best))
        names = [axis.key for axis in self.axes]
        rows = (
            [t.number, t.state.name.lower(), _loss(t), *map(t.user_attrs["used"].get, names)]
            for t in self.finished()
        )
        files.write_text(
            self.path / "trials.csv", csv_text(["trial", "state", "validation_loss", *names], rows)
        )

    def discard(self) -> None:
        """Remove a new study without a trial."""
        if self.path is not None and self.fresh and not self.finished():
            shutil.rmtree(self.path)

    def _scaled(self, used: Mapping[str, Value]) -> Given:
        """Reports and warm-up at the same shares of the schedule as with the recipe's batches.

        If the length is in epochs, smaller batches make more iterations.
        """
        size = self.base.training.batch_size
        more = size / used.get("training.batch_size", size)
        if self.base.training.epochs is None or more == 1:
            return {}
        base = {key: self.base.get(key) for key in COUNTED if key not in self.decided}
        return {key: max(1, round(n * more)) if n else n for key, n in base.items()}


def check(path: Path) -> None:
    """Raise BadInput if no study can begin, or go on, at `path`.

    Raises:
        BadInput: something else exists there, or nothing can be written there.
    """
    if os.path.lexists(path) and not path.is_dir():
        raise BadInput(f"{path} is a file; wanted a directory for the study: another --output")
    if path.is_dir() and any(path.iterdir()) and not (path / "study.json").is_file():
        raise BadInput(
            f"{path} exists already and is not a study of ostinato; take another --output"
        )
    check_directory(path)


@contextmanager
def opened(
    path: Path | None,
    base: Config,
    given: Given,
    description: Mapping[str, Any],
    seed: int,
    findings: Sequence[dict[str, Any]],
    shared: bool,
) -> Iterator[Study]:
    """A new study, or the one at `path`, which goes on.

    Args:
        path: the directory, which `check` allows; None: nothing is kept.
        base: the recipe, with the parameters that the user set.
        given: the parameters that the user set, which are not searched.
        description: that of the data; a study continues only with the same.
        seed: the seed of the sampler.
        findings: those of the data check.
        shared: whether several processes try its trials.

    Raises:
        BadInput: there is another study, another process works on it, or every parameter is given.
        ModuleNotFoundError: Optuna is not installed.
    """
    with needs("ostinato-learn[tune]", "optuna"):
        import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    axes, decided = space(base, given), frozenset(given)
    if not axes:
        names = ", ".join(axis.key for axis in SPACE if axis.key in decided)
        raise BadInput(f"nothing is left to search: {names} are all given; leave some of them out")
    identity = _identity(base, axes, description, seed)
    options = {name: value for name, value in PRUNER.items() if name != "name"}
    pruner = optuna.pruners.MedianPruner(**options)
    if path is None and not shared:
        study = optuna.create_study(pruner=pruner)
        yield _begun(Study(study, base, axes, decided, seed, None, True, findings))
        return
    if path is None:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "journal.log")
            study = _in_journal(log, pruner)
            yield _begun(Study(study, base, axes, decided, seed, None, True, findings, log))
        return
    fresh = not (path / "study.json").is_file()
    if not fresh:
        _check_same(path, identity, decided)
    path.mkdir(parents=True, exist_ok=True)
    with (path / "lock").open("w") as lock:
        _lock(lock, path)
        if fresh:
            files.write_json(path / "study.json", identity)
        log = path.resolve() / "journal.log"
        _repair(log)
        study = _in_journal(log, pruner)
        yield _begun(Study(study, base, axes, decided, seed, path, fresh, findings, log))


def _in_journal(log: Path, pruner: optuna.pruners.BasePruner) -> optuna.Study:
    import optuna
    from optuna.storages import journal

    backend = journal.JournalFileBackend(str(log), journal.JournalFileOpenLock(str(log)))
    return optuna.create_study(
        storage=journal.JournalStorage(backend),
        study_name=NAME,
        pruner=pruner,
        load_if_exists=True,
    )


def _begun(study: Study) -> Study:
    """A study whose first trial is the recipe itself.

    A trial that was running when the process ended counts as failed. The next trial draws the same
    values, since the number of finished trials is the same.
    """
    import optuna

    state, optunas = optuna.trial.TrialState, study.study
    for trial in optunas.get_trials(deepcopy=False, states=(state.RUNNING,)):
        optunas.tell(trial.number, state=state.FAIL)
    waiting = optunas.get_trials(deepcopy=False, states=(state.WAITING,))
    if not waiting and not study.finished():
        optunas.enqueue_trial({axis.key: study.base.get(axis.key) for axis in study.axes})
    return study


def _identity(
    base: Config, axes: tuple[SearchedParameter, ...], description: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """The contents of study.json."""
    return {
        "format": FORMAT,
        "settings": {k: v for k, v in base.items() if k != "run.checkpoint_every"},
        "space": {axis.key: axis.values(base.get(axis.key)) for axis in axes},
        "data": dict(description),
        "sampler": SAMPLER | {"seed": seed, "seed_of_a_trial": "seed + finished trials"},
        "pruner": PRUNER | {"steps": STEPS},
    }


def _check_same(path: Path, identity: dict[str, Any], decided: frozenset[str]) -> None:
    """Raise BadInput if the study at `path` has other settings.

    Raises:
        BadInput: they differ; the message names a difference, preferably one that the user gave.
    """
    try:
        began = files.parse_json((path / "study.json").read_bytes())
        parts = {name: dict(began[name]) for name in identity if name != "format"}
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(
            f"{path / 'study.json'} is damaged; take another --output to begin another study"
        ) from None
    if began["format"] != FORMAT:
        raise BadInput(f"{path} is a study of another version of ostinato; take another --output")
    now = json.loads(json.dumps(identity))
    for part, before in parts.items():
        for name in sorted({*before, *now[part]}, key=lambda name: (name not in decided, name)):
            if before.get(name) != now[part].get(name):
                flag = OPTIONS[name].flag if part == "settings" else f"{part}: {name}"
                raise BadInput(
                    f"{flag} is now {now[part].get(name)!r}, but the study in {path} began with "
                    f"{before.get(name)!r}; a study goes on with the same: leave that out, or "
                    "take another --output"
                )


def _lock(file: IO[str], path: Path) -> None:
    """Lock a study against other processes until `file` is closed, if the system can."""
    try:
        import fcntl
    except ImportError:  # on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadInput(f"another process works on the study in {path}; wait for its end") from None


def _repair(log: Path) -> None:
    """Remove the remains of a kill: Optuna's lock, and an incomplete line."""
    log.with_name(log.name + ".lock").unlink(missing_ok=True)
    if log.is_file():
        content = log.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(log, whole)


def _loss(trial: optuna.trial.FrozenTrial) -> float:
    """The validation loss of a trial: its best, or the last one of a pruned trial."""
    if trial.value is not None:
        return trial.value
    return float("inf") if trial.last_step is None else trial.intermediate_values[trial.last_step]
