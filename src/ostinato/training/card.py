"""`card`: what a saved model is, for people: its README.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TASKS = {
    "sequence_classifier": "Names the class of a sequence.",
    "sequence_tagger": "Gives a label to every step of a sequence.",
    "sequence_forecaster": "Says what the next values of a series may be.",
    "language_model": "Says which token comes next in a text.",
}
_SHOWN = 20  # labels


def card(config: Mapping[str, Any], measures: Mapping[str, float]) -> str:
    """The text of README.md.

    Args:
        config: what stands in config.json.
        measures: name → figure, measured by whoever saves the model.
    """
    net = config["net"]
    cell = net["cell"] if isinstance(net["cell"], str) else net["cell"]["own"]
    rows = [
        ("cell", cell),
        *((name, net[name]) for name in ("hidden_size", "num_layers", "bidirectional")
          if name in net),
        *((name, net[name]) for name in ("readout", "ensemble", "n_features", "horizon")
          if net.get(name) is not None),
        ("updates", config["iterations"]),
    ]  # fmt: skip
    if "classes" in config["fitted"]:
        rows.append(("labels", _labels(config["fitted"]["classes"]["values"])))
    lines = [
        "---",
        "library_name: ostinato",
        f"tags: [{config['kind'].replace('_', '-')}, recurrent]",
        "---",
        "",
        f"# A {config['kind'].replace('_', ' ')}",
        "",
        _TASKS[config["kind"]],
        "",
        *_table(rows),
        "",
        *_measured(measures),
        "## Use",
        "",
        "```python",
        *_use(config, cell),
        "```",
        "",
        f"Saved by ostinato {config['saved_by']}.",
        "",
    ]
    return "\n".join(lines)


def _labels(values: list[Any]) -> str:
    shown = ", ".join(str(value) for value in values[:_SHOWN])
    return shown if len(values) <= _SHOWN else f"{shown}, … ({len(values)})"


def _table(rows: list[tuple[str, Any]]) -> list[str]:
    cells = [(name, str(value).replace("|", "\\|").replace("\n", " ")) for name, value in rows]
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in cells)]


def _measured(measures: Mapping[str, float]) -> list[str]:
    if not measures:
        return []
    rows: list[tuple[str, Any]] = [(name, f"{value:.4g}") for name, value in measures.items()]
    return ["## Measured", "", *_table(rows), ""]


def _use(config: Mapping[str, Any], cell: str) -> list[str]:
    lines = ["import ostinato", ""]
    if config["graph"] is not None:
        lines.append('model = ostinato.runtime.load("path/of/this/directory")  # without torch')
    if isinstance(config["net"]["cell"], str):
        lines.append('model = ostinato.load("path/of/this/directory")  # in torch')
    return [*lines, "model.predict(X)"]
