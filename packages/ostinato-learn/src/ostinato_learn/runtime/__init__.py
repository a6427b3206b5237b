"""Saved models without torch: numpy and the engine.

>>> import numpy as np, ostinato_learn.runtime
>>> model = ostinato_learn.runtime.load("runs/gru/model")
>>> X = np.zeros((4, 9, 3), np.float32)                         # [N, T, F]
>>> model.predict(X).shape, model.predict_proba(X).shape
((4,), (4, 2))

    step_graph.py    one step as a value, in memory and in a file; values.py checks what is read
    model_graph.py   a whole network: layers, readout and head; compose.py: several steps as one
    programs.py      a step as a program of the engine, run on arrays
    network.py       a network run on batches
    model.py         `Model`: predictions in a user's labels
    stream.py        `Stream`, one step at a time; pool.py: many streams
    stream_source.py what all streams of a model share; answers.py: what they answer

`ostinato_learn.saved` reads the directory of a model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostinato_learn.runtime.model import Model
    from ostinato_learn.saved.replay import Verified

__all__ = ["load", "verify"]


def load(path: str | Path) -> Model:
    """Load a saved model, ready to predict, without torch.

    Args:
        path: the directory that `save` wrote, or a run of the command line, which has one.

    Returns:
        A `Model`: of a classifier or a tagger with `predict` and `predict_proba`, which give the
        labels that the model in torch gives.

    Raises:
        ValueError: a file is missing, damaged, altered or foreign; or the model has an earlier or a
            later format, or needs torch. The message says what to do.

    Example:
        >>> ostinato_learn.runtime.load("runs/gru/model")
        Classifier(sequence_classifier: gru layer 0; 2 labels)
    """
    from ostinato_learn.runtime.model import model_of
    from ostinato_learn.saved.read import CONFIG, model_in, read

    path = model_in(Path(path))
    return model_of(read(path), str(path / CONFIG))


def verify(path: str | Path) -> Verified:
    """Compute the answers saved with a model again, and compare them bit for bit.

    Args:
        path: as for `load`.

    Returns:
        The number of answers (`n`), the number of those that differ (`n_different`), the largest
        difference, and the instruction set.

    Raises:
        ValueError: the model cannot be loaded, or has no answers that fit it.

    Example:
        >>> found = ostinato_learn.runtime.verify("runs/gru/model")
        >>> found.n, found.n_different, found.largest
        (4, 0, 0.0)
    """
    from ostinato_learn.saved.read import model_in
    from ostinato_learn.saved.replay import replayed

    return replayed(model_in(Path(path)))
