"""The names of a forecaster's inputs."""

from __future__ import annotations

from ostinato.runtime.forecaster import Forecaster


def named_inputs(model: Forecaster) -> dict[str, list[str]]:
    """The columns of `past`, `future` and `static` in their order; none of a model of arrays.

    A column of words in a table is one column for each word, as "colour=red".
    """
    preparation = model.preparation
    if preparation is None or preparation.roles is None:
        return {}
    known = preparation.roles.known
    columns = [(f.name in known, column) for f in preparation.features for column in f.columns]
    return {
        "past": [column for is_known, column in columns if not is_known],
        "future": [column for is_known, column in columns if is_known],
        "static": list(preparation.static_columns),
    }
