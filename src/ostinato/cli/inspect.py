"""ostinato inspect RUN|mnist"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ostinato import picture
from ostinato.anatomy import Anatomy, Letter, OwnAnatomy, table
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
    net = trained.entries()["net"]
    data = trained.environment().get("data", {})
    training = trained.config.training if trained.config else Fitting()
    own = not isinstance(net["cell"], str)
    anatomy = Anatomy(
        net["cell"]["own"] if own else net["cell"],
        data.get("max_length"),
        net["n_features"] or net["embedding_size"],
        net["hidden_size"],
        net["n_classes"],
        net["num_layers"],
        net["bidirectional"],
        training.batch_size,
        net.get("n_words"),  # models of earlier versions have none
        net.get("readout", "last"),
    )
    return _of_graph(trained.model, anatomy) if own else anatomy


def _of_graph(model: Path, sizes: Anatomy) -> OwnAnatomy:
    """The anatomy of a saved model of these sizes, by its graph.

    Raises:
        ValueError: the model has no graph, or is damaged.
    """
    from ostinato.runtime import card, saved
    from ostinato.runtime.equations import equations

    found = saved.read(model)
    graph, lines, per_step = found.graph, [], 0
    for layer in graph.layers:
        for direction in layer.directions:
            lines += [f"{layer.name}{', backwards' if direction.reverse else ''}:"]
            lines += [*equations(direction.step), ""]
            per_step += direction.step.multiplies
    read, answer = graph.readout.step, graph.readout.answer
    if read is not None and answer is not None:
        lines += ["readout at each step:", *equations(read, x="y_t", state="a"), ""]
        lines += ["readout at the end:", *equations(answer, x="a_T", output="r")]
        per_step += read.multiplies
    else:
        lines += ["readout of r, the last y_t of each direction:"]
    lines += equations(graph.head, x="r", output="y")
    per_readout = graph.head.multiplies + (answer.multiplies if answer is not None else 0)

    letters = [Letter("x_t", "one element of the sequence", (graph.n_inputs,), 0)]
    for name, array in found.tensors.items():
        if name.startswith(card.FOLDED):
            letters.append(Letter(name, "computed of weights", array.shape, 0))
        else:
            letters.append(Letter(name, "", array.shape, array.size))
    return OwnAnatomy(
        **vars(sizes),
        formulas=tuple(lines),
        tensors=tuple(letters),
        per_step=per_step,
        per_readout=per_readout,
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
        readout=model.readout,
    )
