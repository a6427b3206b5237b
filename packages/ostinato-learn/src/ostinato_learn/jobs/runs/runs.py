"""Finding a trained run, or a saved model alone, for the commands that read one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostinato_learn import files, tasks
from ostinato_learn.data.questions import listed
from ostinato_learn.hyperparameters import EXTENDABLE
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import config as configuration
from ostinato_learn.jobs.inputs import sources
from ostinato_learn.jobs.inputs.config import ONLY, OPTIONS, Config, Given
from ostinato_learn.jobs.runs.rundir import RunDir
from ostinato_learn.tasks import TaskSpec

if TYPE_CHECKING:
    from ostinato_learn.data.sequences.preparation import Preparation

# Parameters that say how a given file is read.
READING = (
    "data.separator",
    "data.decimal",
    "data.encoding",
    "data.na",
    "data.thousands",
    "data.skip_lines",
    "data.sort",
    "data.repeated",
    "data.time_format",
)
# The hyperparameters that make a finished run longer; the others of EXTENDABLE do not.
LENGTH = ("training.iterations", "training.epochs")


@dataclass(frozen=True)
class Trained:
    """The directory of a model, and the configuration if it belongs to a run."""

    model: Path
    config: Config | None
    run: RunDir | None
    file: Given = field(default_factory=dict)  # how the given file is read

    def reading(self, given: Given) -> Trained:
        """The same model for a file that is read in this way: its dialect, whether to sort.

        By default a file is read like that of the run.
        """
        return replace(self, file=given)

    def reading_of(self, source: str) -> str:
        """How this model reads a data set's images as sequences."""
        return self.config.data.as_sequence if self.config else "rows"

    def task(self) -> TaskSpec:
        """The task of the saved model.

        Raises:
            BadInput: its configuration is damaged, or this version does not know its kind.
        """
        try:
            return tasks.by_kind(str(self.entries().get("kind")), str(self.model))
        except ValueError as problem:
            raise BadInput(str(problem)) from None

    def entries(self) -> dict[str, Any]:
        """The content of config.json of the saved model, unchecked.

        Raises:
            BadInput: it is not a JSON object.
        """
        try:
            found = files.parse_json(self._saved.read_bytes())
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict):
            raise self._damaged()
        return found

    @property
    def _saved(self) -> Path:
        return files.current(self.model) / "config.json"

    def _damaged(self) -> BadInput:
        return BadInput(f"{self._saved} is missing or damaged; save the model again")

    def preparation(self) -> Preparation | None:
        """How the model prepares its columns, read without torch; None for a model of arrays.

        Raises:
            BadInput: its configuration is damaged.
        """
        from ostinato_learn.data.sequences.preparation import Preparation

        try:
            kept = self.entries().get("fitted", {}).get("preparation")
            return None if kept is None else Preparation.from_json(kept)
        except (ValueError, AttributeError):
            raise self._damaged() from None

    def settings(self) -> Config:
        """The configuration of the run; the defaults, for a model without one."""
        return (self.config or Config()).updated(self.file)

    def environment(self) -> dict[str, Any]:
        return self.run.surroundings() if self.run else {}

    def network(self) -> Given:
        """The [model] section that this model was built with.

        Raises:
            BadInput: its configuration is damaged.
        """
        options = [o for o in OPTIONS.values() if o.section == "model"]
        try:
            net = self.entries()["net"]
            kept = [o for o in options if o.name in net]
            if not isinstance(net.get("cell"), dict):
                return {o.key: o.check(net[o.name], f"{self._saved}: {o.name}") for o in kept}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._damaged() from None
        raise BadInput(f"{self.model}: its cell is a user's own, whose code no saved model holds")

    def columns(self) -> Given:
        """The roles of the columns of a table, as far as this model knows them.

        Raises:
            BadInput: the model's configuration is damaged.
        """
        preparation = self.preparation()
        roles = None if preparation is None else preparation.roles
        if roles is None or roles.task is None:
            return {}
        found: Given = {
            "data.id": roles.id,
            "data.time": roles.time,
            "data.time_format": roles.time_format,
            "data.group": roles.group,
            f"task.{roles.task}": roles.target,
        }
        task = tasks.named(roles.task)
        if task.several_targets:  # the names of columns; other tasks have one name
            found[task.target] = listed([roles.target] if roles.target else roles.labels)
        for name in ("features", "categories", "static", "known"):
            found[f"data.{name}"] = listed(getattr(roles, name))
        if roles.shape == "wide":
            found["data.shape"] = roles.shape
        return {key: value for key, value in found.items() if value}

    def learnt(self) -> Given:
        """Further parameters that the weights were learnt with: `TaskSpec.learnt`.

        Raises:
            BadInput: the model's configuration is damaged.
        """
        entries, found, learnt = self.entries(), Given(), self.task().learnt
        for key, place in learnt.items():
            value: Any = entries
            for name in place.split("."):
                value = value.get(name) if isinstance(value, dict) else None
            if value is not None:
                found[key] = OPTIONS[key].check(value, f"{self.model}: {place}")
        if "data.missing" in learnt:
            if "data.missing" not in found:  # fitted in Python: values are not filled
                return {**found, "data.missing": "error", "data.standardize": False}
            if self.config is not None:
                found["data.standardize"] = self.config.data.standardize
        return found


TARGETS = tuple(task.target for task in tasks.every())


def find(path: Path) -> Trained:
    """The run directory, or directory of a saved model, at `path`."""
    run = RunDir(path)
    if run.is_run():
        if not run.model.is_dir():
            raise BadInput(
                f"{path} has no trained model yet; finish it with: "
                f"ostinato train --resume --output {path}"
            )
        return Trained(run.model, read_config(run), run)
    if (path / "model.safetensors").is_file():
        return Trained(path, None, None)
    if not path.exists():
        raise BadInput(f"{path}: no such run or model")
    if run.config.is_file() and run.model.is_dir():
        raise BadInput(
            f"{run.config} is damaged: it does not begin like that of a run; the model alone "
            f"is {run.model}"
        )
    raise BadInput(
        f"{path} is neither a run (with config.toml) nor a saved model (with model.safetensors)"
    )


def read_config(run: RunDir) -> Config:
    """The configuration of a run, with defaults for parameters that its file does not name."""
    return configuration.resolve(configuration.read_file(run.config))


def with_origin(asked: Given) -> Given:
    """The given parameters, with those of the model that the weights come from, if any.

    The columns of a table have the names from its training, unless others are given.

    Raises:
        BadInput: the parameters describe a network into which the weights do not fit.
    """
    if asked.get("run.from") is None:
        return asked
    origin = Path(str(asked["run.from"]))
    found = find(origin)
    began = found.network() | found.learnt()
    for key, value in began.items():
        # Dropout has no weights, and may change.
        if key != "model.dropout" and asked.get(key, value) != value:
            raise BadInput(
                f"{key} is {asked[key]}, but the weights from {origin} have {value}; leave it out "
                "to begin with these weights, or leave out --from"
            )
    columns = found.columns() if sources.is_table(str(asked.get("data.source"))) else {}
    if any(asked.get(key) is not None for key in TARGETS):
        columns = {key: name for key, name in columns.items() if key not in TARGETS}
    return columns | began | asked


def continued(run: RunDir, asked: Given) -> Config:
    """The configuration of a resumed run: unchanged, except its length and reports.

    Raises:
        BadInput: another parameter is to be changed.
    """
    began = read_config(run)
    may_change = {"run.checkpoint_every", *(f"training.{name}" for name in EXTENDABLE)}
    if began.training.validation_fraction:
        may_change -= {"training.eval_every"}  # the best report decides the resulting weights
    changed = {k: v for k, v in asked.items() if v != began.get(k)}
    changed = {k: v for k, v in changed.items() if v is not None or k not in LENGTH}
    if changed.get("task.language") == ONLY and began.task.language is not None:
        del changed["task.language"]  # the only column of texts, found when the run began
    for key, value in changed.items():
        if key not in may_change:
            raise BadInput(
                f"{key} is now {value}, but the run in {run.path} began with {began.get(key)}; a "
                f"run is resumed as it began, but for {', '.join(sorted(may_change))}: leave that "
                "out, or begin another run (--from begins one with these weights)"
            )
    return configuration.resolve({k: v for k, v in began.items() if v is not None}, changed)


def is_done(run: RunDir, settings: Config) -> bool:
    """Whether a run is finished, also under the settings of its resumption.

    Raises:
        BadInput: more iterations are given, but the run would stop early again at the same place.
    """
    results = run.results()
    if results is None:
        return False
    began = read_config(run).training
    now, patience = settings.training, settings.training.patience
    longer = (now.iterations, now.epochs) != (began.iterations, began.epochs)
    if results["outcome"] != "stopped early":
        return not longer
    if longer and patience == began.patience:
        raise BadInput(
            f"the run in {run.path} stopped early, after {results['iterations']} iterations: the "
            f"validation loss had not fallen for {patience} reports; go on with --patience none, "
            "or with a larger number"
        )
    return patience == began.patience
