"""Limits of this machine: what exceeds them is refused before anything is written."""

from __future__ import annotations

from typing import Any

from ostinato_learn import environment
from ostinato_learn.anatomy import GATES, Anatomy
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs.config import Config

# More threads than cores are allowed: a run from a larger machine is resumed with its own number,
# on which bits depend.
MOST_THREADS = 256

# The least number of values that an optimizer keeps for each weight.
KEPT = {"sgd": 0, "rmsprop": 1, "adam": 2, "adamw": 2}


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that must be a mistake."""
    cores = environment.cores()
    most = max(MOST_THREADS, cores)
    if threads is not None and threads > most:
        raise BadInput(
            f"--threads is {threads:,}; wanted at most {most}, and best {cores}, "
            "a thread for each core that this process may use"
        )


def check_memory(settings: Config, needed: int) -> None:
    """Refuse a network whose training cannot fit into the memory of this machine.

    Args:
        needed: bytes that the training takes at least.
    """
    there = environment.memory()
    if there is not None and needed > there:
        model = settings.model
        raise BadInput(
            f"to train {model.num_layers:,} x {model.hidden_size:,} hidden units takes at least "
            f"{gigabytes(needed)}, and this machine has {gigabytes(there)}; "
            "wanted a smaller --hidden-size, --layers or --batch-size"
        )


def least_memory(settings: Config, data: dict[str, Any]) -> int:
    """Bytes that a training takes at least: its weights, and the states of a batch.

    A weight counts with its gradient and the optimizer's state; a hidden state with its gates.

    Args:
        data: n_train, max_length, n_features and n_classes, or the corresponding sizes of other
            tasks.
    """
    m, plan = settings.model, settings.training
    B, T = min(plan.batch_size, data["n_train"]), data["max_length"]
    network = Anatomy(
        m.cell,
        T,
        data["n_features"],
        m.hidden_size,
        data["n_classes"],
        m.num_layers,
        m.bidirectional,
    )
    weights = network.parameters * (2 + KEPT[plan.optimizer])
    states = B * T * m.num_layers * network.n_directions * m.hidden_size * GATES[m.cell]
    if plan.memory is not None:  # states are computed again
        states = 0
    return 4 * (weights + states)


def gigabytes(n: int) -> str:
    """A number of bytes in GB of 10⁹ bytes, such as "1.5 GB"."""
    return f"{n / 1e9:,.1f} GB"
