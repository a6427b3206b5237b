"""The card of a model, which a training writes into it: its data and its measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ostinato_learn import files, tasks
from ostinato_learn.jobs.inputs.built_in import BUILT_IN
from ostinato_learn.jobs.inputs.config import ONLY, Config
from ostinato_learn.jobs.runs import runs
from ostinato_learn.jobs.runs.rundir import RunDir
from ostinato_learn.tasks import TaskSpec

# The words for entries of environment.json about the data; see `Job.description`.
_SIZES = {
    "n_train": "learnt from",
    "n_validation": "validated on",
    "n_test": "tested on",
    "max_length": "longest sequence",
    "characters": "characters learnt from",
}


def keep(trained: runs.Trained, results: dict[str, Any] | None) -> None:
    """Write the card into the model; `results` is the content of evaluation.json.

    Raises:
        BadInput, ValueError: the model is damaged.
    """
    from ostinato_learn.saved import card as cards
    from ostinato_learn.saved.read import README, TENSORS
    from ostinato_learn.saved.tensors import read_file, unpack

    weights = files.current(trained.model) / TENSORS
    tensors = unpack(read_file(weights, str(weights)), str(weights))
    facts = cards.Facts(
        cards.n_parameters(tensors),
        _data(trained.config, trained.run) if trained.config and trained.run else (),
        _measured(trained.task(), results) if results else {},
        [f"{each['message']}: {each['remedy']}" for each in (results or {}).get("findings", [])],
    )
    files.write_text(files.current(trained.model) / README, cards.card(trained.entries(), facts))


def _data(settings: Config, run: RunDir) -> list[tuple[str, str]]:
    """The data of a run. Folders are left out: a card leaves the machine with its model."""
    source = settings.data.source or ""
    rows = [("source", source if source in BUILT_IN else Path(source).name)]
    known = run.surroundings().get("data", {})
    for file, digest in known.get("sha256", {}).items():
        rows.append((f"SHA-256 of {Path(file).name}", digest))
    targets = [getattr(settings.task, task) for task in tasks.NAMES]
    rows += [("column learnt", target) for target in targets if target not in (None, ONLY)]
    rows += [(words, f"{known[name]:,}") for name, words in _SIZES.items() if name in known]
    return rows


def _measured(task: TaskSpec, results: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The measures on the test part in words, of the model and of the baselines."""
    columns = {"this model": results["test"], **results.get("baselines", {})}
    return {
        name: {
            measure.words: measure.shown(measures[each])
            for each, measure in task.measures.items()
            if measures.get(each) is not None
        }
        for name, measures in columns.items()
    }
