"""ostinato serve RUN [RUN …]"""

from __future__ import annotations

import csv as csv_module
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ostinato.internal import needs
from ostinato_learn.cli.output import Quiet, hush, say
from ostinato_learn.jobs import registry
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import partition, sources
from ostinato_learn.jobs.inputs.built_in import known_of
from ostinato_learn.jobs.runs import answering, runs

if TYPE_CHECKING:
    from ostinato_learn.jobs.runs.runs import Trained
    from ostinato_learn.serve.page import Shown

EXAMPLES = 20  # sequences that the page shows
MOST_STEPS = 256  # of a sequence whose belief is shown after each
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    run: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN…",
            help="Run directories or saved models; NAME=RUN gives one another name.",
        ),
    ],
    port: Annotated[int, typer.Option("--port", "-p", help="0: any.", min=0, max=65535)] = 8000,
    host: Annotated[
        str, typer.Option("--host", help="The address; any other than loopback needs a token.")
    ] = "127.0.0.1",
    token: Annotated[
        Optional[str],  # noqa: UP045  typer of Python 3.10
        typer.Option(
            "--token",
            metavar="TOKEN",
            help="A request must name it; or set OSTINATO_TOKEN, which other users of the "
            "machine do not see.",
        ),
    ] = None,
    token_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--token-file", metavar="FILE", help="A token per line; # begins a comment."),
    ] = None,
    allow_host: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--allow-host", metavar="NAME", help="Another Host header to accept."),
    ] = None,
    allow_origin: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--allow-origin", metavar="URL", help="Another page that may send requests."),
    ] = None,
    state: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--state", metavar="DIR", help="Save open sequences here, and resume them."),
    ] = None,
    every: Annotated[
        float, typer.Option("--state-every", metavar="SECONDS", help="Between snapshots.", min=1)
    ] = 60.0,
    sequences: Annotated[
        int, typer.Option("--sequences", help="Open sequences of each model, at most.", min=1)
    ] = 10_000,
    idle: Annotated[
        float,
        typer.Option("--idle", metavar="SECONDS", help="End sequences that pause.", min=0.1),
    ] = 3600.0,
    queue: Annotated[int, typer.Option("--queue", help="Most waiting requests.", min=1)] = 10_000,
    body: Annotated[
        int, typer.Option("--body", metavar="MB", help="Size of a request, at most.", min=1)
    ] = 64,
    steps: Annotated[
        int, typer.Option("--steps", help="Steps of a sequence in one request, at most.", min=1)
    ] = 100_000,
    batch: Annotated[
        int, typer.Option("--batch", help="Sequences in one request, at most.", min=1)
    ] = 10_000,
    connections: Annotated[
        int, typer.Option("--connections", help="Open connections, at most.", min=1)
    ] = 1000,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", help="Time for a request to arrive.", min=0.1),
    ] = 30.0,
    replaced: Annotated[
        str,
        typer.Option(
            "--replaced",
            metavar="finish|refuse",
            help="Open sequences of a model that is loaded anew: they finish with the old one, or "
            "are refused.",
        ),
    ] = "finish",
    quiet: Quiet = False,
) -> None:
    """Answer other programs over HTTP, and show a page.

    The Open Inference Protocol v2, with open sequences; the page is at the address itself.
    """
    hush(quiet)
    packages = "starlette", "uvicorn", "websockets", "httptools", "prometheus_client"
    with needs("ostinato-learn[serve]", *packages):
        from ostinato_learn.serve.server import serve as run_server
    from ostinato_learn.serve.settings import Settings

    if replaced not in ("finish", "refuse"):
        raise BadInput(f"--replaced is {replaced!r}; wanted finish or refuse")
    tokens = _tokens(token, token_file)
    if host not in LOOPBACK and not tokens:
        raise BadInput(
            f"--host {host} can be reached from other machines; wanted --token, --token-file or "
            "OSTINATO_TOKEN, which each request then has to name"
        )
    found = _named(run)
    directories = {name: trained.model for name, trained in found.items()}
    settings = Settings(
        host, port, tokens, tuple(allow_host or ()), tuple(allow_origin or ()), sequences, idle,
        queue, body << 20, steps, batch, timeout, connections, state=state, snapshot_every=every,
        replaced=replaced, access_log=not quiet,
    )  # fmt: skip
    shown = {name: _shown(trained) for name, trained in found.items()}
    run_server(directories, settings, lambda at: say(f"{', '.join(directories)} at {at}"), shown)


def _tokens(token: str | None, file: Path | None) -> tuple[str, ...]:
    found = [t for t in (token, os.environ.get("OSTINATO_TOKEN")) if t is not None]
    if file is not None:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        found += [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise BadInput(f"{file} has no token; wanted one a line")
    short = [t for t in found if len(t) < 8 or not t.isascii() or not t.isprintable() or " " in t]
    if short:
        raise BadInput("a token has fewer than 8 characters, or others than ASCII without blanks")
    return tuple(found)


def _named(given: list[str]) -> dict[str, Trained]:
    """The models by name: as given, or that of the directory."""
    found: dict[str, Trained] = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not equals or Path(each).exists():
            name, path = "", each
        trained = runs.find(Path(path))
        place = Path(path).resolve()
        name = name or (place.parent.name if place.name == "model" else place.name)
        if not name or not all(c.isalnum() or c in "-_." for c in name) or name[0] == ".":
            raise BadInput(f"{each}: {name!r} cannot be a name in an address; give NAME={path}")
        if name in found:
            raise BadInput(f"two models are named {name}; give one of them another, as NAME={path}")
        found[name] = trained
    return found


# ---- what the page shows


def _shown(trained: Trained) -> Shown:
    """What the page can show of a model, by the file that it was trained on."""
    from ostinato_learn.serve.page import Shown

    task, preparation = trained.task().name, trained.preparation()
    roles = None if preparation is None else preparation.roles
    if roles is not None:
        columns = {
            "id": roles.id,
            "time": roles.time,
            "target": roles.target,
            "features": list(roles.features),
        }
        return Shown(table=partial(_answers, trained), roles=columns)
    if task not in ("classify", "tag") or trained.config is None:
        return Shown(image=_image(trained))
    return Shown(image=_image(trained), examples=partial(_examples, trained))


def _image(trained: Trained) -> str | None:
    if trained.config is None or not known_of(trained.config.data.source).images:
        return None
    reading = trained.config.data.as_sequence
    return reading if reading in ("rows", "columns", "pixels") else None


def _examples(trained: Trained) -> list[dict[str, Any]]:
    """Some sequences of the test part, with their labels."""
    import numpy as np

    part = partition.load(trained.settings(), trained.preparation()).test
    some = part.select(np.linspace(0, len(part) - 1, min(EXAMPLES, len(part))).astype(np.int64))
    labels = [] if some.y is None else np.asarray(some.y).tolist()
    return [
        {"x": np.asarray(x, np.float32).tolist(), "label": labels[i] if labels else None}
        for i, x in enumerate(some.sequences[i] for i in range(len(some)))
    ]


def _answers(trained: Trained, content: bytes) -> dict[str, Any]:
    """What `ostinato predict --proba` says of a table; of a classifier also the belief so far.

    Raises:
        Refusal: the table cannot be read.
    """
    from ostinato_learn.serve.refused import Refusal

    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "table.csv"
        file.write_bytes(content)
        try:
            _, job = registry.of_model(trained)
            csv = "".join(job.predicted(trained, str(file), _has_shares(trained)))
            belief = _belief(trained, str(file)) if trained.task().name == "classify" else {}
        except (BadInput, ValueError, csv_module.Error) as problem:
            raise Refusal(400, str(problem).replace(f"{place}/", "")) from None
    return {"csv": csv, "belief": belief}


def _has_shares(trained: Trained) -> bool:
    """Whether `predict --proba` says more than `predict`: probabilities, or quantiles."""
    loss = trained.entries()["fitted"].get("loss")  # of a regressor
    return trained.task().name != "language" and loss in (None, "quantiles")


def _belief(trained: Trained, file: str) -> dict[str, list[list[float]]]:
    """The probabilities after each step of the first sequences, by their ids: those of `predict`
    for the steps so far."""
    import numpy as np

    model = answering.model_of(trained)
    part = next(sources.blocks(file, trained.settings(), trained.preparation()))
    part = part.select(np.arange(min(EXAMPLES, len(part))))
    if model.vocabulary is not None or part.ids is None:  # of words, or one row a sequence
        return {}
    found = model.predict_so_far(part, MOST_STEPS)
    return {str(name): each.tolist() for name, each in zip(part.ids, found, strict=True)}
