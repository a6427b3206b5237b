"""The frame that the reports of all tasks share: head, training, configuration, environment."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ostinato.anatomy import Anatomy
from ostinato.report import figures, markup, measures, picture, tables
from ostinato.report.contents import RunFacts
from ostinato.report.markup import count, note, omitted, percent, section, text

Contents = Sequence[tuple[str, str]]  # of a page: id and short name of each section


def head(facts: RunFacts, told: str, tiles: Sequence[str], contents: Contents) -> str:
    """The heading, the data in a line, the machine, the command, the numbers that matter, links."""
    lines = [told, _machine(facts.environment)]
    below = "".join(f'<p class="machine">{text(line)}</p>' for line in lines if line)
    if line := command(facts.environment):
        below += f'<pre class="command"><code>{text(line)}</code></pre>'
    links = "".join(f'<a href="#{identity}">{text(name)}</a>' for identity, name in contents)
    return (
        f"<header>\n<h1>{text(facts.title)}</h1>\n{below}"
        f'<dl class="tiles">{"".join(tiles)}</dl>\n{_findings(facts)}'
        f'<nav aria-label="Sections">{links}</nav>\n</header>'
    )


def _findings(facts: RunFacts) -> str:
    """What the check of the data found that puts the numbers of the head in doubt."""
    return "".join(
        f'<p class="verdict lost">{text(each["message"])}: {text(each["remedy"])}</p>\n'
        for each in facts.evaluation.get("findings", [])
    )


def tile(number: str, name: str, detail: str = "") -> str:
    """One number of the head, its name, and perhaps a detail in small print."""
    more = f"<small>{text(detail)}</small>" if detail else ""
    return f"<div><dt>{text(name)}{more}</dt><dd>{text(number)}</dd></div>"


def training_tiles(facts: RunFacts, parameters: int | None) -> list[str]:
    """Iterations, elapsed time and the size of the network, as far as they are known."""
    tiles = []
    iterations, elapsed = _iterations(facts), facts.evaluation.get("elapsed_s")
    if iterations:
        each = f"{1000 * elapsed / iterations:.2f}\u202fms each" if elapsed else ""
        tiles.append(tile(count(iterations), "iterations of training", each))
    if elapsed is not None:
        tiles.append(tile(markup.duration(elapsed), "elapsed"))
    if parameters is not None:
        tiles.append(tile(count(parameters), "parameters"))
    return tiles


def _iterations(facts: RunFacts) -> int:
    last = facts.metrics[-1]["iteration"] if facts.metrics else 0
    return int(facts.evaluation.get("iterations", last))


def command(environment: dict[str, Any]) -> str:
    """The command that made the run, to be pasted into a shell."""
    return shlex.join(map(str, environment.get("command", [])))


def _machine(environment: dict[str, Any]) -> str:
    """Where it ran, in a line; environment.json's own words, as far as it has them."""
    machine = environment.get("machine", {})
    threads = environment.get("threads", {}).get("torch")
    version = environment.get("packages", {}).get("torch")
    parts = [str(environment.get("date", ""))[:10], machine.get("cpu"), machine.get("system")]
    parts += [f"{threads} thread{'s' if threads > 1 else ''}"] if threads else []
    parts += [f"PyTorch {version}"] if version else []
    return " \u00b7 ".join(str(part) for part in parts if part)


def sequences(facts: RunFacts, n_test: int, shortest: int, longest: int) -> str:
    """How many sequences were learnt from and tested on, and how long they are."""
    n_train = facts.environment.get("data", {}).get("n_train")
    learnt = f"{count(n_train)} training and " if n_train else ""
    steps = markup.counted(longest, "step")
    if shortest < longest:
        steps = f"{count(shortest)} to {steps}"
    return f"{learnt}{count(n_test)} test sequences of {steps}"


def network(sizes: Anatomy | None, *more: str) -> str:
    """The network unrolled over time, with further markup below."""
    if sizes is None:
        return section("network", "Network", omitted("The sizes of the network are unknown."))
    told = f"{picture.caption(sizes)}, {count(sizes.parameters)} parameters, unrolled over time"
    drawn = markup.figure(picture.inline_svg(sizes), told, wide=True)
    return section("network", "Network", drawn, *more)


def beside_baselines(
    facts: RunFacts, task: str, more: Mapping[str, Any] = MappingProxyType({}), below: str = ""
) -> str:
    """The measures on the test part, those of the baselines beside them, and who wins.

    Args:
        facts: of the run.
        task: whose measures they are, see `measures.REPORTED`.
        more: measures that the evaluation may lack.
        below: markup under the table.
    """
    test = {**more, **facts.evaluation.get("test", {})}
    baselines = facts.evaluation.get("baselines", {})
    if not test:
        return section("measures", "Measures", omitted("The test part was not measured."), below)
    verdict = _tested(facts) or measures.verdict(task, test, baselines)
    told = ""
    if verdict is not None:
        told = f'<p class="verdict{" lost" if verdict.lost else ""}">{text(verdict.told)}</p>'
    shown = tables.measures_table(measures.rows(task, test, baselines), list(baselines))
    return section("measures", "Measures", told, shown, below)


def _tested(facts: RunFacts) -> measures.Verdict | None:
    """The verdict of a test on the same examples, if the evaluation has one (see `baselines`)."""
    told = facts.evaluation.get("verdict")
    if not isinstance(told, str):
        return None
    lost = not told.startswith("better")
    return measures.Verdict(f"The network is {told}.".replace(" %", "\u202f%"), lost)


def training(facts: RunFacts, told: str, name: str = "Loss", *, accuracy: bool = False) -> str:
    """The loss over the iterations, and beside it the accuracy of the batches.

    Args:
        facts: of the run.
        told: how to read the curves.
        name: of the loss, with its unit if it needs one.
        accuracy: whether the reports have it.
    """
    metrics = facts.metrics
    if not metrics:
        return section("training", "Training", omitted("No curves: the run kept no metrics."))
    label = _label(name, "loss", metrics)
    loss = figures.loss_curve(label, metrics, facts.losses, name, wide=not accuracy)
    shown = [markup.figure(loss, wide=not accuracy)]
    if accuracy:
        label = _label("Accuracy", "train_accuracy", metrics)
        start = metrics[0]["train_accuracy"]
        below = start < figures.accuracy_limits(metrics)[0]
        cut = f"Below the axis: {percent(start)} before the first update." if below else ""
        shown.append(markup.figure(figures.accuracy_curve(label, metrics), cut))
    curves = "\n".join(shown)
    return section(
        "training",
        "Training",
        note(told),
        f'<div class="grid">{curves}</div>' if accuracy else curves,
        f"<details><summary>The numbers</summary>{tables.metrics_table(metrics)}</details>",
    )


def _label(name: str, key: str, metrics: list[dict[str, Any]]) -> str:
    first, last = metrics[0], metrics[-1]
    return (
        f"{name} over {count(last['iteration'])} iterations: "
        f"{first[key]:.4g} at the start, {last[key]:.4g} at the end"
    )


def configuration(facts: RunFacts) -> str:
    """All settings of the run."""
    if not facts.config:
        return section("configuration", "Configuration", omitted("The configuration is unknown."))
    return section("configuration", "Configuration", markup.settings(facts.config))


def environment(facts: RunFacts) -> str:
    """The machine, the versions and the data that the run was made with."""
    if not facts.environment:
        return section("environment", "Environment", omitted("The environment is unknown."))
    told = facts.environment
    if "command" in told:
        told = {**told, "command": command(told)}
    return section("environment", "Environment", markup.settings(told))


def interval(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share counted over n examples (Wilson 1927)."""
    z = 1.96
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
