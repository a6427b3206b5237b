"""ostinato verify RUN"""

from __future__ import annotations

from ostinato_learn.cli.flags import Run
from ostinato_learn.cli.output import AsJson, say, say_json
from ostinato_learn.jobs.failures import Failure
from ostinato_learn.jobs.runs import runs


def verify(
    run: Run,
    as_json: AsJson = False,
) -> None:
    """Compute a model's saved answers again; every bit must be equal."""
    from ostinato_learn import runtime

    trained = runs.find(run)
    found = runtime.verify(trained.model)
    if as_json:
        say_json(found._asdict())
    if found.n_different:
        raise Failure(
            f"{trained.model}: {found.n_different} of {found.n} answers differ from those that "
            f"were saved, by {found.largest:.2g} at most (on {found.isa}); the files are whole, so "
            "this build of ostinato, or this processor, computes differently"
        )
    if not as_json:
        say(f"{found.n} answers equal the saved ones, bit for bit ({found.isa})")
