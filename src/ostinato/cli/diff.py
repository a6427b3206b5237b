"""ostinato diff A B"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ostinato.cli import runs
from ostinato.cli.output import Quiet, hush, say, say_json
from ostinato.cli.summaries import aligned

if TYPE_CHECKING:
    from ostinato.runtime.differences import DifferentTensor, DifferentValue

DIFFERENT = 1
# Left out: seconds, and sections of a run's configuration that config.json repeats.
_TIMES = {"elapsed_s", "evaluation_s"}
_ELSEWHERE = ("model.", "training.")
_MOST = 20  # lines of a part, for people
_WIDTH = 60  # of a value


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A run directory, or a saved model.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Quiet = False,
) -> None:
    """Tell in what two models differ, from parameters to measures.

    Of two runs data and measures are compared, too; times are not. The exit code is 0 if nothing
    differs, and 1 if something does.
    """
    from ostinato.runtime import differences

    hush(quiet)
    one, other = runs.find(a), runs.find(b)
    (parts, tensors), (other_parts, other_tensors) = (
        differences.read(each.model) for each in (one, other)
    )
    if one.run is not None and other.run is not None:
        parts |= _of_run(one)
        other_parts |= _of_run(other)
    values = {name: differences.between(parts[name], other_parts[name]) for name in parts}
    weights = differences.between_tensors(tensors, other_tensors)
    if as_json:
        told: dict[str, Any] = {
            name: {each.name: [each.a, each.b] for each in found} for name, found in values.items()
        }
        say_json(told | {"weights": [each.as_json() for each in weights]})
    else:
        say(_told(values, weights))
    if weights or any(values.values()):
        raise typer.Exit(DIFFERENT)


def _of_run(trained: runs.Trained) -> dict[str, dict[str, Any]]:
    """Settings and data of a run, and what it measured."""
    from ostinato.runtime.differences import flat

    assert trained.run is not None and trained.config is not None
    settings = {k: v for k, v in trained.config.items() if not k.startswith(_ELSEWHERE)}
    results = {k: v for k, v in (trained.run.results() or {}).items() if k not in _TIMES}
    return {
        "settings": settings,
        "data": flat(trained.environment().get("data", {})),
        "measures": flat(results),
    }


def _told(values: dict[str, list[DifferentValue]], weights: list[DifferentTensor]) -> str:
    parts = {
        name: [(each.name, f"{_shown(each.a)} → {_shown(each.b)}") for each in found]
        for name, found in values.items()
    }
    parts["weights"] = [(each.name, _of_weights(each)) for each in weights]
    lines: list[str] = []
    for name, rows in parts.items():
        if rows:
            lines.append(name)
            lines += [f"  {line}" for line in aligned(rows[:_MOST])]
            if len(rows) > _MOST:
                lines.append(f"  … and {len(rows) - _MOST} more; --json shows all")
    same = [name for name, rows in parts.items() if not rows]
    if len(same) == len(parts):
        return "nothing differs"
    return "\n".join([*lines, f"the same: {', '.join(same)}"] if same else lines)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = str(value)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"


def _of_weights(each: DifferentTensor) -> str:
    if each.n is None:
        return f"{_shown(each.a)} → {_shown(each.b)}"
    return (
        f"{each.n_different:,} of {each.n:,} differ, by {each.largest:.3g} at most, "
        f"at {list(each.at or ())}"
    )
