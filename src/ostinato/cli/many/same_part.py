"""Checks that two runs were measured on the same test part, and the test for their task."""

from __future__ import annotations

from typing import Any

from ostinato import tasks
from ostinato.cli.compare import Measured
from ostinato.cli.many.paired import Apart
from ostinato.cli.run import sources


def tested(a: Measured, b: Measured) -> dict[str, Any]:
    """The test of run B against run A as JSON values, or the reason why there is no test."""
    pair: dict[str, Any] = {"runs": [a.name, b.name]}
    try:
        _check_same_part(a, b)
        outcome = tasks.named(a.task).job().compared(a, b)
    except Apart as reason:
        return pair | {"reason": str(reason)}
    return pair | outcome.as_json()


def _check_same_part(a: Measured, b: Measured) -> None:
    """Raise Apart if two runs were not measured on the same test part, or it is unknown."""
    one, other = _origin(a), _origin(b)
    if one != other:
        raise Apart(
            f"they were tested on different data: {a.name} on {_where(a)}, {b.name} on {_where(b)}"
        )
    data = a.settings.data, b.settings.data
    if any(each.split != data[0].split for each in data):
        raise Apart(f"--split is {data[0].split!r} and {data[1].split!r}: other test parts")
    keys = tasks.named(a.task).drawn
    if data[0].source in sources.BUILT_IN or data[0].test or data[0].split:
        keys = ()
    for key in keys:
        values = a.settings.get(key), b.settings.get(key)
        if values[0] != values[1]:
            raise Apart(
                f"{key} is {values[0]!r} and {values[1]!r}, so that different parts of the data "
                "were tested on; wanted the same, or --test FILE or --split COLUMN for both"
            )


def _origin(measured: Measured) -> str | None:
    """The origin of the test part: the digest of its file, or the name of a data set.

    Raises:
        Apart: the run does not say it.
    """
    data = measured.settings.data
    if data.source in sources.BUILT_IN:
        return data.source
    digest = measured.digests.get(str(data.test or data.source))
    if digest is None:
        raise Apart(f"{measured.run.environment} does not say which data {measured.name} had")
    return digest


def _where(measured: Measured) -> str:
    data = measured.settings.data
    name = str(data.test or data.source)
    return name if data.source in sources.BUILT_IN else f"{name} ({(_origin(measured) or '')[:8]})"
