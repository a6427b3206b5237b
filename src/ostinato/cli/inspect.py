"""ostinato inspect RUN|mnist"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from ostinato import picture
from ostinato.anatomy import Anatomy, table
from ostinato.cli import config as configuration
from ostinato.cli import jobs, runs, sources
from ostinato.cli.config import Config, Given
from ostinato.cli.failures import BadInput
from ostinato.cli.flags import with_flags
from ostinato.cli.output import Overwrite, check_file, say, say_json, write
from ostinato.hyperparameters import Fitting

MNIST_SHAPES = {"rows": (28, 28), "columns": (28, 28), "pixels": (784, 1), "permuted": (784, 1)}


@with_flags("model", "data.as_sequence", "training.batch_size")
def inspect(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|mnist|vowels|FILE", help="A run, or what one would be trained on."
        ),
    ],
    given: Given,
    svg: Annotated[
        Optional[Path],  # noqa: UP045  typer of Python 3.10
        typer.Option(help="Write the picture to this file."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Show a network: shapes, parameters, cost, picture."""
    if svg is not None:
        check_file(svg, overwrite)
    if Path(what).is_dir() and what not in sources.BUILT_IN:
        if given:
            flag = configuration.OPTIONS[next(iter(given))].flag
            raise BadInput(f"{flag} is for a network yet to be trained; {what} has its own")
        anatomy = _of_run(Path(what))
    else:
        anatomy = _of_source(what, configuration.resolve(given))
    if svg is not None:
        write(svg, [picture.svg(anatomy)])
    if as_json:
        say_json(anatomy.as_dict())
    else:
        say(f"{table(anatomy)}\n\n{picture.text(anatomy)}")


def _of_run(path: Path) -> Anatomy:
    trained = runs.find(path)
    _check_task(jobs.of_model(trained)[0], str(path))
    net = json.loads((trained.model / "config.json").read_text("utf-8"))["net"]
    if not isinstance(net["cell"], str):
        raise BadInput(
            f"{path}: the cell {net['cell']['own']!r} is a person's own; inspect shows the "
            "networks of rnn, gru and lstm"
        )
    data = trained.environment().get("data", {})
    training = trained.config.training if trained.config else Fitting()
    return Anatomy(
        net["cell"],
        data.get("max_length"),
        net["n_features"] or net["embedding_size"],
        net["hidden_size"],
        net["n_classes"],
        net["num_layers"],
        net["bidirectional"],
        training.batch_size,
        net.get("n_words"),  # models of earlier versions have none
    )


def _check_task(task: str, what: str) -> None:
    if task != "classify":
        raise BadInput(f"{what}: the task is {task}; inspect shows the networks of classifiers")


def _of_source(source: str, config: Config) -> Anatomy:
    config = config.updated({"data.source": sources.known(source)})
    _check_task(jobs.task_of(config), source)
    config = jobs.with_defaults(config, {})
    sources.check(config.data)
    if source == "mnist":  # the sizes are known without reading 70,000 images
        n_steps, n_features = MNIST_SHAPES[config.data.as_sequence]
        n_classes = 10
    else:
        data = jobs.read(config, {}).description()
        n_steps, n_features, n_classes = (
            data["max_length"],
            data["n_features"],
            data["n_classes"],
        )
    model = config.model
    return Anatomy(
        model.cell,
        n_steps,
        n_features,
        model.hidden_size,
        n_classes,
        model.num_layers,
        model.bidirectional,
        config.training.batch_size,
    )
