"""`--class-weight`: weights of classes by their labels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ostinato.cli.failures import BadInput

if TYPE_CHECKING:
    import numpy as np


def parsed(given: str | None, labels: np.ndarray) -> str | dict[Any, float] | None:
    """`balanced`, or the mapping meant by "cat=1,dog=2.5".

    Args:
        given: as on the command line.
        labels: all that there are, repeated or not.

    Raises:
        BadInput: it means neither, or names a class that is not among the labels.
    """
    if given is None or given == "balanced":
        return given
    import numpy as np

    by_name = {str(label): label for label in np.unique(labels).tolist()}
    weights: dict[Any, float] = {}
    for pair in given.split(","):
        name, equals, number = pair.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            equals, weight = "", 0.0
        if not equals:
            raise BadInput(f"--class-weight {given}: wanted balanced, or label=weight,label=weight")
        if not 0 <= weight < math.inf:
            raise BadInput(f"--class-weight: {pair.strip()}; wanted a number, 0 or more")
        if name.strip() not in by_name:
            known = ", ".join(by_name)
            raise BadInput(f"--class-weight: there is no class {name.strip()!r}; there are {known}")
        label = by_name[name.strip()]
        if label in weights:
            raise BadInput(f"--class-weight: {name.strip()} is there twice; wanted one weight")
        weights[label] = weight
    return weights
