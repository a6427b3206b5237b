"""`train FILE` and an estimator learn alike from the same data, if the user gives neither a
parameter; and what is given wins."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import task_files
import torch

import ostinato_learn as package
from ostinato_learn import training
from ostinato_learn.hyperparameters import HyperparameterError
from ostinato_learn.jobs import registry
from ostinato_learn.jobs.inputs import config
from ostinato_learn.tasks import recipe

ESTIMATORS = {
    "classify": package.SequenceClassifier,
    "tag": package.SequenceTagger,
    "regress": package.SequenceRegressor,
    "forecast": package.SequenceForecaster,
    "language": package.LanguageModel,
}


class Begun(Exception):  # noqa: N818  it ends a training
    pass


class Beginning(training.Callback):
    """Ends a training before its first update, and keeps its plan and its weights."""

    def on_start(self, run: training.Run) -> None:
        self.plan = run.plan
        self.weights = {n: w.clone() for n, w in run.net.state_dict().items()}
        raise Begun


def begun(fit: Any) -> tuple[training.Plan, dict[str, torch.Tensor]]:
    """The plan and the first weights of a training."""
    beginning = Beginning()
    with pytest.raises(Begun):
        fit([beginning])
    return beginning.plan, beginning.weights


def job_of(arguments: tuple[object, ...], **given: object) -> Any:
    """The job of `train FILE --key value …`."""
    path, *flags = map(str, arguments)
    pairs = dict(zip(flags[::2], flags[1::2], strict=True)) | {"data.source": path}
    options = {option.flag: option for option in config.OPTIONS.values()}
    checked = {(options[key].key if key in options else key): value for key, value in pairs.items()}
    asked = config.read_sets([f"{k}={v}" for k, v in {**checked, **given}.items()])
    return registry.read(config.resolve(asked), asked)


def learnt(task: str, job: Any) -> tuple[Any, ...]:
    """The data that a job learns from, as arguments of an estimator's `fit`."""
    if task == "language":
        return (job.texts.train,)
    if task == "forecast":
        lengths = job.lengths - job.n_windows() * job.settings.task.horizon
        return ([y[:n] for y, n in zip(job.series.y, lengths, strict=True)],)
    train = job.parts.train
    return train.X, train.y[:, 0] if task == "regress" else train.y


def own(task: str, job: Any) -> dict[str, Any]:
    """The parameters that no recipe has."""
    asked = job.settings.task
    if task == "forecast":
        return {"horizon": asked.horizon, "season": asked.season}
    return {"truncate": job.settings.training.truncate} if task == "language" else {}


@pytest.mark.parametrize("rows", [None, 400])
@pytest.mark.parametrize("task", ESTIMATORS)
def test_neither_is_given_a_parameter(task, rows, tmp_path):
    make = task_files.TASKS[task]
    job = job_of(make(tmp_path) if rows is None else make(tmp_path, n=rows))
    plan, weights = begun(lambda stop: job.fit(stop, None))
    estimator = ESTIMATORS[task](**own(task, job))
    own_plan, own_weights = begun(lambda stop: estimator.fit(*learnt(task, job), callbacks=stop))
    assert own_plan == plan
    assert own_weights.keys() == weights.keys()
    assert all(torch.equal(own_weights[name], w) for name, w in weights.items())


def test_both_learn_the_same_weights(tmp_path):
    job = job_of(task_files.classify(tmp_path), **{"model.hidden_size": 4, "run.threads": 1})
    model, _ = job.fit([], None)
    train, test = job.parts.train, job.parts.test
    estimator = package.SequenceClassifier(hidden_size=4).fit(train.X, train.y)
    assert np.array_equal(estimator.predict_proba(test.X), model.predict_proba(test))
    assert estimator.n_iter_ == 120 and estimator.hyperparameters_["batch_size"] == 8
    assert estimator.get_params()["batch_size"] == "auto"


def test_a_given_parameter_wins_also_if_it_is_none(tmp_path):
    given = {"training.clip_norm": "none", "training.schedule": "constant", "model.dropout": 0.0}
    job = job_of(task_files.classify(tmp_path), **given)
    plan, _ = begun(lambda stop: job.fit(stop, None))
    assert (plan.clip_norm, plan.schedule, plan.warmup) == (None, "constant", 0)
    estimator = package.SequenceClassifier(clip_norm=None, schedule="constant", dropout=0.0)
    own_plan, _ = begun(lambda stop: estimator.fit(*learnt("classify", job), callbacks=stop))
    assert own_plan == plan


def test_the_recipe_of_the_notebook_by_its_name(tmp_path):
    file = task_files.classify(tmp_path)
    job = job_of(file, **{"run.recipe": "notebook", "training.learning_rate": 0.5})
    plan, weights = begun(lambda stop: job.fit(stop, None))
    assert plan == training.Plan(learning_rate=0.5, iterations=5000, batch_size=32)
    estimator = package.SequenceClassifier(recipe="notebook", learning_rate=0.5)
    own_plan, own_weights = begun(
        lambda stop: estimator.fit(*learnt("classify", job), callbacks=stop)
    )
    assert own_plan == training.Plan(learning_rate=0.5, batch_size=32)
    assert all(torch.equal(own_weights[name], w) for name, w in weights.items())
    assert not job.settings.data.standardize
    with pytest.raises(HyperparameterError, match="recipe='mine': wanted one of 'task', 'noteb"):
        estimator.set_params(recipe="mine").fit(*learnt("classify", job))


def test_the_size_of_texts_decides(tmp_path):
    """The numbers of a small and a large text; `docs/language.md` names them."""
    settings = {"task.level": "character", "training.truncate": 128, "training.epochs": 4.0}
    small = recipe.for_texts(160_000, settings, {})
    assert small == {
        "model.hidden_size": 128,
        "training.batch_size": 32,
        "training.epochs": 30.0,
    }
    large = recipe.for_texts(3_600_000, settings, {"training.batch_size": 16})
    assert large == {"model.hidden_size": 512, "training.epochs": 4.0}


@pytest.mark.parametrize("kind", ESTIMATORS.values())
def test_what_a_recipe_chooses_is_not_written_into_the_constructor(kind):
    estimator = kind()
    assert {f.name for f in fields(kind)} == estimator.get_params().keys()
    assert repr(estimator) == f"{kind.__name__}()"
