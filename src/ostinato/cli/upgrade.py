"""ostinato upgrade RUN"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ostinato.cli import runs
from ostinato.cli.output import Quiet, hush, say


def upgrade(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a saved model.")],
    quiet: Quiet = False,
) -> None:
    """Write a model of an earlier format in this version's.

    The weights stay as they are. The new model takes the place of the old one when it has been
    loaded, and its answers replayed.
    """
    from ostinato.runtime.saved import CONFIG, FORMAT, check_not_newer

    hush(quiet)
    trained = runs.find(run)
    config = trained.entries()
    check_not_newer(config, str(trained.model / CONFIG))
    came = config.get("format")
    if came == FORMAT:
        say(f"{trained.model} is of format {FORMAT} already, the one of this version")
        return

    from ostinato.training.upgrade import upgrade as upgraded

    done = upgraded(trained.model)
    say(f"{trained.model} was of format {came}, and is of {FORMAT} now")
    if done.verified is not None:
        say(f"{done.verified.n} answers are given again, to the bit ({done.verified.isa})")
    elif done.without_graph is not None:
        say(f"it has no graph, and needs torch: {done.without_graph}")
