"""ostinato compare RUN RUN…"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ostinato_learn import files, tasks
from ostinato_learn.cli.output import AsJson, Quiet, hush, say, say_json
from ostinato_learn.jobs import registry
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import sources
from ostinato_learn.jobs.runs import runs, summaries

if TYPE_CHECKING:
    from ostinato_learn.jobs.runs.paired import Measured


def compare(
    run: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN…", help="Directories of finished runs.")
    ],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare runs, and test whether differences are significant.

    Each run is tested against the first one, if both were measured on the same test part.
    """
    hush(quiet)
    if len(run) < 2:
        raise BadInput(f"one run, {run[0]}, cannot be compared; wanted two or more")
    measured = [_measured(path) for path in run]
    of = {each.task: each.name for each in measured}
    if len(of) > 1:
        (one, a), (other, b) = list(of.items())[:2]
        raise BadInput(
            f"{a} was trained to {one} and {b} to {other}: no measure is common; wanted runs "
            "of one task"
        )

    first, *others = measured
    tests = [_tested(first, other) for other in others]
    if as_json:
        say_json({"runs": [_as_json(each) for each in measured], "tests": tests})
    else:
        say("\n".join([*_side_by_side(measured), *_findings(measured), "", *_told(tests)]))


def _measured(path: Path) -> Measured:
    """The finished run at `path`.

    Raises:
        BadInput: there is no finished run.
    """
    from ostinato_learn.jobs.runs.paired import Measured

    trained = runs.find(path)
    if trained.run is None or trained.config is None:
        raise BadInput(f"{path} is a model without a run, so it has no results; wanted a run")
    results = trained.run.results()
    if results is None:
        raise BadInput(
            f"{path} is not finished; finish it with: ostinato train --resume --output {path}"
        )
    digests = trained.environment().get("data", {}).get("sha256", {})
    return Measured(
        str(path),
        trained.run,
        trained.task().name,
        trained.config,
        results,
        digests,
        _parameters(trained.model),
    )


def _parameters(model: Path) -> int:
    """The number of parameters of a saved model, without its hashes of texts."""
    from safetensors import safe_open

    from ostinato_learn.saved.card import FOLDED

    with safe_open(files.current(model) / "model.safetensors", framework="numpy") as tensors:
        learnt = [name for name in tensors.keys() if not name.startswith(FOLDED)]  # noqa: SIM118
        slices = [tensors.get_slice(name) for name in learnt]
        floats = [each for each in slices if each.get_dtype().startswith(("F", "BF"))]
        return sum(math.prod(each.get_shape()) for each in floats)


def _tested(a: Measured, b: Measured) -> dict[str, Any]:
    """The test of run B against run A as JSON values, or the reason why there is no test."""
    from ostinato_learn.jobs.runs.paired import NotComparable

    pair: dict[str, Any] = {"runs": [a.name, b.name]}
    try:
        _check_same_part(a, b)
        outcome = registry.job_of(a.task).compared(a, b)
    except NotComparable as reason:
        return pair | {"reason": str(reason)}
    return pair | outcome.as_json()


def _check_same_part(a: Measured, b: Measured) -> None:
    """Raise NotComparable if two runs were not measured on the same test part, or it is unknown."""
    from ostinato_learn.jobs.runs.paired import NotComparable

    one, other = _origin(a), _origin(b)
    if one != other:
        raise NotComparable(
            f"they were tested on different data: {a.name} on {_where(a)}, {b.name} on {_where(b)}"
        )
    data = a.settings.data, b.settings.data
    if any(each.split != data[0].split for each in data):
        raise NotComparable(f"--split is {data[0].split!r} and {data[1].split!r}: other test parts")
    keys = tasks.named(a.task).drawn
    if data[0].source in sources.BUILT_IN or data[0].test or data[0].split:
        keys = ()
    for key in keys:
        values = a.settings.get(key), b.settings.get(key)
        if values[0] != values[1]:
            raise NotComparable(
                f"{key} is {values[0]!r} and {values[1]!r}, so that different parts of the data "
                "were tested on; wanted the same, or --test FILE or --split COLUMN for both"
            )


def _origin(measured: Measured) -> str | None:
    """The origin of the test part: the digest of its file, or the name of a data set.

    Raises:
        NotComparable: the run does not say it.
    """
    from ostinato_learn.jobs.runs.paired import NotComparable

    data = measured.settings.data
    if data.source in sources.BUILT_IN:
        return data.source
    digest = measured.digests.get(str(data.test or data.source))
    if digest is None:
        raise NotComparable(
            f"{measured.run.environment} does not say which data {measured.name} had"
        )
    return digest


def _where(measured: Measured) -> str:
    data = measured.settings.data
    name = str(data.test or data.source)
    return name if data.source in sources.BUILT_IN else f"{name} ({(_origin(measured) or '')[:8]})"


def _as_json(measured: Measured) -> dict[str, Any]:
    return {
        "run": measured.name,
        "task": measured.task,
        "parameters": measured.parameters,
        "settings": dict(measured.settings.items()),
        **measured.results,
    }


def _findings(measured: Sequence[Measured]) -> list[str]:
    """The findings that put the measures of a run in doubt."""
    return [
        f"{run.name}: {severity.strip()}: {message}"
        for run in measured
        for severity, message in summaries.findings(run.results)
    ]


def _side_by_side(measured: Sequence[Measured]) -> list[str]:
    """A column for each run: measures, size and time, and the parameters that differ."""
    task = measured[0].task
    rows = [["", *(each.name for each in measured)]]
    for name, measure in tasks.named(task).measures.items():
        values = [each.results["test"].get(name) for each in measured]
        if any(value is not None for value in values):
            shown = ["–" if v is None else measure.shown(v) for v in values]
            rows.append([measure.words, *shown])
    rows.append(["parameters", *(f"{each.parameters:,}" for each in measured)])
    rows.append(["time of training", *(f"{each.results['elapsed_s']:.1f} s" for each in measured)])
    rows.append(["iterations", *(f"{each.results['iterations']:,}" for each in measured)])
    for key, value in measured[0].settings.items():
        values = [each.settings.get(key) for each in measured]
        if key != "run.checkpoint_every" and any(each != value for each in values):
            rows.append([f"  {key}", *map(_plain, values)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "   ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]


def _told(tests: Sequence[dict[str, Any]]) -> list[str]:
    """The tests in words."""
    from ostinato_learn.baselines import SURE

    tested = [test for test in tests if "p" in test]
    lines = []
    for test in tests:
        a, b = test["runs"]
        if "reason" in test:
            lines.append(f"{b} against {a}: no test: {test['reason']}")
            continue
        lines += [
            f"{b} against {a}: better in {test['better']:,} and worse in {test['worse']:,} of "
            f"{test['n']:,} {test['unit']}; {test['measure']} {_signed(test)}",
            f"  {test['test']}: p = {test['p']:.3g}, {_verdict(test, SURE / len(tested))}",
            f"  assumed: {test['assumption']}",
        ]
    if len(tested) > 1:
        lines.append(f"Of {len(tested)} tests, each is significant below {SURE} / {len(tested)}.")
    return lines


def _verdict(test: dict[str, Any], sure: float) -> str:
    if test["p"] >= sure:
        return "so the difference is not significant"
    return f"so {test['runs'][bool(test['ahead'])]} is better"


def _signed(test: dict[str, Any]) -> str:
    """A difference as text."""
    unit = "points" if test["measure"].startswith("accuracy") else "%"
    return f"{100 * test['difference']:+.2f} {unit}"


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
