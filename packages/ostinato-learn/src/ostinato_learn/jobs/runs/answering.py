"""The model of a run that answers: by its graph, or by the network in PyTorch if that is all."""

from __future__ import annotations

from typing import Any

from ostinato_learn.jobs.runs.runs import Trained


def model_of(trained: Trained) -> Any:
    """The `runtime.Model`.

    Where the saved model has no graph, or nothing plays one here, its network is one in torch.

    Raises:
        ValueError: the saved model is damaged, or of a later version.
    """
    from ostinato.internal import native

    if trained.entries().get("graph") is not None and native.unavailable() is None:
        from ostinato_learn import runtime

        return runtime.load(trained.model)
    from ostinato_learn.models import saved_model

    return saved_model.load(trained.model)
