"""`train`: the training loop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ostinato.internal import native
from ostinato_learn.data import Batches
from ostinato_learn.interrupt import Interrupt
from ostinato_learn.models import ClassifierNet
from ostinato_learn.models.build import seeded
from ostinato_learn.training import checkpoint, distributed, optimizers
from ostinato_learn.training.callbacks import Callback, check_callbacks, tell
from ostinato_learn.training.classification import Classification
from ostinato_learn.training.history import LOSS_EVERY, History, Report
from ostinato_learn.training.plan import Plan
from ostinato_learn.training.run import Diverged, Run
from ostinato_learn.training.schedules import learning_rate
from ostinato_learn.training.task import Task

# Before this share of a schedule that falls to zero, patience ends nothing: the loss often falls
# only when the steps become small.
PATIENT_SHARE = 0.6
# Up to this many parameters, a training alone was as fast with one thread for PyTorch's own
# operations as with two (ratios of 0.99 to 1.02 for four networks of 21,514 to 282,634).
SMALL = 2**18


def train(
    net: ClassifierNet,
    batches: Batches,
    plan: Plan,
    *,
    validation: tuple[Any, Any] | None = None,
    class_weight: Mapping[int, float] | str | None = None,
    sample_weight: Any = None,
    callbacks: Sequence[Callback] = (),
    resume: str | Path | None = None,
) -> History:
    """Train a classifying network in place, and leave it in evaluation mode.

    The same network, batches, plan and number of threads give the same bits, also when the
    training is interrupted anywhere and resumed. The caller's random state is unchanged. Threads
    that train with dropout at the same time share PyTorch's random state, and get other masks.

    In a process group of `torch.distributed` all processes train together, each on its rows of
    every batch; see `training.distributed`.

    Args:
        net: the network; the training starts from its weights.
        batches, plan: the data, with classes 0…C−1 as y, and how to train; of the same batch size.
        validation: (X, y), evaluated at every report; `patience` and `restore_best` need it.
        class_weight: class -> weight, or "balanced"; classes not named weigh 1.
        sample_weight: `[N]`, of the examples in a batch's mean loss; validation is not weighted.
        callbacks: called in their order; if there are several processes, in the first alone, except
            callbacks with `everywhere`.
        resume: directory of a checkpoint to resume from, written by `Checkpoint`.

    Raises:
        Diverged: the loss became NaN or infinite.
        ValueError: the arguments do not fit together, or the checkpoint does not fit them; there
            are more processes than rows in a batch, or they were given different arguments.
        PeerLost: another process of the training has ended.
        KeyboardInterrupt, SystemExit: at Ctrl-C and SIGTERM, after an iteration and `on_end`.

    Example:
        >>> import torch
        >>> from ostinato_learn.data import Batches
        >>> from ostinato_learn.models import ClassifierNet
        >>> from ostinato_learn.training import Plan, train
        >>> X, y = torch.randn(40, 9, 2).numpy(), torch.randint(3, (40,)).numpy()
        >>> net = ClassifierNet(n_features=2, n_classes=3, hidden_size=8)
        >>> history = train(net, Batches(X, y, 20), Plan(iterations=6, batch_size=20))
        >>> history.iterations, history.outcome
        (6, 'finished')
    """
    if plan.batch_size != batches.batch_size:
        raise ValueError(
            f"the plan has batch_size={plan.batch_size}, the batches have {batches.batch_size}; "
            "wanted the same"
        )
    n_classes = net.config["n_classes"]
    task = Classification(batches, n_classes, class_weight, sample_weight, validation)
    return learn(net, task, plan, callbacks=callbacks, resume=resume)


def learn(
    net: torch.nn.Module,
    task: Task,
    plan: Plan,
    *,
    callbacks: Sequence[Callback] = (),
    resume: str | Path | None = None,
) -> History:
    """Train a network for any task, which has the data and the loss; see `train` for the rest."""
    if plan.patience is not None and not task.has_validation:
        raise ValueError(
            f"patience={plan.patience} without a validation set; give validation_fraction=0.2, "
            "or validation=… to fit, or leave patience out"
        )
    check_callbacks(callbacks)
    ranks = distributed.current()
    ranks.check_batch(task.batch_size)
    task.ranks = ranks
    if not ranks.alone:
        distributed.set_threads_unless_chosen()
        callbacks = [each for each in callbacks if ranks.first or each.everywhere]
    total = plan.total_iterations(task.n_examples)
    run = Run(net, optimizers.build(plan, net), task, plan, total)
    with (
        Interrupt(shared=not ranks.alone) as interrupt,
        engine_first(net),
        seeded(plan.seed),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        _begin_together(run, resumes=resume is not None)
        if resume is not None:
            checkpoint.restore(run, Path(resume))
        try:
            tell(callbacks, "on_start", run)
            net.train()
            _set_layers(net, plan.memory, plan.truncate)
            while not run.ended:
                if interrupt.requested:
                    run.history.outcome = "interrupted"
                    interrupt.end()
                _measure(run, interrupt)
                if run.iteration % plan.eval_every == 0:
                    _report(run, callbacks)
                    if run.ended:  # the validation loss has not fallen for too long
                        break
                _update(run)
                tell(callbacks, "on_iteration", run)
            _finish(run, callbacks)
        finally:
            net.eval()
            _set_layers(net, None, None)
            tell(callbacks, "on_end", run)
    return run.history


def _set_layers(net: torch.nn.Module, memory: str | None, truncate: int | None) -> None:
    """Set `memory` and `truncate` of the recurrent layers during a training; see `Training`.

    The budget is for all layers, also those that read the characters of a word. `truncate` is for
    the body alone, whose steps are those of the sequences.
    """
    for module in net.modules():
        if hasattr(module, "memory_budget"):
            module.memory_budget = memory  # type: ignore[assignment]
    body: Any = net.body  # every network here has one
    for module in body.modules():
        if hasattr(module, "gradient_steps"):
            module.gradient_steps = truncate


def _begin_together(run: Run, resumes: bool) -> None:
    """Check that all processes train the same network in the same way."""
    run.ranks.check_same(
        resume=resumes,
        plan=run.plan.as_dict(),
        parameters={name: list(p.shape) for name, p in run.net.named_parameters()},
        examples=run.task.n_examples,
        place=run.task.state_dict(),
    )
    run.ranks.weights_from_first(run.net)


def _measure(run: Run, interrupt: Interrupt) -> None:
    """The next batch: its loss and measures, and the gradient."""
    run.optimizer.zero_grad()
    run.ranks.seed(run.plan.seed, run.iteration)
    share = run.task.loss(run.net)
    loss, measured = distributed.backward(run.ranks, run.net, share, interrupt)
    run.loss = _finite("the loss", loss, run)
    run.measured = run.task.measures(loss, measured)
    run.learning_rate = learning_rate(run.plan, run.iteration, run.total)
    if run.iteration == LOSS_EVERY * len(run.history.losses):
        run.history.losses.append(run.loss)


def _update(run: Run) -> None:
    if run.plan.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(run.net.parameters(), run.plan.clip_norm)
    for group in run.optimizer.param_groups:
        group["lr"] = run.learning_rate
    run.optimizer.step()
    run.iteration += 1
    run.history.iterations = run.iteration


def _report(run: Run, callbacks: Sequence[Callback]) -> None:
    report: Report = {
        "iteration": run.iteration,
        "epoch": run.iteration * run.plan.batch_size / run.task.n_examples,
        "loss": run.loss,
        **run.measured,
        "learning_rate": run.learning_rate,
    }
    if run.task.has_validation:
        validated = run.task.validated(run.ranks.means(run.task.validate(run.net)))
        loss = _finite("the validation loss", validated["validation_loss"], run)
        report |= validated
        run.best.update(loss, run.iteration, run.net, keep=run.plan.restore_best)
        run.history.best_iteration = run.best.iteration
    report["elapsed_s"] = run.elapsed_s
    run.history.reports.append(report)
    tell(callbacks, "on_report", run, report)
    if _out_of_patience(run):
        run.history.outcome = "stopped early"


def _out_of_patience(run: Run) -> bool:
    patience = run.plan.patience
    if patience is None or run.best.waited < patience:
        return False
    return run.plan.schedule != "cosine" or run.iteration >= PATIENT_SHARE * run.total


def _finish(run: Run, callbacks: Sequence[Callback]) -> None:
    """Make the report at the end, unless it exists, and restore the best weights."""
    if run.history.reports[-1]["iteration"] != run.iteration:
        _report(run, callbacks)
    if run.best.weights:
        run.net.load_state_dict(run.best.weights)
    run.history.outcome = "finished" if run.iteration >= run.total else "stopped early"


def _finite(what: str, value: float, run: Run) -> float:
    if not math.isfinite(value):
        raise Diverged(what, value, run.iteration)
    return value


@contextmanager
def engine_first(net: torch.nn.Module) -> Iterator[None]:
    """Leave all threads to the engine, and one to PyTorch's own operations, for a small network.

    Around the engine's work such a network has some ten operations of a few microseconds: readout,
    loss, update. A second thread gains nothing there. It spins for milliseconds after each
    operation, on a core that another program may want; beside such a program each operation waits
    until the thread has a core again: 5.6 ms an iteration instead of 2.8 (`python -m benchmarks
    contention`).
    """
    threads = torch.get_num_threads()
    small = sum(p.numel() for p in net.parameters()) <= SMALL
    if not small or native.unavailable() is not None:
        yield
        return
    token = native.own_threads.set(native.n_threads(threads))
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        native.own_threads.reset(token)
