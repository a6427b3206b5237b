"""The page of a run: its head, its sections in order, and the writing of the file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from ostinato.internal import needs
from ostinato_learn.files import write_text
from ostinato_learn.report.markup import count, duration, tag, text
from ostinato_learn.report.panels import PageSection, Tile

# Nothing is loaded: the browser itself refuses everything but inline styles and pictures.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Facts of a run for its report, for any task.

    Every field but the title may be empty; the page then lacks the parts that need it.

    Args:
        title: the heading, for example "mnist, rnn, 128 units".
        metrics: the reports of the training, in order: dicts with `iteration`, `loss`, further
            measures of the batch, such as `train_accuracy`, and, with a validation set,
            `validation_loss` and others, such as `validation_accuracy`.
        losses: (iteration, loss of its batch), finer than the metrics: `History.course`.
        evaluation: the content of `evaluation.json`: `{"test": {…}, "baselines": {name: {…}},
            "elapsed_s", "iterations", "findings"}`; each may be absent.
        config: the run's resolved configuration, nested as in `config.toml`.
        environment: the content of `environment.json`.
    """

    title: str
    metrics: list[dict[str, Any]] = field(default_factory=list)
    losses: list[tuple[int, float]] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def test(self) -> dict[str, Any]:
        """The measures on the test part."""
        return self.evaluation.get("test", {})

    @property
    def command(self) -> str:
        """The command of the run, quoted for a shell."""
        return shlex.join(map(str, self.environment.get("command", [])))


@dataclass(frozen=True, kw_only=True)
class PageData(RunFacts):
    """The contents of a report. Each task has a subclass with its values and its panels.

    Args:
        parameters: the number of the network's parameters, or None.
    """

    parameters: int | None = None

    def sizes(self) -> str:
        """The data in a line."""
        raise NotImplementedError

    def tiles(self) -> list[Tile]:
        """The most important numbers; the first one is shown largest."""
        raise NotImplementedError

    def sections(self) -> Sequence[PageSection | None]:
        """The sections in their order; the page leaves out None."""
        raise NotImplementedError


def write_report(path: str | os.PathLike[str], data: PageData) -> None:
    """Write one HTML file that shows a run; it needs no network, no scripts and no other file.

    The file appears whole or not at all (see `ostinato_learn.files`).

    Args:
        path: where to write; by convention `report.html` in the run directory. An old one
            is replaced.
        data: the contents: `ReportData`, `TaggingData`, … Its strings may hold anything; they are
            escaped.

    Raises:
        FileNotFoundError: the directory does not exist.
        ImportError: matplotlib is missing.

    Example:
        >>> import numpy as np, tempfile, pathlib
        >>> from ostinato_learn.report.classify import ReportData
        >>> data = ReportData(
        ...     title="coin", classes=["heads", "tails"], y_true=np.array([0, 1, 1]),
        ...     proba=np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory) / "report.html"
        ...     write_report(path, data)
        ...     path.read_text(encoding="utf-8")[:15]
        '<!doctype html>'
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"the report goes to {path}, but the directory {path.parent} does not exist; create it"
        )
    write_text(path, _page(data))


def _page(data: PageData) -> str:
    with needs("ostinato-learn[torch]", "matplotlib"):
        import matplotlib  # noqa: F401
    files = resources.files("ostinato_learn.report")
    style = files.joinpath("style.css").read_text(encoding="utf-8")
    sections = [section for section in data.sections() if section is not None]
    body = "\n\n".join([_head(data, sections), *(section.html() for section in sections)])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(data.title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _head(data: PageData, sections: Sequence[PageSection]) -> str:
    """The heading, the data in a line, the machine, the command, the main numbers, links."""
    lines = [data.sizes(), _machine(data.environment)]
    below = "".join(tag("p", line, "machine") for line in lines if line)
    if data.command:
        below += f'<pre class="command"><code>{text(data.command)}</code></pre>'
    tiles = "".join(tile.html() for tile in [*data.tiles(), *_of_the_training(data)])
    links = "".join(f'<a href="#{each.id}">{text(each.link)}</a>' for each in sections)
    return (
        f"<header>\n<h1>{text(data.title)}</h1>\n{below}"
        f'<dl class="tiles">{tiles}</dl>\n{_findings(data)}'
        f'<nav aria-label="Sections">{links}</nav>\n</header>'
    )


def _of_the_training(data: PageData) -> list[Tile]:
    """Iterations, elapsed time and the size of the network, as far as known."""
    last = data.metrics[-1]["iteration"] if data.metrics else 0
    iterations = int(data.evaluation.get("iterations", last))
    elapsed, tiles = data.evaluation.get("elapsed_s"), []
    if iterations:
        each = f"{1000 * elapsed / iterations:.2f}\u202fms each" if elapsed else ""
        tiles.append(Tile(count(iterations), "iterations of training", each))
    if elapsed is not None:
        tiles.append(Tile(duration(elapsed), "elapsed"))
    if data.parameters is not None:
        tiles.append(Tile(count(data.parameters), "parameters"))
    return tiles


def _findings(facts: RunFacts) -> str:
    """The findings of the data check that put the numbers of the head in doubt."""
    found = facts.evaluation.get("findings", [])
    return "".join(
        tag("p", f"{each['message']}: {each['remedy']}", "verdict lost") + "\n" for each in found
    )


def _machine(environment: dict[str, Any]) -> str:
    """The machine of the run, in a line, from environment.json."""
    machine = environment.get("machine", {})
    threads = environment.get("threads", {}).get("torch")
    version = environment.get("packages", {}).get("torch")
    parts = [str(environment.get("date", ""))[:10], machine.get("cpu"), machine.get("system")]
    parts += [f"{threads} thread{'s' if threads > 1 else ''}"] if threads else []
    parts += [f"PyTorch {version}"] if version else []
    return " \u00b7 ".join(str(part) for part in parts if part)
