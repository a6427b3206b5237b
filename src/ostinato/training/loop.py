"""`train`: the training loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ostinato.data import Batches
from ostinato.interrupt import Interrupt
from ostinato.models import ClassifierNet
from ostinato.training import checkpoint, optimizers
from ostinato.training.callbacks import Callback, tell
from ostinato.training.evaluation import evaluate
from ostinato.training.examples import Examples, cross_entropy
from ostinato.training.history import LOSS_EVERY, History, Report
from ostinato.training.plan import Plan
from ostinato.training.run import Diverged, Run
from ostinato.training.schedules import learning_rate
from ostinato.training.threads import engine_first


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
    """Train a classifying network, in place; in the end it is in evaluation mode.

    The same network, batches, plan and number of threads give the same bits, also when the
    training is interrupted anywhere and resumed. The caller's random state is not touched.

    Args:
        net: the network; its weights are where the training begins.
        batches, plan: the data, y being classes 0…C−1, and how to train; of one batch size.
        validation: (X, y), evaluated at every report; `patience` and `restore_best` need it.
        class_weight: class -> weight, or "balanced"; classes not named weigh 1.
        sample_weight: `[N]`, of the examples in a batch's mean loss; validation is not weighted.
        callbacks: called in their order.
        resume: directory of a checkpoint to go on from, written by `Checkpoint`.

    Raises:
        Diverged: the loss became NaN or infinite.
        ValueError: the arguments do not fit together, or the checkpoint does not fit them.
        KeyboardInterrupt, SystemExit: Ctrl-C; SIGTERM; after an iteration, and after `on_end`.
    """
    _check_plan(plan, batches, validation)
    examples = Examples(batches, net.config["n_classes"], class_weight, sample_weight)
    total = plan.total_iterations(batches.n_examples)
    run = Run(net, optimizers.build(plan, net), batches, plan, total)
    with Interrupt() as interrupt, engine_first(net), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(plan.seed)
        if resume is not None:
            checkpoint.restore(run, Path(resume))
        try:
            tell(callbacks, "on_start", run)
            net.train()
            while not run.ended:
                if interrupt.requested:
                    run.history.outcome = "interrupted"
                    interrupt.end()
                x, lengths, y, weights = examples.next()
                logits = net(x, lengths)
                loss = cross_entropy(logits, y, weights)
                _measure(run, loss, logits, y)
                if run.iteration % plan.eval_every == 0:
                    _report(run, validation, callbacks)
                    if run.ended:  # the validation loss has not fallen for too long
                        break
                _update(run, loss)
                tell(callbacks, "on_iteration", run)
            _finish(run, validation, callbacks)
        finally:
            net.eval()
            tell(callbacks, "on_end", run)
    return run.history


def _measure(run: Run, loss: Tensor, logits: Tensor, y: Tensor) -> None:
    """What the batch says of the network before it learns from it."""
    run.loss = _finite("the loss", loss.item(), run)
    run.train_accuracy = (logits.argmax(1) == y).double().mean().item()
    run.learning_rate = learning_rate(run.plan, run.iteration, run.total)
    if run.iteration == LOSS_EVERY * len(run.history.losses):
        run.history.losses.append(run.loss)


def _update(run: Run, loss: Tensor) -> None:
    run.optimizer.zero_grad()
    loss.backward()
    if run.plan.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(run.net.parameters(), run.plan.clip_norm)
    for group in run.optimizer.param_groups:
        group["lr"] = run.learning_rate
    run.optimizer.step()
    run.iteration += 1
    run.history.iterations = run.iteration


def _report(run: Run, validation: tuple[Any, Any] | None, callbacks: Sequence[Callback]) -> None:
    report: Report = {
        "iteration": run.iteration,
        "epoch": run.iteration * run.plan.batch_size / run.batches.n_examples,
        "loss": run.loss,
        "train_accuracy": run.train_accuracy,
        "learning_rate": run.learning_rate,
    }
    if validation is not None:
        result = evaluate(run.net, *validation)
        _finite("the validation loss", result.loss, run)
        report |= {"validation_loss": result.loss, "validation_accuracy": result.accuracy}
        run.best.update(result.loss, run.iteration, run.net, keep=run.plan.restore_best)
        run.history.best_iteration = run.best.iteration
    report["elapsed_s"] = run.elapsed_s
    run.history.reports.append(report)
    tell(callbacks, "on_report", run, report)
    patience = run.plan.patience
    if patience is not None and run.best.waited >= patience:
        run.history.outcome = "stopped early"


def _finish(run: Run, validation: tuple[Any, Any] | None, callbacks: Sequence[Callback]) -> None:
    """The report at the end, unless it is made already, and the best weights."""
    if run.history.reports[-1]["iteration"] != run.iteration:
        _report(run, validation, callbacks)
    if run.best.weights:
        run.net.load_state_dict(run.best.weights)
    run.history.outcome = "finished" if run.iteration >= run.total else "stopped early"


def _finite(what: str, value: float, run: Run) -> float:
    if not math.isfinite(value):
        raise Diverged(what, value, run.iteration)
    return value


def _check_plan(plan: Plan, batches: Batches, validation: tuple[Any, Any] | None) -> None:
    if plan.batch_size != batches.batch_size:
        raise ValueError(
            f"the plan has batch_size={plan.batch_size}, the batches have {batches.batch_size}; "
            "wanted the same"
        )
    if plan.patience is not None and validation is None:
        raise ValueError(
            f"patience={plan.patience} without a validation set; give one, or leave patience out"
        )
