"""Checkpoints: the whole state of a training between two iterations, to resume it exactly.

A checkpoint is a directory of two files that belong together:

    checkpoint.safetensors   net.NAME           the weights
                             best.NAME          those of the best report, if they are to be restored
                             optimizer.I.NAME   the optimiser's state for parameter I
                             task.NAME          the task's state from batch to batch
                             random             the state of PyTorch's generator (dropout)
                             losses             of every tenth iteration, float64
    checkpoint.json          everything else: the iteration, the plan, the place in the data, the
                             reports, and the SHA-256 of the other file. Floats are exact.

The learning rate is a function of the iteration and needs no state. The state does not depend on
the planned end: the last checkpoint of a finished training is written before the report at the end,
so that a longer plan continues exactly as if it had been the plan from the start. The pair is
written and replaced as one (see `files`): after a kill at any time, the last checkpoint or
the one before it exists, whole.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from ostinato_learn.files import current, parse_json, write_directory
from ostinato_learn.models.tensor_file import fill, pack, unpack
from ostinato_learn.training.callbacks import Callback
from ostinato_learn.training.distributed import ALONE, Ranks
from ostinato_learn.training.history import History
from ostinato_learn.training.run import Best, Run
from ostinato_learn.training.task import digest

FORMAT = 1
TENSORS, STATE = "checkpoint.safetensors", "checkpoint.json"


class Checkpoint(Callback):
    """Keeps the last checkpoint of a training in a directory.

    It is written at the start, every `every` iterations, after the last one, and at Ctrl-C or
    SIGTERM. A training that stopped early or diverged leaves the last checkpoint before.

    If a training has several processes, the first one writes it. Nothing in it depends on the
    number of processes: any number can resume.

    Args:
        directory: for the checkpoint alone; its former content is replaced.
        every: iterations between two checkpoints.
    """

    everywhere = True  # each process has the state of its rows

    def __init__(self, directory: str | Path, every: int = 1000):
        if every < 1:
            raise ValueError(f"Checkpoint: every={every}; wanted 1 or more iterations")
        self.directory = Path(directory)
        self.every = every

    def on_start(self, run: Run) -> None:
        if not run.resumed:
            write(run, self.directory)

    def on_iteration(self, run: Run) -> None:
        if run.iteration % self.every == 0 or run.iteration == run.total:
            self._write(run)

    def on_end(self, run: Run) -> None:
        if run.history.outcome == "interrupted":
            self._write(run)

    def _write(self, run: Run) -> None:
        # An update may leave weights that are not finite, before any loss shows it.
        if _is_finite(run.net):
            write(run, self.directory)


def write(run: Run, directory: Path) -> None:
    """Replace the checkpoint in a directory by the state of a run; called in all its processes."""
    carried = {f"task.{name}": t for name, t in run.task.tensors().items()}
    if not run.ranks.first:
        return
    tensors = carried | {f"net.{name}": w for name, w in run.net.state_dict().items()}
    tensors |= {f"best.{name}": w for name, w in run.best.weights.items()}
    for i, kept in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": t for name, t in kept.items() if t is not None}
    tensors["random"] = torch.get_rng_state()
    tensors["losses"] = torch.tensor(run.history.losses, dtype=torch.float64)
    content = pack(tensors)
    state = {
        "format": FORMAT,
        "sha256": hashlib.sha256(content).hexdigest(),
        "plan": run.plan.as_dict(),
        "iteration": run.iteration,
        "last": [run.loss, run.measured, run.learning_rate] if run.iteration else None,
        "elapsed_s": run.elapsed_s,
        "task": run.task.state_dict(),
        "of": _fingerprints(run),
        "best": {"loss": run.best.loss, "iteration": run.best.iteration, "waited": run.best.waited},
        "reports": run.history.reports,
    }
    text = json.dumps(state, indent=1, allow_nan=False)
    write_directory(directory, {TENSORS: content, STATE: text.encode()})


def restore(run: Run, directory: Path) -> None:
    """Set a run, and PyTorch's random state, to the state of a checkpoint.

    If there are several processes, the first one reads it for all.

    Raises:
        ValueError: there is no complete checkpoint; it belongs to another plan, network or data; or
            it is later than the plan's end.
    """
    state, tensors = read(directory, run.ranks)
    differences = run.plan.differences(state["plan"])
    if differences:
        raise ValueError(
            f"the checkpoint in {directory} was made with another plan ({'; '.join(differences)}); "
            "a training is resumed with the plan it began with, only for longer or shorter"
        )
    if state["iteration"] > run.total:
        raise ValueError(
            f"the checkpoint in {directory} has {state['iteration']} iterations, and the "
            f"plan asks for {run.total}; wanted as many or more"
        )
    fill(run.net, _under("net.", tensors), str(directory / TENSORS))
    _restore_optimizer(run.optimizer, _under("optimizer.", tensors))
    run.task.load_state_dict(state["task"])
    run.task.load_tensors(_under("task.", tensors))
    for name, fingerprint in _fingerprints(run).items():
        if state["of"].get(name) != fingerprint:
            raise ValueError(
                f"the checkpoint in {directory} was made with {_ANOTHER[name]}; wanted what that "
                "training began with, or no resume"
            )
    run.iteration = state["iteration"]
    if state["last"] is not None:
        run.loss, run.measured, run.learning_rate = state["last"]
    run.best = Best(**state["best"], weights=_under("best.", tensors))
    run.history = History(
        state["reports"], run.iteration, run.best.iteration, losses=tensors["losses"].tolist()
    )
    run.elapsed_before = state["elapsed_s"]
    run.resumed = True
    torch.set_rng_state(tensors["random"])


def read(directory: Path, ranks: Ranks = ALONE) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The two files of a checkpoint, as (state, tensors).

    Args:
        directory: the directory, which the first process reads.
        ranks: the processes that call this together.

    Raises:
        ValueError: a file is missing, damaged or of another format, or the two do not belong
            together.
    """
    content, text = (
        ranks.bytes_from_first(partial(_content, directory, name)) for name in (TENSORS, STATE)
    )
    try:
        state = parse_json(text)
        version, sha256 = state["format"], state["sha256"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{directory / STATE} is not the state of a checkpoint") from None
    if version != FORMAT:
        raise ValueError(
            f"{directory / STATE} has format {version}; this version of ostinato reads {FORMAT}"
        )
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(
            f"{directory / TENSORS} is not the file that {STATE} was written with; "
            "one of the two is damaged or of another checkpoint"
        )
    return state, unpack(content, str(directory / TENSORS))


_PLAIN = (str, int, float, list, tuple, NoneType)  # a user's own cell is not plain
_ANOTHER = {
    "network": "another network (readout, dropout, …)",
    "examples": "other examples, or they were scaled, labelled or weighted otherwise",
}


def _fingerprints(run: Run) -> dict[str, str]:
    """Digests of the network and the examples; see `_ANOTHER`."""
    config = getattr(run.net, "config", {})
    plain = {k: v for k, v in config.items() if isinstance(v, _PLAIN)}
    return {
        "network": digest(sorted(plain.items())),
        "examples": run.task.fingerprint(),
    }


def _content(directory: Path, name: str) -> bytes:
    file = current(directory) / name
    if not file.is_file():
        raise ValueError(f"{directory} has no {name}; wanted the directory of a checkpoint")
    return file.read_bytes()


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        i, key = name.split(".", 1)
        state.setdefault(int(i), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]  # the plan's, not the file's
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _is_finite(net: torch.nn.Module) -> bool:
    return all(bool(torch.isfinite(w).all()) for w in net.state_dict().values())
