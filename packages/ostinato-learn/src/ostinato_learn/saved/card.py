"""`card`: the model card of a saved model, its README.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from ostinato_learn import tasks

FOLDED = "folded."  # the prefix of tensors that were computed from the weights
NO_WEIGHTS = (FOLDED, "copies")  # the second: hashes of texts in earlier language models

_SHOWN = 20  # labels

Rows = Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Facts:
    """The facts on a card that config.json does not have.

    Attributes:
        parameters: the number of parameters; None: unknown.
        data: what the model was trained on, as name → value.
        measured: measures of the model, as name → figure, and the same for others beside it, by
            their names: {"this model": {"accuracy": "98.2 %"}, "always up": {"accuracy": "50 %"}}.
        findings: the findings that put the measures in doubt, in sentences.
    """

    parameters: int | None = None
    data: Rows = ()
    measured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    findings: Sequence[str] = ()


def card(config: Mapping[str, Any], facts: Facts) -> str:
    """The text of README.md.

    Args:
        config: the content of config.json.
        facts: further facts.
    """
    kind = config["kind"]
    sections = [
        ["---", "library_name: ostinato", f"tags: [{kind.replace('_', '-')}, recurrent]", "---"],
        [f"# A {kind.replace('_', ' ')}"],
        [tasks.by_kind(kind, "the model").does],
        _table([("", "")], _network(config, facts.parameters)),
    ]
    if facts.data:
        sections += [["## Data"], _table([("", "")], facts.data)]
    if facts.measured:
        doubts = [f"**These figures mislead.** {_cell_text(each)}\n" for each in facts.findings]
        sections += [["## Evaluation"], *([doubt] for doubt in doubts), _measured(facts.measured)]
    sections += [
        ["## Use"],
        ["```python", *_use(config), "```"],
        ["## Files"],
        [
            f"Format {config['format']}{_opset(config)}, saved by ostinato {config['saved_by']}. "
            + "`ostinato verify` replays the answers of `check.safetensors`, where there is one; "
            + "`ostinato export` writes ONNX and C."
        ],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def n_parameters(tensors: Mapping[str, Any]) -> int:
    """The number of parameters of a network, from its state_dict or a saved model's tensors.

    Each layer has two biases, as in torch.nn.
    """
    learnt = (t for name, t in tensors.items() if not name.startswith(NO_WEIGHTS))
    return sum(prod(tensor.shape) for tensor in learnt)


def _network(config: Mapping[str, Any], parameters: int | None) -> Rows:
    net, fitted = config["net"], config["fitted"]
    rows: list[tuple[str, Any]] = [("cell", _cell(net))]
    shown = (
        "hidden_size",
        "num_layers",
        "bidirectional",
        "readout",
        "ensemble",
        "n_features",
        "n_tokens",
        "horizon",
    )
    rows += [(name, net[name]) for name in shown if net.get(name) is not None]
    if parameters is not None:
        rows.append(("parameters", f"{parameters:,}"))
    rows.append(("updates", config["iterations"]))
    bounds = {"whole": "whole numbers", "nonnegative": "0 or more"}
    if any(fitted.get(name) for name in bounds):
        rows.append(("forecasts", ", ".join(t for n, t in bounds.items() if fitted.get(n))))
    preparation = fitted.get("preparation")
    if preparation and preparation["features"]:
        rows.append(("features", _some([each.get("name") for each in preparation["features"]])))
    classes = fitted.get("classes")
    if classes is not None:
        rows.append(("labels", _some(classes["values"])))
    return rows


def _cell(net: Mapping[str, Any]) -> str:
    return net["cell"] if isinstance(net["cell"], str) else net["cell"]["own"]


def _some(values: list[Any]) -> str:
    shown = ", ".join(str(value) for value in values[:_SHOWN])
    return shown if len(values) <= _SHOWN else f"{shown}, … ({len(values)})"


def _measured(measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row for each measure, a column for each model and baseline."""
    names = list(dict.fromkeys(name for each in measured.values() for name in each))
    rows = [(name, *(each.get(name, "") for each in measured.values())) for name in names]
    return _table([("", *measured)], rows)


def _table(head: Sequence[tuple[str, ...]], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    cells = [[_cell_text(value) for value in row] for row in (*head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]


def _cell_text(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _use(config: Mapping[str, Any]) -> list[str]:
    lines = ["import ostinato_learn", ""]
    if config.get("graph") is not None:
        lines.append('model = ostinato_learn.runtime.load("path/of/this/model")  # without torch')
    if isinstance(config["net"]["cell"], str):
        lines.append('model = ostinato_learn.load("path/of/this/directory")  # in torch')
    return [*lines, "model.predict(X)"]


def _opset(config: Mapping[str, Any]) -> str:
    graph = config.get("graph")
    return "" if graph is None else f", operations of opset {graph.get('opset')}"
