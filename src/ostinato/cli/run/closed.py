"""What a choice of the network closes, said before a training and not by a refusal after it.

The conditions are those of `ModelGraph.why_not_streamable` and `why_no_lookahead`, and of
`stream_source.scaling_of`, which refuse the trained model.
"""

from __future__ import annotations

from ostinato.cli import jobs
from ostinato.cli.run.config import Config


def closed(settings: Config) -> str | None:
    """What cannot be done with the trained model, and the flag that keeps it possible; or None."""
    task, model = jobs.task_of(settings), settings.model
    if task not in ("classify", "tag"):
        return None
    if model.bidirectional:
        late = model.readout != "last" if task == "classify" else not settings.task.crf
        refused = (
            "export --to c refuses it, and stream answers late, with --lookahead"
            if late
            else "export --to c and stream refuse it"
        )
        return (
            f"the network reads in two directions: {refused}; --no-bidirectional keeps both "
            "possible"
        )
    if settings.data.missing == "forward":
        return "with --missing forward, stream refuses the model; --missing mask and fill do not"
    return None
