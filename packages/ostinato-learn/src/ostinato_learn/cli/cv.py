"""ostinato cv FILE … --folds 5"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ostinato_learn import files, tasks
from ostinato_learn.cli.flags import ConfigFile, Sets, source_argument, with_flags
from ostinato_learn.cli.many import workers
from ostinato_learn.cli.output import (
    AsJson,
    Overwrite,
    Quiet,
    check_alone,
    check_file,
    hush,
    say,
    say_json,
)
from ostinato_learn.cli.train import asked_for
from ostinato_learn.interrupt import Terminated
from ostinato_learn.jobs import findings, registry
from ostinato_learn.jobs.failures import BadInput, Failure, Interrupted
from ostinato_learn.jobs.inputs import config as configuration
from ostinato_learn.jobs.inputs import sources
from ostinato_learn.jobs.inputs.config import Config, Given
from ostinato_learn.jobs.runs import summaries
from ostinato_learn.tasks.base import MeasureSpec

if TYPE_CHECKING:
    from ostinato_learn.jobs.base import Job

MOST_FREQUENT = "always the most frequent class"
Spread = dict[str, Any]  # mean, sd and the values of the folds; None for a missing number


@with_flags("data", "task", "model", "training", "run.threads")
def cv(
    given: Given,
    source: Annotated[
        Optional[str],  # noqa: UP045  typer of Python 3.10
        source_argument("As for train. Its own test part, if it has one, stays out of all folds."),
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds: each is tested on once.", min=2)] = 5,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="Write the results to this JSON file as well."),
    ] = None,
    overwrite: Overwrite = False,
    n_jobs: Annotated[
        int,
        typer.Option("--jobs", metavar="N", help="Folds at a time, in as many processes.", min=1),
    ] = 1,
    backend: workers.Backend = "loky",
    config: ConfigFile = None,
    set_: Sets = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Cross-validate: train on each fold, and show how results vary.

    Folds consist of sequences, drawn by class, of whole groups (--group), or of documents; series
    are forecast from origins that roll towards their end.
    """
    hush(quiet)
    check_alone("cv")
    if output is not None:
        check_file(output, overwrite)
    asked = asked_for(source, config, set_, given)
    if asked.get("run.from") is not None:
        raise BadInput("--from is not for cv: its weights may have learnt from a fold's test part")
    sources.known(asked.get("data.source"))
    settings = configuration.resolve(asked)
    began = time.perf_counter()
    try:
        evaluations = _evaluated(asked, folds, min(n_jobs, folds), backend, quiet)
    except (KeyboardInterrupt, Terminated) as error:  # between two folds, or with several jobs
        raise Interrupted("interrupted; nothing was written", error) from None
    result = {
        "source": settings.data.source,
        "folds": folds,
        "seed": settings.training.seed,
        **findings.kept(evaluations[0].get("findings", [])),
        **summary(evaluations),
        "elapsed_s": time.perf_counter() - began,
    }
    if output is not None:
        files.write_json(output, result)
    if as_json:
        say_json(result)
    else:
        say("\n".join(_lines(result, settings, output)))


def _evaluated(
    asked: Given, k: int, n_jobs: int, backend: str, quiet: bool
) -> list[dict[str, Any]]:
    """For each fold, in order, the content of a run's evaluation.json."""
    began = time.perf_counter()
    found: dict[int, dict[str, Any]] = {}
    with closing(_results(asked, k, n_jobs, backend)) as results:
        for number, evaluation in results:
            found[number] = evaluation
            if not quiet:
                elapsed = time.perf_counter() - began
                line = _progress(number, evaluation, len(found), k, elapsed)
                print(line, file=sys.stderr, flush=True)
    return [found[number] for number in range(1, k + 1)]


def _results(
    asked: Given, k: int, n_jobs: int, backend: str
) -> Generator[tuple[int, dict[str, Any]], None, None]:
    """The folds as they are done: number from 1, and evaluation."""
    pieces = range(1, k + 1)
    if n_jobs == 1:
        yield from workers.alone(_work, (asked, k), pieces)
        return
    # Read here, too, so that the sizes of the data are logged once, not by each worker.
    first = next(registry.folds(configuration.resolve(asked), asked, k))
    with workers.team(n_jobs, asked.get("run.threads"), backend) as team:
        given = asked | {"run.threads": team.threads}
        arguments = (given, k, sources.digest(first.settings.data))
        yield from team.do(_worker, arguments, pieces)


def _progress(number: int, evaluation: dict[str, Any], done: int, k: int, elapsed: float) -> str:
    """A line on a fold that was done, the `done`th of k."""
    from ostinato_learn.training.callbacks import duration

    known = tasks.named(_task(evaluation))
    name = known.first_measure(evaluation["test"])
    measure = known.measures[name]
    shown = measure.shown(evaluation["test"][name])
    more = f", about {duration(elapsed / done * (k - done))} left" if done < k else ""
    return f"fold {number} of {k}: {measure.words} {shown}{more}"


def _worker(asked: Given, k: int, digests: dict[str, str]) -> workers.Work:
    """`_work` in a process of its own."""
    workers.check_same(sources.digest(configuration.resolve(asked).data), digests)
    return _work(asked, k)


def _work(asked: Given, k: int) -> workers.Work:
    """Evaluates folds by their numbers; the data are read here, and again if numbers fall."""
    left: Iterator[tuple[int, Job]] = iter(())

    def begin() -> None:
        nonlocal left
        jobs = enumerate(registry.folds(configuration.resolve(asked), asked, k), start=1)
        left = chain([next(jobs)], jobs)

    def work(number: int) -> tuple[int, dict[str, Any]]:
        job = next((job for n, job in left if n == number), None)
        if job is None:  # a cluster may change the order
            begin()
            job = next(job for n, job in left if n == number)
        return number, _evaluation(job, number, k)

    begin()
    return work


def _evaluation(job: Job, number: int, k: int) -> dict[str, Any]:
    """The content of a run's evaluation.json, for fold `number` of k."""
    from ostinato_learn.jobs import experiment

    found = findings.kept(findings.tell(job) if number == 1 else [])  # similar in all folds
    try:
        result = experiment.run(job, quiet=True, beside=found)
    except Interrupted as error:
        message = f"interrupted in fold {number} of {k}; nothing was written"
        raise Interrupted(message, exit_code=error.exit_code) from None
    except Failure as error:
        raise type(error)(f"fold {number} of {k}: {error}") from None
    assert result is not None  # this process is alone
    return result.evaluation


def summary(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over folds, of the network's measures and the baselines'.

    Args:
        evaluations: for each fold the content of evaluation.json: "test", and maybe "baselines".

    Returns:
        "task"; "measures": name -> mean, sd and values; "baselines": name -> its "measures", and
        the paired "difference" of the network's first measure to them, with "better_in", the
        number of folds in which the network is better.

    Example:
        >>> folds = [{"test": {"accuracy": a, "most_frequent_class": 0.5}} for a in (0.75, 1.0)]
        >>> found = summary(folds)
        >>> found["measures"]["accuracy"]["mean"]
        0.875
        >>> found["baselines"]["always the most frequent class"]["difference"]["better_in"]
        2
    """
    task = _task(evaluations[0])
    tests = [evaluation["test"] for evaluation in evaluations]
    measures = {
        name: spread([_number(test, name) for test in tests])
        for name in tasks.named(task).measures
        if name in tests[0]
    }
    name = tasks.named(task).first_measure(tests[0])
    ours, baselines = measures[name]["values"], {}
    for baseline, found in _baselines(
        evaluations, name, tasks.named(task).measures[name].lower
    ).items():
        theirs = [_number(each, name) for each in found]
        pairs = list(zip(ours, theirs, strict=True))
        difference = spread([None if a is None or b is None else a - b for a, b in pairs])
        sign = -1 if tasks.named(task).measures[name].lower else 1
        better = sum(1 for d in difference["values"] if d is not None and sign * d > 0)
        baselines[baseline] = {
            "measures": {name: spread(theirs)},
            "difference": {"measure": name, **difference, "better_in": better},
        }
    return {"task": task, "measures": measures, "baselines": baselines}


def spread(values: Sequence[float | None]) -> Spread:
    """Mean and standard deviation (with n − 1) of the values; None where it is not defined.

    Example:
        >>> spread([1.0, 3.0, None])
        {'mean': 2.0, 'sd': 1.4142135623730951, 'values': [1.0, 3.0, None]}
    """
    there = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(there) if there else None,
        "sd": statistics.stdev(there) if len(there) > 1 else None,
        "values": list(values),
    }


def _task(evaluation: dict[str, Any]) -> str:
    return str(evaluation.get("task", "classify"))


def _number(measures: dict[str, Any], name: str) -> float | None:
    value = measures.get(name)
    return None if value is None or not math.isfinite(value) else float(value)


def _baselines(
    evaluations: Sequence[dict[str, Any]], name: str, lower: bool
) -> dict[str, list[dict[str, Any]]]:
    """The measures of each baseline, a dict for each fold.

    The best simple classifier may be of different kinds in the folds; it has one name here.
    """
    found: list[dict[str, dict[str, Any]]] = [
        dict(evaluation.get("baselines") or {}) for evaluation in evaluations
    ]
    for evaluation, of_fold in zip(evaluations, found, strict=True):
        if "most_frequent_class" in evaluation["test"]:
            of_fold[MOST_FREQUENT] = {name: evaluation["test"]["most_frequent_class"]}
    common = [each for each in found[0] if all(each in of_fold for of_fold in found)]
    result = {each: [of_fold[each] for of_fold in found] for each in common}
    others = [[m for each, m in of_fold.items() if each not in common] for of_fold in found]
    if all(others):
        choose = min if lower else max
        result["the best simple method of each fold"] = [
            choose(each, key=lambda m: m[name]) for each in others
        ]
    return result


def _lines(result: dict[str, Any], settings: Config, output: Path | None) -> list[str]:
    task, k = result["task"], result["folds"]
    known = tasks.named(task).measures
    rows = [
        (known[name].words, _shown(known[name], found))
        for name, found in result["measures"].items()
        if found["mean"] is not None
    ]
    for baseline, found in result["baselines"].items():
        difference = found["difference"]
        name, better = difference["measure"], difference["better_in"]
        if difference["mean"] is None:
            continue
        rows.append((f"  {baseline}", _shown(known[name], found["measures"][name])))
        mean = round(difference["mean"], 12)  # differences that cancel may leave a rounding error
        beaten = mean < 0 if known[name].lower else mean > 0
        verdict = f"   better in {better} of {k} folds" + ("" if beaten else ": not better")
        shown = ("+" if mean > 0 else "") + _shown(known[name], difference)
        rows.append(("    the network's difference", shown + verdict))
    lines = [f"{k} folds of {Path(settings.data.source or '').name}: mean ± standard deviation"]
    lines += summaries.aligned([*rows, *summaries.findings(result)])
    lines.append(f"Written to {output}." if output else "Nothing was written; see -o FILE.")
    return lines


def _shown(measure: MeasureSpec, found: Spread) -> str:
    mean = measure.shown(found["mean"])
    if found["sd"] is None:
        return mean
    spread = measure.shown(found["sd"])
    return f"{mean.removesuffix(' %')} ± {spread}"
